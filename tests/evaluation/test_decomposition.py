"""What the network makes of a frame, as arrays, figures and pictures."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from places import ROOT
from tiny import SMALL, variables

from ica_unet_jax.config import Config, LossConfig
from ica_unet_jax.data.case import Case, Cine
from ica_unet_jax.data.geometry import normalize
from ica_unet_jax.errors import UserError
from ica_unet_jax.evaluation import decomposition_figures
from ica_unet_jax.evaluation.decomposition import (
    COLUMNS,
    SCALES,
    Decomposer,
    Decomposition,
    frame_shares,
    image_box,
    judge,
    read_csv,
    row_of,
    rows_of,
    summarize,
    weighted_terms,
    write_csv,
)
from ica_unet_jax.inference.segmenters import Segmenter
from ica_unet_jax.metrics.ica import basis_quality
from ica_unet_jax.models.mixing import mix_plain

CONFIG = Config.make(**SMALL)
D, H, W = CONFIG.model.crop


def cine(slices=2, rows=50, columns=70, frames=4, labelled=(0, 2)):
    rng = np.random.default_rng(0)
    volumes = rng.gamma(2, 100, (frames, slices, rows, columns)).astype(np.float32)
    labels = {time: rng.integers(0, 4, (slices, rows, columns)).astype(np.uint8) for time in labelled}
    return Cine(Case("somebody"), volumes, tuple(range(frames)), labels, (10.0, 1.7, 1.4), np.eye(4), nib.Nifti1Header())


def stamp(coefficients, images):
    """A (x) X with bases of one channel, (d, h, w)."""
    return np.asarray(mix_plain(jnp.asarray(coefficients[None]), jnp.asarray(images[None, :, :, :, None])))[0, ..., 0]


@pytest.fixture(scope="module")
def decomposer():
    return Decomposer(Segmenter(CONFIG, variables(CONFIG.model)), pictured=True)


@pytest.fixture(scope="module")
def part(decomposer):
    """One slice, half of the window's depth, 50 x 70 voxels of 1.7 x 1.4 mm: 56 x 64 of the window's 64 x 64 hold image."""
    return next(decomposer(cine(slices=1)))[0]


def test_it_is_the_segmentation_of_every_frame_and_window_by_what_is_compiled(decomposer):
    long = cine(slices=3)
    placement = decomposer.segmenter.place(long.frames.shape[1:], long.spacing)
    found = list(decomposer(long, long.times))
    expected = decomposer.segmenter.logits(long.frames, placement, [(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 3)])
    for time, (windows, logits) in enumerate(zip(found, expected, strict=True)):
        assert [(part.patient, part.frame, part.first_slice) for part in windows] == [("somebody", time, 0), ("somebody", time, 2)]
        native = placement.backward(np.stack([part.logits for part in windows]))
        np.testing.assert_allclose(native, logits, atol=1e-5 * np.abs(logits[placement.inside]).max())
        images = placement.forward(normalize(long.frames[time]))
        np.testing.assert_allclose(np.stack([part.image for part in windows]), images, atol=3e-6)
    assert [windows[0].frame for windows in decomposer(cine(slices=1, rows=40))] == [0, 2]
    assert decomposer.segmenter.traces == 2  # encode and decode


@pytest.mark.parametrize("neighbours", ["past", "two_past", "none"])
def test_a_frame_is_decomposed_as_it_is_segmented(neighbours):
    segmenter, some = Segmenter(config := CONFIG.replace(neighbours=neighbours), variables(config.model)), cine()
    [[part]] = Decomposer(segmenter)(some, [2])
    placement, reach = segmenter.place(some.frames.shape[1:], some.spacing), config.model.reach
    [logits] = segmenter.logits(some.frames, placement, [some.window(2, reach)])
    np.testing.assert_array_equal(np.argmax(placement.backward(part.logits[None]), -1), np.argmax(logits, -1))
    assert part.mixed is None
    mirrored = Segmenter(config, segmenter.variables, mirror=True)
    mirrored._network = segmenter._network
    [[same]] = Decomposer(mirrored)(some, [2])
    np.testing.assert_array_equal(same.logits, part.logits)


def test_shapes_and_the_reconstruction_as_a_product(part):
    m, u = CONFIG.model.bases, CONFIG.model.projection_width
    assert part.bases.shape == (D, H // 16, W // 16, u, m) and part.reconstruction.shape == (D, H, W)
    assert part.coefficients.shape == part.mixed.shape == (D // 2, H // 4, W // 4, m)
    assert not part.coefficients[~part.cells].any() and not part.cells.all()
    # It is linear in X, so the mean over the channels may be taken before as well as after.
    mixed = stamp(part.coefficients, part.images_of_bases)
    terms = D * H * W * m / (2 * 4 * 4 * 16 * 16)
    np.testing.assert_allclose(part.reconstruction, mixed / terms**0.5, atol=1e-5 * np.abs(mixed).max())


def test_the_figures_are_those_of_the_definitions(part):
    row = row_of([part])
    assert tuple(row) == COLUMNS and (row["patient"], row["frame"]) == ("somebody", 1)
    flat = [part.bases[..., basis].mean(-1).ravel() for basis in range(part.bases.shape[-1])]  # over the channels
    assert row["n_values"] == len(flat[0])
    assert {name: row[name] for name in basis_quality(flat)} == pytest.approx(basis_quality(flat))
    left = (part.image - part.reconstruction)[part.valid]
    assert row["explained_variance"] == pytest.approx(1 - left.var() / part.image[part.valid].var(), rel=1e-5)
    extent = np.ptp(part.image[part.valid])
    assert row["psnr"] == pytest.approx(-10 * np.log10(np.mean(left**2) / extent**2), rel=1e-5)
    assert [row[name] for name in SCALES] == pytest.approx(
        [np.abs(flat).mean(), np.abs(part.coefficients[part.cells]).mean()]
    )


def test_padding_counts_in_no_figure(part):
    box = part.image[image_box(part.valid)]
    assert box.shape == (1, 56, 64) and box.size == part.valid.sum()
    spoiled = dataclasses.replace(
        part,
        image=np.where(part.valid, part.image, 1e3).astype(np.float32),
        reconstruction=np.where(part.valid, part.reconstruction, -1e3).astype(np.float32),
        coefficients=np.where(part.cells[..., None], part.coefficients, 1e3).astype(np.float32),
    )
    assert row_of([spoiled]) == row_of([part])
    np.testing.assert_array_equal(spoiled.energy, part.energy)


def test_nothing_but_the_scales_depends_on_the_scale(part):
    other = row_of([dataclasses.replace(part, bases=part.bases * 4, coefficients=part.coefficients / 4)])
    row = row_of([part])
    assert [other.pop(name) / row.pop(name) for name in SCALES] == pytest.approx([4, 1 / 4])
    assert other == pytest.approx(row)


def test_a_frame_is_the_mean_of_its_windows(decomposer):
    windows = next(decomposer(cine(slices=3)))
    both, one, two = row_of(windows), row_of(windows[:1]), row_of(windows[1:])
    assert one["psnr"] != two["psnr"]
    for name in set(COLUMNS) - {"patient", "frame"}:
        assert both[name] == pytest.approx((one[name] + two[name]) / 2)


TERMS = ("cross_entropy", "weighted_sparsity", "weighted_independence", "weighted_reconstruction", "negentropy_alpha", "frame_share")


def test_weighted_terms_are_those_of_the_loss(part):
    """By their definitions, with factors that no default has."""
    config = LossConfig(ica_weight=0.5, sparsity_weight=2.0, independence_weight=3.0, reconstruction_weight=4.0, alpha=0.8)
    labels = np.zeros(part.image.shape, np.uint8)
    terms = weighted_terms(part, labels, config)
    assert terms["weighted_sparsity"] == pytest.approx(np.abs(part.bases).mean(), rel=1e-5)
    z = np.float64(part.bases) / 0.8
    contrast = 0.8 * (np.logaddexp(z, -z) - np.log(2)).mean()
    assert terms["weighted_independence"] == pytest.approx(-1.5 * contrast, rel=1e-4)
    error = np.square(part.reconstruction - part.image)[part.valid].mean()
    assert terms["weighted_reconstruction"] == pytest.approx(2 * error, rel=1e-5)
    logits = np.float64(part.logits[part.valid])
    assert terms["cross_entropy"] == pytest.approx((np.logaddexp.reduce(logits, axis=-1) - logits[:, 0]).mean(), rel=1e-5)


def test_frame_share_by_hand():
    # Mean (2, 2): the first moves by (1, -1) of (3, 1), the second by (-1, 1) of (1, 3).
    assert frame_shares([np.array([3.0, 1.0]), np.array([1.0, 3.0])]) == [2 / 10, 2 / 10]
    assert frame_shares([np.array([3.0, 1.0])] * 2) == [0, 0]


def test_rows_survive_their_file(decomposer, tmp_path):
    rows = rows_of(judge(decomposer, cine()))
    assert [(row["patient"], row["frame"]) for row in rows] == [("somebody", 1), ("somebody", 3)]
    write_csv(tmp_path / "ica.csv", rows)
    for row, read in zip(rows, read_csv(tmp_path / "ica.csv"), strict=True):
        assert tuple(read) == (*COLUMNS, *TERMS) and read.pop("patient") == row["patient"]
        assert read == pytest.approx({name: row[name] for name in read}, rel=1e-5, abs=1e-12, nan_ok=True)


def test_a_patient_counts_once_whatever_its_frames():
    rows = [{"patient": patient, "frame": 1, "psnr": value} for patient, value in (("a", 1.0), ("a", 3.0), ("b", 6.0), ("b", np.inf), ("c", np.nan))]
    assert summarize(rows) == {"psnr": 4.0} and summarize([]) == {}


def test_csv_keeps_what_is_not_finite_and_leaves_out_round_off(tmp_path):
    row = dict.fromkeys(COLUMNS, 0.123456789) | {"patient": "a, b", "frame": 7, "n_values": 1234567}
    rows = [row | {"psnr": np.inf, "ssim": np.nan, "correlation": 3e-16, "converged": 1.0}]
    write_csv(tmp_path / "ica.csv", rows)
    assert (tmp_path / "ica.csv").read_text().splitlines()[1] == (
        '"a, b",7,0.123457,0.123457,0.123457,0,0.123457,0.123457,inf,nan,0.123457,0.123457,0.123457,1.23457e+06,1'
    )
    (read,) = read_csv(tmp_path / "ica.csv")
    assert read["patient"] == "a, b" and read["frame"] == 7 and read["psnr"] == np.inf and np.isnan(read["ssim"])
    (tmp_path / "ica.csv").write_text("patient,frame\na\n")
    for name in ("ica.csv", "none.csv"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_csv(tmp_path / name)


def test_a_network_without_bases_is_refused():
    config = Config.make(model="unet2d", crop=(2, 64, 64))
    with pytest.raises(UserError, match="--model=unet2d has no bases"):
        Decomposer(Segmenter(config))


def test_energy_is_that_of_the_stamped_patches():
    """A single coefficient a basis: what it adds is its patch, once, wherever it lies."""
    rng = np.random.default_rng(0)
    d, rows, columns, m = 4, 64, 96, 3
    coefficients = np.zeros((d // 2, rows // 4, columns // 4, m), np.float32)
    coefficients[1, 8, 12] = 1, -5, 2
    bases = rng.standard_normal((d, 4, 6, 2, m)).astype(np.float32)
    bases[3:] = 0  # what this coefficient would stamp outside the frame
    volume = np.zeros((d, rows, columns), np.float32)
    valid = np.ones(volume.shape, bool)
    part = Decomposition("a", 0, 0, volume, valid, bases, coefficients, volume, np.zeros((*volume.shape, 4), np.float32))
    stamped = [stamp(coefficients[..., [b]], part.images_of_bases[..., [b]]) for b in range(m)]
    cells = coefficients[..., 0].size
    np.testing.assert_allclose(part.energy, [np.square(one).sum() / cells for one in stamped], rtol=1e-5)
    assert decomposition_figures.by_energy(part).tolist() == np.argsort(-part.energy).tolist()
    equal = dataclasses.replace(part, bases=np.ones_like(bases), coefficients=np.ones_like(coefficients))
    assert decomposition_figures.by_energy(equal).tolist() == [0, 1, 2]


def test_pictures_are_drawn_and_the_same_bytes_every_time(tiny_run, tmp_path):
    names = [f"patient003_frame01_{kind}.png" for kind in ("bases", "coefficients", "reconstruction")]
    for folder in ("a", "b"):
        paths = decomposition_figures.draw(tiny_run, tmp_path / folder)
        assert [path.name for path in paths] == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    paths = decomposition_figures.draw(tiny_run, tmp_path / "a", patient="patient001", frame=2)  # without ground truth
    assert [path.name for path in paths] == [name.replace("patient003_frame01", "patient001_frame02") for name in names]
    assert paths[0].read_bytes() != (tmp_path / "a" / names[0]).read_bytes()


def test_slices_are_numbered_as_in_the_stack_and_padding_is_not_shown(decomposer, monkeypatch, tmp_path):
    saved = []
    monkeypatch.setattr(decomposition_figures.figures, "save", lambda figure, path: saved.append(figure))
    truth = np.zeros((D, H, W), np.uint8)
    truth[0, 20:50, 20:50], truth[1, 30:40, 30:40] = 3, 3
    for slices in (4, 1):
        decomposition_figures.reconstruction_grid(tmp_path, next(decomposer(cine(slices)))[-1], truth)
    labels = [[ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] for figure in saved]
    assert labels == [["base (slice 3)", "apex (slice 4)"], ["middle (slice 1)"]]
    assert saved[1].axes[0].get_images()[0].get_array().shape == (56, 64)


def test_what_is_not_there_is_not_drawn(tiny_run, tmp_path):
    with pytest.raises(UserError, match="--patient=nobody is not in .* 4 patients, as patient001"):
        decomposition_figures.draw(tiny_run, tmp_path, patient="nobody")
    with pytest.raises(UserError, match="--frame=9 is not in the images of patient003: take a number from 1 to 4"):
        decomposition_figures.draw(tiny_run, tmp_path, frame=9)
    assert not any(tmp_path.iterdir())


def test_the_launcher(tiny_run, tmp_path):
    command = [sys.executable, "-m", "ica_unet_jax.decompose", f"--workdir={tiny_run}", f"--out={tmp_path}", "--patient=patient002"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(map(str, tmp_path.iterdir())) and len(done.stdout.split()) == 3
