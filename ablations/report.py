"""index.md and report.html: what the studies answer, in one sentence each, and everything on one page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from ablations.analysis import Analysis, Line
from ablations.results import Sweep
from ablations.statistics import PATIENTS_NEEDED
from ica_unet_jax.markup import Page, counted, escape, escape_markdown, html_table, number, p_value, with_code


def answer(analysis: Analysis) -> str:
    """One sentence, made from the figures by rule: what is decided, what is not and why, what is missing."""
    reference, contrasts = analysis.reference, analysis.contrasts
    if reference.state:
        return f"No answer yet, the reference has no figures: {reference.state}."
    if not contrasts:
        dice = number(reference.dice["mean"].mean, 3)
        return f"No answer yet: the reference has a mean Dice of {dice}, no other cell is finished."
    parts = []
    if analysis.patients < PATIENTS_NEEDED:
        ordered = sorted(contrasts, key=lambda pair: pair[1].difference)
        ends = [f"{number(found.difference, 3, signed=True)} ({_code(line)})" for line, found in ordered]
        few = f"{counted(analysis.patients, 'patient')} are too few ({PATIENTS_NEEDED} are needed)"
        changes = f"differences of mean Dice are between {ends[0]} and {ends[-1]}"
        changes = changes if len(ends) > 1 else f"difference of mean Dice is {ends[0]}"
        parts.append(f"undecided: {few}; the {changes}")
    else:
        for line, found in contrasts:
            if found.verdict != "undecided":
                change = number(found.difference, 3, signed=True)
                ends = f"[{number(found.low, 3)}, {number(found.high, 3)}]"
                p = p_value(found.p_holm)
                parts.append(f"with {_code(line)} Dice changes by {change} {ends} ({found.verdict}, p {p})")
        reasons: dict[str, list[str]] = {}
        for line, found in contrasts:
            if found.verdict == "undecided":
                reasons.setdefault(found.why, []).append(_code(line))
        undecided = [f"{', '.join(labels)} ({why})" for why, labels in reasons.items()]
        if undecided:
            parts.append(f"undecided: {', '.join(undecided)}")
    for word, failed in (("incomplete", False), ("failed", True)):
        labels = [_code(line) for line in analysis.lines if line.state and line.failed == failed]
        if labels:
            parts.append(f"{word}: {', '.join(labels)}")
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."


def _code(line: Line) -> str:
    return f"`{line.label}`"


def index(sweep: Sweep, pages: Sequence[Page]) -> str:
    lines = ["# Ablations", "", "```", sweep.command, "```", "", facts(sweep), ""]
    lines += ["All on one page: [report.html](report.html). Seconds and hours: [timings.md](timings.md).", ""]
    for page in pages:
        links = f"[table]({page.name}.md), [plot]({page.name}.png), [CSV]({page.name}.csv), [LaTeX]({page.name}.tex)"
        texts = [f"**{escape_markdown(page.question)}**", escape_markdown(page.answer), f"{page.facts} {links}"]
        lines += [f"## [{page.name}]({page.name}.md)", "", "\n\n".join(texts), ""]
    return "\n".join(lines)


def facts(sweep: Sweep) -> str:
    """Commit, hardware, and how far the sweep is."""
    cells = list(dict.fromkeys(cell.name for study in sweep.studies for cell in study.cells))
    planned, ended = len(cells) * len(sweep.seeds) * len(sweep.folds), list(sweep.of(*cells))
    counts = {status: sum(run.status == status for run in ended) for status in ("done", "diverged", "crashed")}
    runs = ", ".join(f"{count} {status}" for status, count in {**counts, "missing": planned - len(ended)}.items())
    complete = sum(not sweep.state(cell) for cell in cells)
    return (
        f"Commit {sweep.commit or 'unknown'}; {hardware(sweep)}. "
        f"{complete} of {counted(len(cells), 'cell')} finished; of {counted(planned, 'run')} {runs}."
    )


def hardware(sweep: Sweep) -> str:
    return ", ".join(f"{name} {value}" for name, value in sweep.hardware.items()) or "unknown hardware"


def html(sweep: Sweep, pages: Sequence[Page], workdir: Path) -> str:
    """Self-contained; the plots are those in `workdir`."""
    contents, sections = [], []
    for page in pages:
        name, question, answer = escape(page.name), escape(page.question), with_code(page.answer)
        contents.append(f'<li><a href="#{name}">{name}</a> <b>{question}</b><br>{answer}</li>')
        picture = base64.b64encode((workdir / f"{page.name}.png").read_bytes()).decode()
        parts = [
            f'<section id="{name}"><h2>{name}</h2>',
            f"<p><b>{question}</b></p><p>{answer}</p><p>{escape(page.facts)}</p>",
            f'<figure><img alt="Differences to the reference" src="data:image/png;base64,{picture}"></figure>',
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
