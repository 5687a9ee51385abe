"""An analytic beating heart in a chest: cine MRI with exact labels on every frame.

The left ventricle is a half ellipsoid, open at its base, whose volume follows a cardiac curve. Its wall keeps
its volume along every direction, so it thickens in systole, while the base descends towards a resting apex.
The right ventricle is a crescent beside the septum. Patients differ in anatomy, position, rotation, contrast
and neighbours, so that neither intensity nor position alone tells a structure.

Lengths are mm, volumes mm³, angles radians. Image axes: (t, s, h, w), slices from base to apex.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import ive

from ica_unet_jax.data.phantom.chest import Scene, coverage, make_scene, paint, paint_atria, paint_chest, polar, rotate
from ica_unet_jax.errors import UserError

BACKGROUND, RV, MYO, LV = range(4)
HALF_ELLIPSOID = 2 * np.pi / 3  # volume = HALF_ELLIPSOID * radius² * length


@dataclasses.dataclass(frozen=True)
class Group:
    """Ranges of one diagnostic group, each (low, high)."""

    ejection: tuple[float, float]  # fraction of the end-diastolic volume of the LV
    volume: tuple[float, float]  # end-diastolic, of the LV, mL
    length: tuple[float, float]  # base to endocardial apex, end-diastolic
    wall: tuple[float, float]  # end-diastolic thickness
    rv_width: tuple[float, float]  # septum to free wall at the base, end-diastolic
    rv_shortening: tuple[float, float]  # fraction of that width
    bulge: tuple[float, float] = (-0.1, 0.1)  # relative change of the wall in one segment: septum in HCM
    akinesia: tuple[float, float] = (0.0, 0.0)  # share of its motion that a segment has lost


GROUPS = {
    "NOR": Group((0.55, 0.68), (95, 150), (70, 82), (7.5, 10), (26, 34), (0.35, 0.5)),
    "MINF": Group((0.25, 0.40), (130, 210), (74, 88), (7, 10), (24, 32), (0.3, 0.45), (-0.4, -0.2), (0.8, 1.0)),
    "DCM": Group((0.12, 0.30), (180, 270), (82, 94), (7, 9.5), (26, 36), (0.15, 0.35)),
    "HCM": Group((0.62, 0.75), (85, 130), (68, 78), (11, 15), (22, 30), (0.35, 0.5), (0.25, 0.6)),
    "RV": Group((0.50, 0.64), (80, 130), (68, 80), (7, 10), (44, 56), (0.12, 0.25)),
}


@dataclasses.dataclass(frozen=True)
class Phantom:
    """One simulated patient."""

    frames: np.ndarray  # float32 (t, s, h, w), arbitrary units >= 0
    labels: np.ndarray  # uint8 (t, s, h, w): 0 background, 1 RV cavity, 2 myocardium, 3 LV cavity
    group: str
    ed: int  # frame of the largest LV cavity, from 0
    es: int  # frame of the smallest
    spacing: tuple[float, float, float]  # mm (s, h, w)
    height: float  # cm
    weight: float  # kg


class _Heart:
    """Shape of one patient's heart as a function of contraction (0 at ED, 1 at ES)."""

    def __init__(self, group: Group, scene: Scene, centre, rotation):
        draw = scene.draw
        self.scene, self.centre, self.rotation = scene, centre, rotation
        self.ejection, self.volume = draw(*group.ejection), 1000 * draw(*group.volume)
        self.length, self.wall = draw(*group.length), draw(*group.wall)
        self.rv_width, self.rv_shortening = draw(*group.rv_width), draw(*group.rv_shortening)
        self.rv_height, self.rv_length = draw(0.92, 1.1), draw(0.82, 0.95)
        self.bulge, self.akinesia = draw(*group.bulge), draw(*group.akinesia)
        septal = group.bulge[0] > 0  # in HCM the septum thickens, while a scar may lie anywhere
        self.segment = np.pi + draw(-0.4, 0.4) if septal else draw(-np.pi, np.pi)
        self.concentration = draw(1.5, 3)
        self.base = -self.length / 2 + draw(-8, 8)
        self.drift = draw(-0.12, 0.12), draw(-0.12, 0.12)  # the long axis against the stack
        self.sway = draw(-2.5, 2.5), draw(-2.5, 2.5)
        self.oval, self.oval_angle = draw(0, 0.06), draw(0, np.pi)
        self.papillary = [(draw(-0.2, 0.3) + side * draw(0.9, 1.3), draw(3, 5)) for side in (-1, 1)]
        self.fat = draw(1.5, 5) * (scene.texture(6) > -0.3)  # patchy, as on the surface of a heart

    def paint(self, chest, atria, contraction):
        """One frame: image and labels (s, h, w)."""
        scene, tissue, voxel = self.scene, self.scene.tissue, self.scene.voxel
        shortening = 0.25 * self.ejection * contraction
        length = self.length * (1 - shortening)
        depth = scene.z - self.base - self.length * shortening  # below the valve plane, which descends
        x, y = rotate(
            scene.x - self.centre[0] - self.drift[0] * scene.z - self.sway[0] * contraction,
            scene.y - self.centre[1] - self.drift[1] * scene.z - self.sway[1] * contraction,
            self.rotation,
        )
        theta = np.arctan2(y, x)
        r = np.hypot(x, y) * (1 + self.oval * np.cos(2 * (theta - self.oval_angle)))

        # Squared radii per direction. The lost motion of a segment is made up by the others, so that the
        # ejection fraction holds; radius² * length of the wall is what ED had, so that its volume holds.
        share = np.exp(self.concentration * (np.cos(theta - self.segment) - 1))  # 1 within the special segment
        mean_share = ive(0, self.concentration)  # over all directions
        rest2 = self.volume / (HALF_ELLIPSOID * self.length)
        mean2 = rest2 * (1 - self.ejection * contraction) / (1 - shortening)
        inner2 = mean2 + (rest2 - mean2) * self.akinesia * (share - mean_share)
        apex = 0.8 * self.wall

        def outer(inner2, share):
            rest = (np.sqrt(rest2) + self.wall * (1 + self.bulge * share)) ** 2 * (self.length + apex)
            return np.sqrt((rest - rest2 * self.length + inner2 * length) / (length + apex))

        epicardium = outer(mean2, mean_share)
        offset = 0.7 * epicardium
        rv_radius = epicardium + self.rv_width * (1 - self.rv_shortening * contraction) - offset
        rv_r = np.hypot(x + offset, y * rv_radius / (self.rv_height * epicardium))
        rv_length = self.rv_length * (length + apex)

        def within(distance, radius, length):
            return coverage(distance, np.maximum(depth, 0), radius, length, voxel)

        cavity, rv = within(r, np.sqrt(inner2), length), within(rv_r, rv_radius, rv_length)
        outer_radius = outer(inner2, share)
        epi = within(r, outer_radius, length + apex)
        fat = self.fat + 3  # beyond the free wall of the RV, 3 mm thin
        image = paint(chest, tissue["fat"], within(rv_r, rv_radius + fat, rv_length + fat))
        image = paint(image, tissue["fat"], within(r, outer_radius + 0.3 * self.fat, length + apex))
        image = paint(image, tissue["muscle"], within(rv_r, rv_radius + 3, rv_length + 3))
        image = paint(image, tissue["blood"], rv)
        image = paint(image, tissue["myo"], epi)
        image = paint(image, tissue["blood"], cavity)
        for angle, size in self.papillary:
            px, py = polar(0.62 * np.sqrt(mean2), angle)
            muscle = coverage(np.hypot(x - px, y - py), depth - 0.5 * length, size, 0.32 * length, voxel)
            image = paint(image, tissue["myo"], muscle * cavity)

        below = np.clip(0.5 + depth / voxel[0], 0, 1)  # share of the slice that lies below the valve plane
        labels = np.select([cavity > 0.5, epi > 0.5, rv > 0.5], [LV, MYO, RV], BACKGROUND)
        return paint(atria, image, below), np.where(below > 0.5, labels, BACKGROUND)


