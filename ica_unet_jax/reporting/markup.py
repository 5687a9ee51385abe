"""Tables, and pages of them, as data and as Markdown, LaTeX and HTML."""

from __future__ import annotations

import dataclasses
import html as entities
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NONE = "–"


class Column(NamedTuple):
    head: str
    in_paper: bool = True  # LaTeX has these alone, to fit a page
    number: bool = True
    verdict: bool = False  # the column that holds a row's state in Markdown; else the last one does


class Item(NamedTuple):
    text: str
    value: float | None = None  # what HTML sorts by; without one, the text
    short: str | None = None  # for LaTeX


@dataclasses.dataclass(frozen=True)
class Row:
    """Its items, or the first of them and a state that stands for the rest."""

    items: Sequence[Item]
    state: str = ""
    emphasis: str = ""  # "reference", "better", "worse", "undecided" or "peer"


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    note: str = ""
    caption: str = ""  # LaTeX's, after the question


@dataclasses.dataclass(frozen=True)
class Page:
    name: str
    question: str
    answer: str
    facts: str  # patients, seeds, folds
    tables: Sequence[Table]
    opening: str = ""  # what the page and each caption are about, before all else
    pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {file: what it shows}, which lie beside it


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """Rounded; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NONE
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text if text.strip("+-0.") else f"{0:.{digits}f}"  # no -0.000


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def p_value(p: float | None) -> str:
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(page: Page) -> str:
    """The page of one study; the plots and the other forms lie beside it."""
    opening = [escape_markdown(page.opening)] if page.opening else []
    texts = [f"**{escape_markdown(page.question)}**", escape_markdown(page.answer), escape_markdown(page.facts)]
    blocks = [f"# {page.name}", *opening, *texts, *(f"![{page.name}: {words}]({file})" for file, words in page.pictures.items())]
    for table in page.tables:
        blocks += [f"## {escape_markdown(table.title)}", markdown_table(table), escape_markdown(table.note)]
    blocks.append(f"The same as [CSV]({page.name}.csv) and [LaTeX]({page.name}.tex); all studies: [index](index.md).")
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    states = [i for i, column in enumerate(table.columns) if column.verdict] or [len(table.columns) - 1]
    rows = []
    for row in table.rows:
        texts = [item.text for item in row.items]
        if row.state:
            texts += [NONE] * (len(table.columns) - len(texts))
            texts[states[0]] = row.state
        rows.append(texts)
    return plain_table([column.head for column in table.columns], rows, [column.number for column in table.columns])


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[bool] = ()) -> str:
    """A Markdown table, without a newline at its end; the columns that `numbers` marks stand at the right."""
    rules = ["---:" if number else "---" for number in numbers] or ["---"] * len(heads)
    lines = [[escape_markdown(str(cell)) for cell in line] for line in (heads, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rules, *lines[1:]))


def latex(page: Page) -> str:
    """Tables for a document with booktabs and graphicx; a wide one is scaled to the text."""
    blocks = ["% \\usepackage{booktabs,graphicx}"]
    for index, table in enumerate(page.tables):
        shown = [i for i, column in enumerate(table.columns) if column.in_paper]
        columns = [table.columns[i] for i in shown]
        lines = [
            "\\begin{table}[t]",
            "\\centering",
            f"\\caption{{{' '.join(_tex(text) for text in (page.opening, page.question, table.caption) if text)}}}",
            f"\\label{{tab:{page.name}{'_' + str(index + 1) if index else ''}}}",
            "\\setlength{\\tabcolsep}{4pt}\\smallskip",
            "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in columns)}}}",
            "\\toprule",
            " & ".join(_tex(column.head) for column in columns) + " \\\\",
            "\\midrule",
        ]
        for row in table.rows:
            texts = [
                _tex(item.text if item.short is None else item.short) for i, item in enumerate(row.items) if i in shown
            ]
            if row.state:
                state = textwrap.shorten(row.state, 90, placeholder=" ...")
                texts.append(f"\\multicolumn{{{len(columns) - len(texts)}}}{{l}}{{{_tex(state)}}}")
            lines.append(" & ".join(texts) + " \\\\")
        blocks.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "\\end{table}"]))
    return "\n\n".join(blocks) + "\n"


def html_table(table: Table) -> str:
    """Sortable by the script of the report: `data-v` holds the number of a cell."""
    kinds = ["n" if column.number else "t verdict" if column.verdict else "t" for column in table.columns]
    heads = (
        f'<th class="{kind}" scope="col"><button type="button">{escape(column.head)}</button></th>'
        for kind, column in zip(kinds, table.columns, strict=True)
    )
    lines = [
        '<div class="wide"><table>',
        f"<caption>{escape(table.title)}</caption>",
        f"<thead><tr>{''.join(heads)}</tr></thead>",
        "<tbody>",
    ]
    for row in table.rows:
        cells = []
        for kind, item in zip(kinds, row.items, strict=False):
            value = "" if item.value is None or math.isnan(item.value) else f' data-v="{item.value:.9g}"'
            cells.append(f'<td class="{kind}"{value}>{escape(item.text)}</td>')
        if row.state:
            cells.append(f'<td class="state" colspan="{len(kinds) - len(cells)}">{escape(row.state)}</td>')
        emphasis = f' class="{row.emphasis}"' if row.emphasis else ""
        lines.append(f"<tr{emphasis}>{''.join(cells)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return "\n".join([*lines, "</tbody></table></div>", note])


def escape(text: str) -> str:
    return entities.escape(text, quote=True)


def with_code(text: str) -> str:
    """Escaped HTML in which what stands in `backticks` is code, as it is in Markdown."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def escape_markdown(text: str) -> str:
    for character in "\\*<|":
        text = text.replace(character, "\\" + character)
    return text


_TEX = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "±": "$\\pm$",
    "Δ": "$\\Delta$", "Ω": "$\\Omega$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "–": "--", "×": "$\\times$",
    "✓": "$\\surd$", "†": "$\\dagger$",
}  # fmt: skip


def _tex(text: str) -> str:
    """Plain text for LaTeX; what pdflatex has no glyph for becomes a question mark."""
    text = "".join(_TEX.get(c, c if c.isprintable() and ord(c) < 0x250 else "?") for c in text)
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", text)
