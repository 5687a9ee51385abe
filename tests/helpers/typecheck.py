"""beartype as the tests want it: a whole number or a NumPy scalar may stand where a float is asked for."""

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(
    conf=BeartypeConf(
        hint_overrides=FrozenDict({float: float | int | np.floating, int: int | np.integer, bool: bool | np.bool_})
    )
)
