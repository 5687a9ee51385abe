"""The still part of the beating-heart phantom: coordinates, soft-edged shapes, tissues and the chest round the heart.

Lengths are mm, angles radians, images (s, h, w) with slices from base to apex.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter


def coverage(r, u, radius, length, voxel):
    """Share of each voxel inside the ellipsoid (r/radius)² + (u/length)² = 1: partial volume to first order."""
    level = np.sqrt((r / radius) ** 2 + (u / length) ** 2) + 1e-6
    extent = (voxel[1] * r / radius**2 + voxel[0] * np.abs(u) / length**2) / level
    return np.clip(0.5 + (1 - level) / (extent + 1e-6), 0, 1)


def paint(image, value, coverage):
    """`image` with `value` laid over it where `coverage` is 1."""
    return image + (value - image) * coverage


@dataclasses.dataclass(frozen=True)
class Scene:
    """Coordinates of one patient and what all parts share; arrays broadcast to (s, h, w)."""

    rng: np.random.Generator
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    voxel: tuple[float, float]  # thickness of a slice, width of a pixel
    tissue: dict[str, float]

    def draw(self, low, high):
        return np.float32(self.rng.uniform(low, high))

    def texture(self, scale):
        """Smooth noise of unit variance, independent between slices."""
        noise = self.rng.standard_normal(np.broadcast_shapes(self.z.shape, self.y.shape, self.x.shape), np.float32)
        smooth = gaussian_filter(noise, (0, scale / self.voxel[1], scale / self.voxel[1]))
        return smooth / smooth.std()

    def ellipse(self, centre, axes, angle=0.0, depth=0.0, length=1.0):
        """Coverage of an ellipse with (x, y) centre and half axes; an ellipsoid where `depth` is given."""
        x, y = rotate(self.x - centre[0], self.y - centre[1], angle)
        return coverage(np.hypot(x, y * axes[0] / axes[1]), depth, axes[0], length, self.voxel)


def rotate(x, y, angle):
    """Coordinates of the points (x, y) in a frame turned by `angle`."""
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def polar(radius, angle):
    """(x, y) of a point in polar coordinates; y points down, so angles turn clockwise."""
    return radius * np.cos(angle), radius * np.sin(angle)


def make_scene(rng, shape, spacing):
    """Coordinates round the middle of a stack of `shape` (s, h, w), and one patient's tissue intensities."""
    axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    breath = rng.normal(0, 1.2, (2, shape[0], 1, 1)).astype(np.float32)  # each slice is its own breath-hold
    uniform = rng.uniform
    blood = uniform(150, 500)
    myo = uniform(0.25, 0.45)
    tissue = dict(
        blood=1.0, myo=myo, muscle=myo * uniform(0.8, 1.3), liver=myo * uniform(0.8, 1.5), fat=uniform(0.6, 1.2),
        lung=uniform(0.06, 0.2), air=0.02,
    )
    voxel = 0.6 * spacing[0], (spacing[1] * spacing[2]) ** 0.5  # slices are thinner than their distance
    return Scene(rng, z, y - breath[0], x - breath[1], voxel,
                 {name: np.float32(blood * share) for name, share in tissue.items()})


def paint_chest(scene, middle, heart):
    """Everything that does not beat, (s, h, w): wall, lungs, liver, and vessels as bright as the ventricles.

    `middle` is the (x, y) centre of both ventricles together, `heart` that of the left one.
    """
    draw, tissue = scene.draw, scene.tissue

    tilt = draw(-0.6, 0.1)
    side = rotate(draw(15, 45), draw(30, 45), -tilt)
    centre = middle[0] + side[0], middle[1] + side[1]
    axes = np.array([draw(150, 180), draw(118, 134)])
    fat, muscle = draw(6, 16), draw(9, 15)
    angle = np.arctan2(scene.y - centre[1], scene.x - centre[0])
    ribs = 1 + 0.4 * np.sin(draw(9, 14) * angle + 0.05 * scene.z + draw(0, 6))
    image = paint(tissue["air"], tissue["fat"], scene.ellipse(centre, axes, tilt))
    image = paint(image, tissue["muscle"] * ribs, scene.ellipse(centre, axes - fat, tilt))
    thorax = scene.ellipse(centre, axes - fat - muscle, tilt)
    lung_vessels = np.clip(scene.texture(2.0) - 2.2, 0, 0.6)
    image = paint(image, tissue["lung"] + tissue["blood"] * lung_vessels, thorax)

    behind = middle[0] + draw(-30, 20), middle[1] + draw(5, 40)
    mediastinum = scene.ellipse(behind, (draw(45, 85), draw(35, 65)), draw(-1, 1))
    image = paint(image, tissue["muscle"] * (1 + 0.25 * scene.texture(5)), thorax * mediastinum)
    under = middle[0] + draw(-60, -5), middle[1] + draw(65, 95)
    liver = scene.ellipse(under, (draw(80, 100), draw(48, 62)), draw(-0.3, 0.3), scene.z - draw(20, 60), draw(80, 120))
    image = paint(image, tissue["liver"] * (1 + 0.1 * scene.texture(4)), thorax * liver)

    cava = heart[0] + draw(-45, -20), heart[1] + draw(48, 62)
    image = paint(image, tissue["blood"], scene.ellipse(cava, (draw(8, 13), draw(7, 11))))

    x, y = polar(draw(60, 78), draw(0.5, 1.6))
    size, depth, length = draw(16, 28), scene.z - draw(20, 50), draw(35, 70)
    wall, content = draw(4, 8), draw(0.1, 1.1) * tissue["blood"]
    for radius, value in ((size, tissue["muscle"]), (size - wall, content)):  # a stomach: much like a left ventricle
        image = paint(image, value, scene.ellipse((heart[0] + x, heart[1] + y), (radius, radius), 0, depth, length))

    x, y = polar(draw(52, 66), draw(0.1, 1.1))
    x, size, brightness = x + scene.z * draw(-0.15, 0.15), draw(9, 14), draw(0.85, 1.2)
    for radius, value in ((size + 2, tissue["muscle"]), (size, brightness * tissue["blood"])):  # descending aorta
        image = paint(image, value, scene.ellipse((heart[0] + x, heart[1] + y), (radius, radius)))
    return image


def paint_atria(scene, chest, heart, rotation):
    """The chest as it shows above the valve plane: atria and aortic root, thin-walled, bright and unlabelled."""
    image = chest
    for (x, y), (width, height) in (((-45, 14), (20, 26)), ((6, 8), (26, 19)), ((-10, -16), (14, 14))):
        scale = scene.draw(0.85, 1.15)
        offset = rotate(np.float32(x), np.float32(y), -rotation)
        centre, axes = (heart[0] + offset[0], heart[1] + offset[1]), scale * np.float32((width, height))
        image = paint(image, scene.tissue["muscle"], scene.ellipse(centre, axes + 2.5, rotation))
        image = paint(image, scene.tissue["blood"] * scene.draw(0.8, 1.1), scene.ellipse(centre, axes, rotation))
    return image
