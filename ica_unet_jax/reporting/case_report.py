"""The report of a segmented case: one HTML file that holds its pictures, to be sent by mail."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from ica_unet_jax.reporting.markup import Table, escape, html_table
from ica_unet_jax.runtime.files import write_text

RESEARCH = "Research use only, not for diagnosis"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 58rem; margin: 1.5rem auto; padding: 0 1rem; color: #1b1b1b; background: #fff }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 1.2rem 0 .3rem }
.research { border: 2px solid #b00020; color: #b00020; font-weight: 600; padding: .4rem .7rem; margin: .8rem 0 }
.warnings { background: #fff4d6; border-left: 4px solid #d69a00; padding: .4rem .8rem }
img { max-width: 100%; height: auto } .note { color: #555; font-size: .85rem }
table { border-collapse: collapse; margin: .5rem 0 } caption { text-align: left; font-weight: 600; padding: .2rem 0 }
th, td { padding: .15rem .7rem; border-bottom: 1px solid #ddd; text-align: left } .n { text-align: right; font-variant-numeric: tabular-nums }
th button { all: unset }
@media print { body { margin: 0; font-size: 12px } img { page-break-inside: avoid } }
"""


def write(path: Path, title: str, tables: Sequence[Table], pictures: Mapping[str, Path], warnings: Sequence[str], facts: Sequence[str]) -> None:
    """Writes the page.

    Args:
      path: of the HTML file.
      title: what the case is called.
      tables: of figures, with their units.
      pictures: PNG files by what they show.
      warnings: sentences that a reader must not miss.
      facts: sentences about how this was made.

    Raises UserError where it cannot be written.
    """
    warned = [f"<p>{escape(warning)}</p>" for warning in warnings] or ["<p>None.</p>"]
    blocks = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="research">{RESEARCH}. Made by a computer and seen by no physician.</p>',
        *map(html_table, tables),
        f'<h2>Warnings</h2>\n<div class="{"warnings" if warnings else "note"}">{"".join(warned)}</div>',
        *(f'<h2>{escape(shown)}</h2>\n<img alt="{escape(shown)}" src="data:image/png;base64,{_encoded(picture)}">' for shown, picture in pictures.items()),
        *(f'<p class="note">{escape(fact)}</p>' for fact in facts),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style>'
    write_text(path, f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(blocks) + "\n</body></html>\n")


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode("ascii")
