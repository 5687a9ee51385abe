"""What a study is: a question, and the cells that answer it. The studies themselves are in `ablations/`.

A cell is a set of knobs of `ica_unet_jax.config`, changed from a reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ica_unet_jax.config import Config
from ica_unet_jax.errors import UserError
from ica_unet_jax.sweeps import titles

Changes = Mapping[str, Any]
Cell = Changes | tuple[str, Changes]  # with its title, where the one that `titles` makes of its changes is not plain enough


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, and the cells that answer it beside the reference, which is always the first.

    What depends on the reference's configuration is a function of it.
    """

    name: str
    question: str
    section: str  # of the paper
    cells: Sequence[Cell] | Callable[[Config], Sequence[Cell]]
    reference: Changes | Callable[[Config], Changes] = dataclasses.field(default_factory=dict)  # what the study itself needs
    factors: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {weight: letter} of a factorial; each is there or 0
    trends: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)  # {words: knobs that cells turn}; over the first's log2

    def titled(self, base: Config) -> dict[str, Config]:
        """{title: configuration} of the reference, first, and of the cells, without doubles, in order."""
        return self.round(base.replace(**_of(self.reference, base)))

    def round(self, reference: Config) -> dict[str, Config]:
        """The same, round this reference as it is."""
        found = {reference: "reference"}
        for cell in _of(self.cells, reference):
            title, changes = cell if isinstance(cell, tuple) else (titles.title(cell), cell)
            config = reference.replace(**changes)
            if config == reference:  # a cell that is the reference names it
                found[reference] = title
            found.setdefault(config, title)
        if len(set(found.values())) < len(found):
            raise UserError(f"Study {self.name}: two cells have one title; give cells as (title, changes).")
        return {title: config for config, title in found.items()}

    def configs(self, base: Config) -> list[Config]:
        """The reference and the cells, without doubles, in order."""
        return list(self.titled(base).values())


def label(config: Config, reference: Config) -> str:
    """What differs from the reference, from the configurations themselves: a part of a folder's name."""
    changes = config.diff(reference)
    return ", ".join(f"{knob}={titles.text(value)}" for knob, value in changes.items()) or "reference"


def _of(value: Any, config: Config) -> Any:
    return value(config) if callable(value) else value
