"""The generated parts of the documents: `python ablations/documents.py` rewrites them in README.md and docs/.

A part lies between `<!-- made by python ablations/documents.py: NAME -->` and `<!-- end -->`; NAME is a key of `PARTS`. Tables of
results are read from ablations/results, the list of modules from their docstrings.
"""

from __future__ import annotations

import ast
import csv
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from ica_unet_jax.config import fields  # noqa: E402
from ica_unet_jax.reporting.markup import NONE, number, p_value, plain_table  # noqa: E402
from ica_unet_jax.runtime.files import write_text  # noqa: E402

RESULTS = ROOT / "ablations" / "results"
MARKED = re.compile(r"(<!-- made by python ablations/documents\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDIES = ("loss_terms", "bases_from", "streams", "basis_dimension")  # of acdc_mini

Line = dict[str, str]


def main() -> None:
    for path in pages():
        text = path.read_text()
        if (made := remade(text)) != text:
            write_text(path, made)
            print(path.relative_to(ROOT))


def pages() -> list[Path]:
    """The documents that may have made parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def remade(text: str) -> str:
    """The text of a document with its parts made anew; KeyError for a part that is not in `PARTS`."""
    return MARKED.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


def lines(path: str) -> list[Line]:
    """The lines of a CSV file below ablations/results, named without its ending."""
    with (RESULTS / f"{path}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def named(path: str, name: str) -> Line:
    """The one line of such a file whose first column is `name`."""
    [found] = [line for line in lines(path) if next(iter(line.values())) == name]
    return found


def value(line: Line, column: str) -> float | None:
    """The number in a column; None where it is empty."""
    return float(line[column]) if line.get(column) else None


def dice(line: Line, structure: str) -> str:
    return f"{number(value(line, f'dice_{structure}'), 3)} ± {number(value(line, f'dice_{structure}_sd'), 3)}"


def change(line: Line) -> str:
    """The change of Dice to the reference, with its 95 % interval where there is one."""
    low, high = value(line, "low"), value(line, "high")
    interval = "" if low is None or high is None else f" [{number(low, 3)}, {number(high, 3)}]"
    return number(value(line, "difference"), 3, signed=True) + interval


def cells(path: str) -> str:
    """Every setting of a study that has been trained, and what it changes."""
    heads = ("Setting", "Parameters (M)", "Dice RV", "Dice MYO", "Dice LV", "Dice mean", "Change [95 %]", "Decision")
    rows = [
        (
            line["title"],
            number(1e-6 * float(line["parameters"]), 2),
            *(dice(line, structure) for structure in ("RV", "MYO", "LV", "mean")),
            change(line),
            line["decision"] or (line["kind"] if line["kind"] == "reference" else NONE),
        )
        for line in lines(path)
        if line["kind"] in ("reference", "cell") and not line["state"]
    ]
    return plain_table(heads, rows, [False, *[True] * 6, False])


def contrasts(paths: Iterable[str]) -> str:
    """All that studies have compared, and what they decide."""
    rows = [
        (path.split("/")[1], line["title"], change(line), p_value(value(line, "p_holm")), line["decision"])
        for path in paths
        for line in lines(path)
        if line["decision"]
    ]
    return plain_table(("Study", "Setting or effect", "Change of Dice [95 %]", "p (Holm)", "Decision"), rows, [False, False, True, True, False])


def bases(path: str) -> str:
    """How good the bases of a study's settings are as an ICA, beside FastICA."""
    columns = {"hoyer": "Hoyer (sparsity)", "correlation": "Correlation", "mutual_information": "Mutual information", "explained_variance": "Explained variance"}
    rows = [(line["title"], *(number(value(line, column), 2) for column in columns)) for line in lines(path) if line["hoyer"]]
    return plain_table(("Setting", *columns.values()), rows, [False, *[True] * 4])


def systems(keep: Callable[[Line], bool], columns: Iterable[str], table: str = "table_1") -> str:
    """Lines of the paper's tables, the best Dice first."""
    found = sorted((line for line in lines(f"tables_acdc_mini/{table}") if keep(line)), key=lambda line: line["Dice mean"], reverse=True)
    columns = tuple(columns)
    return plain_table(columns, ([line[column] for column in columns] for line in found), [False, *[True] * (len(columns) - 1)])


def trained(line: Line) -> bool:
    return line["Dice mean"] != NONE and not printed_in_paper(line)


def printed_in_paper(line: Line) -> bool:
    return line["System"].endswith("(paper)")


def ratios() -> str:
    found = lines("tables_acdc_mini/table_1_ratios")
    columns = ("System", "In units of", "Throughput", "Compute", "Throughput (paper)", "Compute (paper)", "Latency as printed (paper)")
    return plain_table(columns, ([line[column] for column in columns] for line in found), [False, False, *[True] * 5])


def paper_settings() -> str:
    """What launch/acdc.flags has under "Printed in the paper", and what each setting means."""
    part = (ROOT / "launch" / "acdc.flags").read_text().split("# Printed in the paper.")[1].split("# Ours")[0]
    texts = {field.name: field.metadata["help"] for _, field in fields()}
    rows = [(f"`--{name}={given}`", texts[name]) for name, given in re.findall(r"^--(\w+)=(.*)$", part, re.MULTILINE)]
    return plain_table(("Setting", "Meaning"), rows)


def modules() -> str:
    """Every module of the package and of ablations/, with the first line of its docstring."""
    found = []
    for top in ("ica_unet_jax", "ablations"):
        files = sorted((ROOT / top).rglob("*.py"), key=lambda path: (path.parent != ROOT / top, path.parent, path.name))
        folder = None
        for path in files:
            if not (text := ast.get_docstring(ast.parse(path.read_text()))):
                continue
            if path.parent != folder:
                folder = path.parent
                found.append(f"\n{folder.relative_to(ROOT)}/")
            found.append(f"  {path.name:<26}{text.splitlines()[0]}")
    return "```text\n" + "\n".join(found).strip() + "\n```"


def answers() -> str:
    """The screen of the README: what committed results say to what people ask first."""
    both, past = (named("causal_acdc_mini/causal", name) for name in ("t-1 and t+1", "t-1 alone"))
    n4, causal, dense, plain, paper = (
        named("tables_acdc_mini/table_1" if "ICA" in name else "tables_acdc_mini/table_2", name)
        for name in (
            "ICA-UNet, n = 4, independent", "ICA-UNet, n = 4, independent, past frame alone", "ICA-UNet, n = 4, dense", "U-Net 2D", "ICA-UNet, n = 4 (paper)"
        )
    )  # fmt: skip
    rest = [line["Dice mean"] for line in lines("tables_acdc_mini/table_1") + lines("tables_acdc_mini/table_2") if trained(line) and "at 0.25" in line["System"]]
    keeps = {line["Keeps 22 FPS"] for line in lines("tables_acdc_mini/table_1") if not printed_in_paper(line)}
    worse = [f"{WORDS[line['title']]} ({change(line)})" for name in STUDIES for line in lines(f"acdc_mini/{name}") if line["decision"] == "worse"]
    undecided = [line for name in STUDIES for line in lines(f"acdc_mini/{name}") if line["decision"] == "undecided"]
    bases_decided = [line for line in lines("acdc_mini/basis_dimension") if line["decision"] not in ("", "undecided")]
    small = [WORDS[line["title"]] for line in lines("acdc_mini/loss_terms") if line["decision"].startswith("no effect") and " x " not in line["title"]]
    twin = named("acdc_mini/streams", "dense, equal work")
    search = lines("choosing_learning_rate/learning_rate")
    finished = [line for line in search if not line["state"]]
    rows = [
        (
            "How accurate is it?",
            f"Mean Dice **{dice(both, 'mean')}** (RV {dice(both, 'RV')}, MYO {dice(both, 'MYO')}, LV {dice(both, 'LV')}): 4 contracting blocks, {both['patients']} patients at ED and ES, "
            f"each judged by a network that never saw it, mean ± SD over patients; 1200 steps, half of a full training. The paper prints {paper['Dice mean'].split()[0]}, on all "
            "frames of data that are not public.",
            "[accuracy](docs/results/accuracy.md)",
        ),
        (
            "Is it real time?",
            f"On two CPU cores **{'no system keeps' if keeps == {'no'} else 'some systems keep'}** the 22 frames a second that the paper asks for. A frame of 8x128x128 takes "
            f"{n4['Compute (ms)']} ms, or {causal['Compute (ms)']} ms without the following frame, where 45 are allowed. No GPU has been timed.",
            "[speed](docs/results/speed.md)",
        ),
        (
            "Which parts matter?",
            f"Dice falls when {'; when '.join(worse)}. It stays the same, within 0.01, {' and '.join(small)}. {len(undecided)} other comparisons are "
            f"undecided{', including all of the number of bases' * (not bases_decided)}.",
            "[ablations](docs/results/ablations.md)",
        ),
        (
            "Is it better than a plain U-Net?",
            f"**Not shown.** A 2D U-Net on the images has {plain['Dice mean']}, ICA-UNet {n4['Dice mean']} (6 of the patients, 500 steps, so not to be compared with the first "
            f"row). One U-Net over all coefficients instead of one for each basis (\"dense\") has {dense['Dice mean']} there; over three folds it differs by {change(twin)}, {twin['decision']}.",
            "[rivals](docs/results/rivals.md)",
        ),
        (
            "Better than the other rivals?",
            f"**Not known.** U-Net 3D, MSU-Net, GridNet, Ω-Net and an ensemble reach {min(rest)} to {max(rest)} on the same 6 patients, but at a quarter of their width and "
            f"untuned. A fair trial, with one recipe for all, has begun: {len(finished)} of the {len(search)} trainings of its first part, the search for learning rates, are done.",
            "[rivals](docs/results/rivals.md), [learning rates](docs/results/learning_rates.md)",
        ),
        (
            "Does it need the neighbouring frames?",
            f"The paper looks at the frame before and the frame after. Without the one after, Dice changes by {change(past)}: {past['decision']}. A network trained with both "
            "gives the same Dice when copies of the frame itself take the place of its neighbours.",
            "[causal](docs/results/causal.md), [neighbours](docs/results/neighbours.md)",
        ),
    ]
    return plain_table(("Question", "Answer today", "More"), rows).replace("\\*", "*")


WORDS = {  # titles of the tables in the words of a newcomer
    "S": "with or without the sparsity term",
    "I": "with or without the independence term",
    "R": "the reconstruction term is added to the loss",
    "bases from the frame alone": "the bases come from the frame alone, as the paper's text says, instead of from a learned dictionary and the frame, as ours do",
    "shared streams": "all coefficients share one set of weights instead of having one each",
}

PARTS: dict[str, Callable[[], str]] = {
    "answers": answers,
    "accuracy": lambda: cells("causal_acdc_mini/causal"),
    "decided": lambda: contrasts(f"acdc_mini/{name}" for name in STUDIES),
    "bases": lambda: bases("acdc_mini/loss_terms"),
    "phantom": lambda: contrasts(f"phantom/{name}" for name in ("loss_terms", "basis_dimension")),
    "phantom_bases": lambda: bases("phantom/loss_terms"),
    "learning_rates": lambda: cells("choosing_learning_rate/learning_rate"),
    "systems": lambda: systems(
        trained, ("System", "Parameters (M)", "GFLOP a frame", "Dice RV", "Dice MYO", "Dice LV", "Dice mean", "Compute (ms)", "Training (h)"), "table_2"
    ),
    "real_time": lambda: systems(
        lambda line: not printed_in_paper(line),
        ("System", "Parameters (M)", "GFLOP a frame", "Dice mean", "FPS", "Compute (ms)", "Waits for frames", "Keeps 22 FPS", "Training (h)"),
    ),
    "in_the_paper": lambda: systems(printed_in_paper, ("System", "Dice RV", "Dice MYO", "Dice LV", "Dice mean", "FPS", "Latency (ms, paper)")),
    "ratios": ratios,
    "paper_settings": paper_settings,
    "modules": modules,
}

if __name__ == "__main__":
    main()
