"""A package that is not installed is told in a sentence."""

import pytest

from ica_unet_jax.errors import UserError
from ica_unet_jax.runtime import packages


def test_what_is_missing_is_named():
    packages.require("--view", "json", "numpy")
    with pytest.raises(UserError, match=r"^--view needs no_such_one and no_such_other: pip install '\.\[scanner\]'\.$"):
        packages.require("--view", "json", "no_such_one", "no_such_other")
