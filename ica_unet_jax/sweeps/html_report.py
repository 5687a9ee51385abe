"""index.md and report.html: the answer of each study in one sentence, and everything on one page."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ica_unet_jax.reporting.markup import (
    NONE,
    Page,
    counted,
    escape,
    escape_markdown,
    html_table,
    number,
    p_value,
    plain_table,
    with_code,
)
from ica_unet_jax.sweeps import setting
from ica_unet_jax.sweeps.analysis import Analysis, Finding
from ica_unet_jax.sweeps.results import Sweep
from ica_unet_jax.sweeps.statistics import smallest


def answer(analysis: Analysis) -> str:
    """One sentence, made from the figures by rule: what is different, what is as good, what is not decided, what is missing."""
    reference, decided = analysis.reference, analysis.decided
    if reference.state:
        return f"No answer yet, the reference has no figures: {reference.state}."
    if not decided:
        dice = number(reference.dice["mean"].mean, 3)
        return f"No answer yet: the reference has a mean Dice of {dice}, no other cell is finished."
    if decided[0].contrast.error is None:
        parts = [_one_block(analysis)]
    else:
        parts = [part for part in (_different(analysis), _as_good(analysis), _undecided(analysis)) if part]
    for word, failed in (("incomplete", False), ("failed", True)):
        titles = [f"`{line.title}`" for line in analysis.lines if line.state and line.failed == failed]
        if titles:
            parts.append(f"{word}: {', '.join(titles)}")
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."


def _one_block(analysis: Analysis) -> str:
    ordered = sorted(analysis.decided, key=lambda found: found.contrast.difference)
    ends = [f"{number(found.contrast.difference, 3, signed=True)} (`{found.title}`)" for found in ordered]
    changes = f"Dice changes by {ends[0]} to {ends[-1]}" if len(ends) > 1 else f"Dice changes by {ends[0]}"
    return f"nothing is decided, one block (fold {analysis.study.folds[0]}) has differences alone: {changes}"


def _different(analysis: Analysis) -> str:
    texts = []
    for found in analysis.decided:
        contrast = found.contrast
        if contrast.verdict:
            ends = f"[{number(contrast.low, 3)}, {number(contrast.high, 3)}]"
            change = f"{number(contrast.difference, 3, signed=True)} {ends}"
            texts.append(f"`{found.title}` changes Dice by {change} ({found.decision}, p {p_value(contrast.p_holm)})")
    return ", ".join(texts)


def _as_good(analysis: Analysis) -> str:
    found = [found for found in analysis.decided if found.contrast.within and not found.contrast.verdict]
    return "; ".join(f"{decision}: {', '.join(f'`{title}`' for title in titles)}" for decision, titles in _grouped(found).items())


def _grouped(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Titles by decision."""
    groups: dict[str, list[str]] = {}
    for found in findings:
        groups.setdefault(found.decision, []).append(found.title)
    return groups


def _undecided(analysis: Analysis) -> str:
    left = [found for found in analysis.decided if found.decision == "undecided"]
    if not left:
        return ""
    limits = [smallest(found.contrast, len(analysis.decided)) for found in left]
    span = " to ".join(dict.fromkeys(number(value, 3) for value in (min(limits), max(limits))))
    return f"undecided, too noisy for effects below {span}: {', '.join(f'`{found.title}`' for found in left)}"


def index(sweep: Sweep, analyses: Sequence[Analysis], pages: Sequence[Page]) -> str:
    """A line for each study, then each with its answer and its files."""
    lines = ["# Ablations", "", *(f"{opening}\n" for opening in openings(pages)), "```", sweep.command, "```", ""]
    lines += [facts(sweep), "", _overview(analyses), ""]
    lines += ["All on one page: [report.html](report.html). Seconds and hours: [timings.md](timings.md).", ""]
    for page in pages:
        links = f"[table]({page.name}.md), [plot]({page.name}.png), [CSV]({page.name}.csv), [LaTeX]({page.name}.tex)"
        texts = [f"**{escape_markdown(page.question)}**", escape_markdown(page.answer), f"{page.facts} {links}"]
        own = [escape_markdown(page.opening)] if len(openings(pages)) > 1 else []
        lines += [f"## [{page.name}]({page.name}.md)", "", "\n\n".join([*own, *texts]), ""]
    return "\n".join(lines)


def openings(pages: Sequence[Page]) -> list[str]:
    """What the pages are about, in Markdown, each once."""
    return [escape_markdown(opening) for opening in dict.fromkeys(page.opening for page in pages)]


def _overview(analyses: Sequence[Analysis]) -> str:
    """Reference, largest effect and what is decided, of each study."""
    rows = []
    for analysis in analyses:
        reference = analysis.reference
        dice = NONE if reference.state else f"{reference.title}: Dice {number(reference.dice['mean'].mean, 3)}"
        found = max(analysis.decided, key=lambda found: abs(found.contrast.difference), default=None)
        largest = NONE if found is None else f"{number(found.contrast.difference, 3, signed=True)}, {found.title}"
        rows.append([analysis.study.name, dice, largest, _decisions(analysis.decided)])
    return plain_table(["Study", "Reference", "Largest effect", "Decided"], rows)


def _decisions(decided: Sequence[Finding]) -> str:
    made = [found for found in decided if found.contrast.verdict or found.contrast.within]
    if made:
        texts = (f"{decision}: {', '.join(titles)}" for decision, titles in _grouped(made).items())
        return f"{'; '.join(texts)} ({len(made)} of {len(decided)})"
    return "nothing, one block" if decided and decided[0].contrast.error is None else "nothing"


