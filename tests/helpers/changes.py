"""One other value for each knob."""

from ica_unet_jax.config import Config, fields


def another(field, default):
    """An admissible value other than the default."""
    meta = field.metadata
    if isinstance(default, bool):
        return not default
    if meta["choices"]:
        return next(c for c in meta["choices"] if c != default)
    if isinstance(default, tuple):
        return tuple(2 * v for v in default)
    if isinstance(default, str):
        return "x"
    step = 1 if isinstance(default, int) else 0.0009765625
    bounded = meta["high"] is not None and (meta["low"] is None or default - step >= meta["low"])
    return default - step if bounded else default + step


# One knob each; pairs that contradict each other are below.
CHANGES = [(f.name, another(f, default)) for (_, f), default in zip(fields(), Config().flat().values(), strict=True)]
CHANGES = [(name, value) for name, value in CHANGES if name not in ("cyclic", "whiten_bases", "unlabelled")]