def _contraction(frames, rng):
    """Contraction at each of `frames` equal steps of a beat that starts at end-diastole."""
    systole = max(1, round(rng.uniform(0.32, 0.42) * frames)) / frames  # end-systole falls on a frame
    knots = [0, 0.3 * systole, systole, systole + 0.18, systole + 0.35, 1]
    return PchipInterpolator(knots, [0, 0.25, 1, 0.4, 0.25, 0])(np.arange(frames) / frames).astype(np.float32)


def _coil(scene):
    """Multiplicative field of the receiver coils, and the gain of each breath-hold; (s, h, w)."""
    x, y = np.tanh(scene.x / 100), np.tanh(scene.y / 100)  # bounded in a wide field of view
    a, b, c, d, e = scene.rng.normal(0, 0.5, 5).astype(np.float32)
    gain = scene.rng.normal(0, 0.04, scene.z.shape).astype(np.float32)
    return np.exp(a * x + (b - 0.25) * y + c * x * y + 0.7 * d * x**2 + 0.7 * e * y**2 + gain)


def simulate(
    seed: int,
    index: int,
    shape: tuple[int, int, int] = (8, 96, 96),
    frames: int = 12,
    spacing: tuple[float, float, float] = (10.0, 1.5, 1.5),
) -> Phantom:
    """Patient `index` of cohort `seed`: always the same for the same arguments.

    Args:
      seed: of the cohort; with `index` it fixes the patient.
      index: of the patient, from 0. Groups take turns: NOR, MINF, DCM, HCM, RV.
      shape: slices, height, width. The heart lies near the middle and needs about 70 x 120 x 120 mm.
      frames: of one beat, which starts at end-diastole.
      spacing: mm between slices, rows and columns.

    Raises:
      UserError: a size, seed or spacing that cannot be.
    """
    if min(*shape, *spacing) <= 0 or frames < 2 or seed < 0 or index < 0:
        raise UserError(
            f"A phantom of shape={shape}, frames={frames}, spacing={spacing}, seed={seed}, index={index} cannot be "
            "made: use positive sizes, at least 2 frames, and a seed and index from 0."
        )
    rng = np.random.default_rng((seed, index))
    scene = make_scene(rng, shape, spacing)
    name = list(GROUPS)[index % len(GROUPS)]
    rotation = scene.draw(-2, 2)
    middle = scene.draw(-8, 8), scene.draw(-8, 8)  # of both ventricles together
    aside = rotate(np.float32(24), np.float32(0), -rotation)
    centre = middle[0] + aside[0], middle[1] + aside[1]
    heart = _Heart(GROUPS[name], scene, centre, rotation)
    chest = paint_chest(scene, middle, centre)
    atria = paint_atria(scene, chest, centre, rotation)
    field = _coil(scene) * (1 + 0.05 * scene.texture(2.5))
    sigma = scene.draw(0.02, 0.04) * scene.tissue["blood"]

    images = np.empty((frames, *shape), np.float32)
    labels = np.empty((frames, *shape), np.uint8)
    for t, contraction in enumerate(_contraction(frames, rng)):
        image, labels[t] = heart.paint(chest, atria, contraction)
        real, imaginary = rng.standard_normal((2, *shape), np.float32) * sigma
        images[t] = np.hypot(image * field + real, imaginary)  # Rician noise
    cavity = np.count_nonzero(labels == LV, axis=(1, 2, 3))
    height = rng.uniform(155, 190)
    weight = rng.uniform(20, 30) * (height / 100) ** 2
    return Phantom(
        images, labels, name, int(cavity.argmax()), int(cavity.argmin()), tuple(spacing), round(height), round(weight)
    )


