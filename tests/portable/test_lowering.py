"""A function as an ONNX graph gives what JAX gives, however its axes lie in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

onnxruntime = pytest.importorskip("onnxruntime")

from ica_unet_jax.errors import UserError  # noqa: E402
from ica_unet_jax.models.correlation import correlate  # noqa: E402
from ica_unet_jax.models.mixing import mix  # noqa: E402
from ica_unet_jax.portable import layout  # noqa: E402
from ica_unet_jax.portable.graph import Graph  # noqa: E402
from ica_unet_jax.portable.lowering import lower  # noqa: E402
from ica_unet_jax.runtime import compilation  # noqa: E402

X = np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((2, 4, 6, 8)).astype(np.float32)
KERNEL = np.random.default_rng(2).standard_normal((3, 3, 8, 5)).astype(np.float32)


def run(function, *arrays):
    """(what ONNX Runtime gives, the graph's operations)."""
    graph = Graph()
    with compilation.plain():
        given = [graph.input(f"x{i}", layout.fresh("", x.dtype, x.shape)) for i, x in enumerate(arrays)]
        for i, y in enumerate(lower(graph, lambda *x: jax.tree.leaves(function(*x)), *given)):
            graph.output(f"y{i}", layout.arrange(graph, y, y.axes))
    model = graph.model("test")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {f"x{i}": x for i, x in enumerate(arrays)}), [node.op_type for node in model.graph.node]


def conv(x, kernel, dimensions, **more):
    return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=dimensions, **more)


def streams(x, kernel):
    """A convolution mapped over its streams, channels first."""
    one = lambda x, kernel: conv(x, kernel, ("CNHW", "HWIO", "CNHW"))  # noqa: E731
    return jax.vmap(one)(x, kernel)


