"""A package that is not installed is told in a sentence."""

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import packages


def test_what_is_missing_is_named():
    packages.require("--view", "scanner", ("json", "numpy"))
    with pytest.raises(UserError, match=r'^--view needs no_such_one and no_such_other: pip install "ica-unet-jax\[scanner\]"\.$'):
        packages.require("--view", "scanner", ("json", "no_such_one", "no_such_other"))
    with pytest.raises(UserError, match=r'^It needs no_such_one: pip install "ica-unet-jax\[x\]", or leave it out\.$'):
        packages.require("It", "x", ["no_such_one"], "leave it out")
