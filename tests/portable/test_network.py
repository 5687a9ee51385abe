"""Networks as ONNX graphs: the same answers as JAX, in ONNX Runtime, and the plain form the same as the fast one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SMALL

onnxruntime = pytest.importorskip("onnxruntime")

from ica_unet_jax.config import Config  # noqa: E402
from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.inference.segmenters import segmenter_of  # noqa: E402
from ica_unet_jax.models.networks import init_variables  # noqa: E402
from ica_unet_jax.models.registry import NETWORKS  # noqa: E402
from ica_unet_jax.portable.network import graphs  # noqa: E402
from ica_unet_jax.runtime import compilation  # noqa: E402

KINDS = {
    "both": {},
    "past": dict(neighbours="past"),
    "two past": dict(neighbours="two_past"),
    "no neighbours": dict(neighbours="none"),
    "dense": dict(streams="dense", stream_width=6),
    "shared": dict(streams="shared"),
    "over all streams": dict(concatenation_over="all"),
    "bases from the frame": dict(bases_from="frame", signed_coefficients=False),
    "literal": dict(expanding_skips=False, concatenation_skip=False, upsample_norm=False, expanding_convs=0, decoder_size="full", convs_per_block=2),
    "frame in the decoders, one block": dict(decoder_frame=True, contracting_blocks=1),
    "no mixing": dict(mixing="none", decoder_frame=True),
    "upsampled": dict(mixing="upsampled", decoder_frame=True),
    "group norm": dict(norm="group", streams="dense", stream_width=8, encoder_width=8, decoder_width=8, projection_width=4, bases=8),
    "U-Net 2D": dict(model="unet2d", unet_width=2),
    "U-Net 3D": dict(model="unet3d", width_multiplier=0.0625),
    "GridNet": dict(model="grid_net", width_multiplier=0.0625),
    "Ensemble U-Net": dict(model="ensemble_unet", width_multiplier=0.0625),
    "MSU-Net, span 2": dict(model="msu_net", width_multiplier=0.0625, span=2),
    "Omega-Net": dict(model="omega_net", width_multiplier=0.0625),
}  # fmt: skip
QUICK = ("both", "dense", "shared", "literal", "upsampled", "U-Net 2D", "GridNet", "Omega-Net")


def frames(crop, count, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, 1, *crop, 1)).astype(np.float32)
    valid = np.ones((1, *crop, 1), np.float32)
    valid[:, :, :3] = 0
    return images * valid, valid


def made(changes):
    own = {} if changes.get("model", "ica_unet") != "ica_unet" else SMALL
    config = Config.make(**dict(own, crop=(2, 64, 64)) | changes)
    variables = jax.jit(lambda key: init_variables(config.model, key))(jax.random.key(0))
    # Statistics and scales that are not 0 and 1, and for Omega-Net values so small that its heart lies within the image.
    leaves, tree = jax.tree.flatten(variables)
    rng, size = np.random.default_rng(1), 0.1 if changes.get("model") != "omega_net" else 0.01
    variables = jax.tree.unflatten(tree, [x + size * rng.random(x.shape, np.float32) for x in leaves])
    return segmenter_of(config, variables)


def by_jax(segmenter, images, valid):
    encode, decode = map(jax.jit, segmenter.functions)
    features = [encode(segmenter.variables, jnp.asarray(image), jnp.asarray(valid)) for image in images]
    return decode(segmenter.variables, *features)


def by_runtime(segmenter, images, valid):
    encode, decode = segmenter.functions
    two = graphs(
        lambda image, mask: encode(segmenter.variables, image, mask), lambda *features: decode(segmenter.variables, *features), [jax.ShapeDtypeStruct(valid.shape, np.float32)] * 2, segmenter.decoded
    )
    encoder, decoder = (onnxruntime.InferenceSession(model.SerializeToString()) for model in two)
    given = {}
    for k, image in enumerate(images):
        wanted = {x.name for x in encoder.get_inputs()}
        found = encoder.run(None, {name: x for name, x in (("image0", image), ("image1", valid)) if name in wanted})
        given |= {f"frame{k}_feature{i}": x for i, x in enumerate(found)}
    return decoder.run(None, {x.name: given[x.name] for x in decoder.get_inputs()})


@pytest.mark.parametrize("kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_the_graphs_answer_as_jax_does(kind):
    segmenter = made(KINDS[kind])
    images, valid = frames(segmenter.config.model.crop, segmenter.decoded)
    expected, found = by_jax(segmenter, images, valid), by_runtime(segmenter, images, valid)
    assert len(found) == len(expected)
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_allclose(here, there, atol=1e-4 * np.abs(there).max())


@pytest.mark.parametrize("kind", ["both", "shared"])
def test_the_plain_form_has_the_same_values(kind):
    segmenter = made(KINDS[kind])
    images, valid = frames(segmenter.config.model.crop, segmenter.decoded)
    expected = by_jax(segmenter, images, valid)
    with compilation.plain():
        found = by_jax(segmenter, images, valid)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5 * np.abs(expected[0]).max())


def test_a_network_that_has_no_graph_is_told():
    segmenter = made(dict(model="msu_net", span=3, width_multiplier=0.0625))
    assert not segmenter.config.model.portable
    images, valid = frames(segmenter.config.model.crop, segmenter.decoded)
    with pytest.raises(UserError, match=r"This network cannot be written as ONNX: .* Export it with --format=jax\."):
        by_runtime(segmenter, images, valid)


def test_all_others_are_compared_here():
    assert set(NETWORKS) == {kind.get("model", "ica_unet") for kind in KINDS.values()}
    assert all(Config.make(**kind | dict(crop=(2, 64, 64))).model.portable for kind in KINDS.values())