def facts(sweep: Sweep) -> str:
    """Commits, hardware, and how far the sweep is."""
    planned, ended = sweep.planned(), list(sweep.runs.values())
    counts = {status: sum(run.status == status for run in ended) for status in ("done", "diverged", "crashed")}
    runs = ", ".join(f"{count} {status}" for status, count in {**counts, "missing": len(planned) - len(ended)}.items())
    cells = {cell.name: [] for study in sweep.studies for cell in study.cells}
    for study in sweep.studies:
        for cell in study.cells:
            cells[cell.name].append(sweep.state(study, cell.name))
    whole = sum(not any(states) for states in cells.values())
    commits = setting.commits(Counter(run.commit for run in ended if run.status == "done"))
    return (
        f"{commits} Hardware: {hardware(sweep)}. {whole} of {counted(len(cells), 'cell')} finished; "
        f"of {counted(len(planned), 'run')} {runs}."
    )


def hardware(sweep: Sweep) -> str:
    """What the sweep ran on."""
    return ", ".join(f"{name} {value}" for name, value in sweep.hardware.items()) or "unknown"


def html(sweep: Sweep, pages: Sequence[Page], workdir: Path) -> str:
    """Self-contained; the plots are those in `workdir`."""
    contents, sections = [], []
    for page in pages:
        name, question, answer = escape(page.name), escape(page.question), with_code(page.answer)
        contents.append(f'<li><a href="#{name}">{name}</a> <b>{question}</b><br>{answer}</li>')
        pictures = {words: base64.b64encode((workdir / file).read_bytes()).decode() for file, words in page.pictures.items()}
        parts = [
            f'<section id="{name}"><h2>{name}</h2>',
            f"<p>{escape(page.opening)}</p><p><b>{question}</b></p><p>{answer}</p><p>{escape(page.facts)}</p>",
            *(f'<figure><img alt="{escape(words)}" src="data:image/png;base64,{picture}"></figure>' for words, picture in pictures.items()),
            *map(html_table, page.tables),
            "</section>",
        ]
        sections.append("\n".join(parts))
    texts = dict(command=escape(sweep.command), facts=escape(facts(sweep)))
    lists = dict(contents="\n".join(contents), sections="\n".join(sections))
    return _HTML.format(style=_STYLE, script=_SCRIPT, **texts, **lists)


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1f24; --page: #fff; --line: #d9dde3; --head: #f3f5f8; --soft: #5d6570;
  --better: #00609a; --worse: #b34700; --link: #0a58a8; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e7eb; --page: #16191d; --line: #353b43; --head: #21262c; --soft: #9aa3ae;
  --better: #6cb8ee; --worse: #ff9a57; --link: #7db8f5; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  margin: 2rem auto; padding: 0 1.2rem; }
a { color: var(--link); }
h2 { margin: 3rem 0 .3rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
p, ul, pre { max-width: 62rem; }
pre { background: var(--head); padding: .7rem 1rem; border-radius: 6px; white-space: pre-wrap; }
pre, td.state { overflow-wrap: anywhere; }
code { font-size: 92%; }
nav li { margin: .5rem 0; }
figure { margin: 1rem 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .4rem;
  display: inline-block; max-width: 100%; box-sizing: border-box; }
img { max-width: 100%; width: 860px; height: auto; display: block; }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
caption { position: sticky; left: 0; text-align: left; font-weight: 600; font-size: 15px; padding: .3rem 0; }
th { background: var(--head); text-align: left;
  border-bottom: 2px solid var(--line); vertical-align: bottom; padding: 0; }
th button { all: unset; cursor: pointer; padding: .4rem .5rem; display: block; width: 100%; box-sizing: border-box; }
th button:focus-visible { outline: 2px solid var(--link); }
th.n button { text-align: right; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; }
td.n { text-align: right; white-space: nowrap; }
td.t { min-width: 9rem; }
tr > :first-child { position: sticky; left: 0; }
td:first-child { background: var(--page); }
td.state { color: var(--soft); font-style: italic; }
tr.reference td { font-weight: 600; }
tr.undecided td.verdict, tr.peer td { color: var(--soft); }
tr.better td.verdict { color: var(--better); font-weight: 600; }
tr.worse td.verdict { color: var(--worse); font-weight: 600; }
.note { color: var(--soft); font-size: 13px; }
"""

# A click sorts by that column, a second one the other way round; rows without a value stay at the end.
_SCRIPT = """
document.querySelectorAll("table").forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = head.className === "n";
    const value = row => {
      const cell = row.cells[i];
      if (!cell || cell.colSpan > 1) return null;
      if (!numeric) return cell.textContent;
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const compare = (a, b) => numeric ? a - b : a.localeCompare(b, "en", {numeric: true});
    const sorted = rows.map(row => [value(row), row]).sort(([a], [b]) =>
      a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b));
    body.append(...sorted.map(pair => pair[1]));
  }));
});
"""

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ablations</title>
<style>{style}</style>
</head>
<body>
<h1>Ablations</h1>
<pre>{command}</pre>
<p>{facts} Seconds and hours: <a href="timings.md">timings.md</a>. A click on a column's head sorts by it.</p>
<nav><ul>
{contents}
</ul></nav>
{sections}
<script>{script}</script>
</body>
</html>
"""