def write_cohort(
    out: str | Path,
    patients: int,
    seed: int = 0,
    shape: tuple[int, int, int] = (8, 96, 96),
    frames: int = 12,
    label_every: bool = False,
) -> None:
    """Writes patients 001 to `patients` into the new folder `out` in the ACDC layout, all of them or nothing.

    Args:
      out: must not exist, or be empty.
      patients: how many.
      seed, shape, frames: as in `simulate`.
      label_every: write the labels of every frame, not of ED and ES alone.

    Raises:
      UserError: `out` holds something, or sizes that cannot be.
    """
    out = Path(out)
    if patients < 1:
        raise UserError(f"A cohort of {patients} patients cannot be made: ask for at least 1.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: name a new folder, or remove this one first.")
    partial = out.absolute().with_name(f".{out.absolute().name}.{platform.node()}.{os.getpid()}")
    try:
        for index in range(patients):
            phantom = simulate(seed, index, shape, frames)
            _write_patient(partial, f"patient{index + 1:03d}", phantom, label_every)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_patient(cohort, name, phantom, label_every):
    folder = cohort / name
    folder.mkdir(parents=True)
    frames = len(phantom.frames)
    facts = dict(
        ED=phantom.ed + 1, ES=phantom.es + 1, Group=phantom.group,
        Height=phantom.height, NbFrame=frames, Weight=phantom.weight,
    )
    (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in facts.items()), encoding="utf-8")

    def save(array, suffix):
        image = nib.Nifti1Image(array.T, np.diag([*phantom.spacing[::-1], 1]))
        image.header.set_zooms((*phantom.spacing[::-1], 0.9 / frames)[: array.ndim])
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, folder / f"{name}_{suffix}.nii.gz")

    cine = np.rint(np.clip(phantom.frames, 0, 32767)).astype(np.int16)
    save(cine, "4d")
    for t in range(frames) if label_every else sorted({phantom.ed, phantom.es}):
        save(cine[t], f"frame{t + 1:02d}")
        save(phantom.labels[t], f"frame{t + 1:02d}_gt")
