"""The name of a cell in tables: the paper's symbols and words instead of the names of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SYMBOLS = {
    "bases": "m",
    "stream_width": "p",
    "projection_width": "u",
    "contracting_blocks": "n",
    "ica_weight": "beta",
    "sparsity_weight": "lambda_s",
    "independence_weight": "lambda_i",
    "reconstruction_weight": "lambda_r",
    "auxiliary_weight": "weight of the coarser outputs",
    "correlation_radius": "radius",
    "unlabelled": "unlabelled frames",
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "neighbours": {"both": "t-1 and t+1", "past": "t-1 alone", "two_past": "t-2 and t-1", "none": "no neighbour"},
    "streams": {"independent": "independent streams", "shared": "shared streams", "dense": "dense"},
    "bases_from": {
        "frame": "bases from the frame alone",
        "frame_with_coordinates": "bases from frame and coordinates",
        "dictionary": "dictionary alone",
        "dictionary_and_frame": "dictionary and frame",
        "fastica": "bases by FastICA",
    },
    "distillation_weight": {"0": "no teacher", "1": "taught"},
    "standardize_bases": {"True": "standardized bases"},
    "whiten_bases": {"True": "whitened bases"},
}


def title(changes: Mapping[str, Any]) -> str:
    """The title of a cell that changes these knobs; "reference" where it changes none."""
    return ", ".join(_words(knob, text(value)) for knob, value in changes.items()) or "reference"


def of_label(label: str) -> str:
    """The same, of a label such as "bases=8, stream_width=32"; one that is none of these stays as it is."""
    changes = [part.partition("=") for part in label.split(", ")]
    return title({knob: value for knob, _, value in changes}) if all(equals for _, equals, _ in changes) else label


def text(value: Any) -> str:
    """A knob's value in a label."""
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(knob: str, value: str) -> str:
    return WORDS.get(knob, {}).get(value) or f"{SYMBOLS.get(knob, knob)} = {value}"
