"""Where the time of a call goes."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from ica_unet_jax.benchmarking import measuring
from ica_unet_jax.benchmarking.profile import OTHER, Part, part_of, parts, profile
from ica_unet_jax.config import Config

STEP = "jit(step)/transpose(jvp(Net))/Net.decode"


@pytest.mark.parametrize(
    "name, part",
    [
        ("jit(step)/jvp(Net)/Net.decode/decoders_0/Conv_0/conv_general_dilated", "decoders_0"),
        (f"{STEP}/backbone.expanding_path/vmap(expand_1)/Conv_0/jit(_columns)/concatenate", "backbone.expanding_path"),
        (f"{STEP}/Net.unmixed/mul", "unmixed"),
        (f"{STEP}/Net._mix/mixing/bpk,bkc->bpc/dot_general", "mixing"),
        ("jit(step)/jvp(Net)/add", "Net"),
        ("jit(step)/jvp(loss)/jit(_where)/select_n", "loss"),
        ("jit(step)/optimizer/mul", "optimizer"),
        ("jit(step)/jit(_pad)/pad", "step"),
        ("jit(encode)/Net.encode/encoder.low_level/low/Conv_0/conv_general_dilated", "encoder.low_level"),
        ("state.params['kernel']", OTHER),
        ("", OTHER),
    ],
)
def test_names_of_operations_tell_the_part(name, part):
    assert part_of(name, "Net") == part


def test_times_add_up_by_part_and_direction():
    spans = [(f"{STEP}/a/dot_general", 4e6), (f"{STEP}/a/add", 2e6), ("jit(step)/jvp(Net)/Net.decode/a/add", 2e6), ("jit(step)/optimizer/mul", 1e6)]
    assert parts(spans, "Net", calls=2) == [Part("a", forward=1.0, backward=3.0, products=2.0), Part("optimizer", 0.5, 0.0, 0.0)]


def test_a_product_is_found_where_it_is():
    """What one scope does is product alone, what the other does is none."""

    @jax.jit
    def call(x):
        with jax.named_scope("multiplied"):
            y = x @ x @ x
        with jax.named_scope("sorted"):
            return jnp.sort(y)

    x = jnp.ones((100, 100))
    found = {part.name: part for part in profile(lambda: call(x), Config.make().model)}
    assert found["multiplied"].products == found["multiplied"].forward > 0 and found["sorted"].products == 0 < found["sorted"].forward
    assert not any(part.backward for part in found.values())


def test_a_training_step_has_all_its_parts():
    config = Config.make(**tiny.SMALL, batch_size=1)
    found = {part.name: part for part in profile(measuring.training_step(config), config.model)}
    assert {"augmentation", "encoder.low_level", "backbone.contracting_path", "correlation", "backbone.expanding_path", "mixing", "decoders_1", "loss", "optimizer"} <= set(found)
    assert sum(part.forward + part.backward for name, part in found.items() if name in (OTHER, "step")) < 0.25 * sum(part.forward + part.backward for part in found.values())
    assert found["decoders_1"].backward > 0 and found["optimizer"].backward == 0