FUNCTIONS = {
    "moved": (lambda x: x.transpose(3, 1, 0, 2).reshape(8, 4, 12).transpose(2, 0, 1), X),
    "split and joined": (lambda x: x.reshape(2, 2, 2, 6, 2, 4).transpose(4, 0, 2, 3, 1, 5).reshape(8, 6, 8) * 2, X),
    "cut through the middle": (lambda x: x.reshape(16, 24).T.reshape(2, 4, 48), X),
    "broadcast": (lambda x, y: x.transpose(1, 0, 2, 3)[:, :, :1] + y[0, :, None, :, :] * x.mean((0, 2, 3))[:, None, None, None], X, Y),
    "constants": (lambda x: x * np.arange(4, dtype=np.float32)[None, :, None, None] + np.arange(8, dtype=np.float32)[None, None, None], X),
    "at computed places": (lambda x, y: jnp.take(x, (3 + y.T[0]).astype(jnp.int32).ravel(), axis=3, mode="clip"), X, Y),
    "sliced": (lambda x: x[:, 1:3, ::2, ::-1].transpose(2, 3, 0, 1), X),
    "padded and cut": (lambda x: lax.pad(x, 0.5, [(1, 0, 0), (0, 0, 0), (-1, 2, 0), (2, -3, 0)]), X),
    "padded after a reshape": (lambda x: jnp.pad(x.reshape(2, 24, 8).transpose(1, 0, 2), ((1, 2), (0, 0), (0, 1))), X),
    "joined": (lambda x, y: jnp.concatenate([x.transpose(3, 1, 2, 0), y.transpose(3, 1, 2, 0)[:, :2]], 1), X, Y),
    "stacked": (lambda x, y: jnp.stack([x, y[:1] + x], 2).transpose(2, 4, 0, 1, 3), X, Y),
    "band": (lambda x: jnp.pad(x.reshape(8, 48), ((0, 0), (0, 8))).reshape(8, 8, 7)[..., :3], X),
    "sums": (lambda x: (x.sum((0, 2)), x.transpose(2, 0, 1, 3).max(0), x.reshape(2, 2, 2, 48).min(1)), X),
    "chosen": (lambda x, y: jnp.where(x > y, x, jnp.where(y >= 0.5, y * y, -1.0)), X, Y),
    "all of some": (lambda x: jnp.where((x > 0).any(1), 1.0, x[:, 0]) + jnp.where(jnp.isfinite(x), x, 0)[:, 0], X),
    "wider constant": (lambda x: x[:, :, :, :1] * np.arange(8, dtype=np.float32)[None, None, None], X),
    "softmax": (lambda x: jax.nn.softmax(x, 1), X),
    "leaky": (lambda x: jax.nn.leaky_relu(x, 0.01) + jax.nn.relu(x) + jax.nn.sigmoid(x), X),
    "taken": (lambda x: jnp.take(x, np.array([3, 0, 0]), 1) + jnp.take(x, np.array([1]), 1), X),
    "channels last": (lambda x: conv(x, KERNEL, ("NHWC", "HWIO", "NHWC")) + 1, X),
    "channels first, one after the other": (
        lambda x: conv(jnp.maximum(conv(x.transpose(3, 0, 1, 2), KERNEL, ("CNHW", "HWIO", "CNHW")) + np.arange(5, dtype=np.float32)[:, None, None, None], 0), KERNEL[:, :, :5], ("CNHW", "HWIO", "CNHW")), X),
    "strided and dilated": (
        lambda x: lax.conv_general_dilated(x, KERNEL, (2, 1), [(2, 1), (2, 2)], rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")), X),
    "streams": (lambda x: streams(streams(x.reshape(2, 2, 2, 6, 8), KERNEL[None, :, :, :2, :3].repeat(2, 0)) * 2, np.stack([KERNEL[:, :, :3, :2], KERNEL[:, :, 3:6, :2]])), X),
    "unstack": (lambda x: sum(jnp.unstack(x, axis=1)[1:]) - x[:, 0], X),
    "pooled": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").transpose(3, 0, 1, 2), X),
    "product with a constant": (lambda x: jnp.einsum("bijc,co->obij", x, KERNEL[0, 0]), X),
    "products": (lambda x, y: (jnp.einsum("bijc,bkjc->bjik", x, y), jnp.einsum("bijc,bijd->cd", x, y), jnp.einsum("bijc,dijc->bid", x.transpose(0, 2, 1, 3), y.transpose(0, 2, 1, 3))), X, Y),
    "with itself": (lambda x: (jnp.einsum("bijc,bkjc->bik", x, x), x[0, 0] @ x[0, 0].T, jnp.concatenate([x[..., :6], x[..., :6].swapaxes(2, 3)], 3), x[..., :6] + x[..., :6].swapaxes(2, 3)), X),
    "correlation": (lambda x, y: correlate(x.reshape(2, 2, 1, 2, 6, 8), y.reshape(2, 2, 1, 2, 6, 8), 2), X, Y),
    "mixing": (lambda a, x: mix(a.reshape(1, 2, 6, 8, 2), x.reshape(1, 6, 4, 4, 2, 2)[:, :4]), X[:, :2], Y),
    "largest": (lambda x: lax.top_k(x.transpose(0, 3, 1, 2).reshape(-1), 7)[0], X),
    "known beforehand": (lambda x: x * 1 + jnp.cumsum(jnp.arange(8.0))[None, None, None] + lax.dynamic_slice(x, (np.int32(1), 0, 0, 0), (1, 4, 6, 8)), X),
    "pasted": (lambda x: lax.dynamic_update_slice(jnp.zeros((3, 9, 8, 8)), x, (np.int32(1), np.int32(2), 0, 0)), X),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_graph_gives_what_jax_gives(name):
    function, *arrays = FUNCTIONS[name]
    found, _ = run(function, *arrays)
    for here, there in zip(found, jax.tree.leaves(function(*map(jnp.asarray, arrays))), strict=True):
        assert here.shape == there.shape
        np.testing.assert_allclose(here, there, rtol=2e-5, atol=2e-5)


def test_moving_axes_about_costs_no_node():
    """Streams first for JAX, channels second for the runtime: two convolutions with what is between them, nothing else."""
    function, x = FUNCTIONS["streams"]
    _, operations = run(lambda x: function(x).transpose(2, 0, 1, 3, 4).reshape(2, 4, 6, 8), x.transpose(1, 0, 2, 3).reshape(2, 4, 6, 8)[:, :4])
    assert operations.count("Transpose") <= 2 and operations.count("Conv") == 2


def test_what_cannot_be_lowered_is_told():
    with pytest.raises(UserError, match="sort"):
        run(lambda x: jnp.sort(x), X)
