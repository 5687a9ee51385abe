"""The generated parts of the documents: `python ablations/documents.py` rewrites them in README.md and docs/.

A part lies between `<!-- made by python ablations/documents.py: NAME -->` and `<!-- end -->`; NAME is a key of `PARTS`. Tables of
results are read from ablations/results, the list of modules from their docstrings.
"""

from __future__ import annotations

import ast
import csv
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from ablations import claims, fine_tuning, levers, model_card, search, speed  # noqa: E402
from ablations import where_lost as lost  # noqa: E402
from ablations.large_cohort import TABLES  # noqa: E402
from ica_unet_jax.benchmarking import parallel, report  # noqa: E402
from ica_unet_jax.config import fields  # noqa: E402
from ica_unet_jax.evaluation import robustness, where_lost  # noqa: E402
from ica_unet_jax.evaluation.pages import cases_table  # noqa: E402
from ica_unet_jax.labels import STRUCTURES  # noqa: E402
from ica_unet_jax.metrics import cases  # noqa: E402
from ica_unet_jax.reporting import figures  # noqa: E402
from ica_unet_jax.reporting.markup import NONE, number, p_value, plain_table  # noqa: E402
from ica_unet_jax.runs.trained import Weights, weights  # noqa: E402
from ica_unet_jax.runtime.files import write_text  # noqa: E402

RESULTS = ROOT / "ablations" / "results"
MARKED = re.compile(r"(<!-- made by python ablations/documents\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDIES = ("loss_terms", "bases_from", "streams", "basis_dimension")  # of acdc_mini

Line = dict[str, str]


def main() -> None:
    pictures()
    for path in pages():
        text = path.read_text(encoding="utf-8")
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
    with (RESULTS / f"{path}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def named(path: str, name: str) -> Line:
    """The one line of such a file whose first column is `name`."""
    [found] = [line for line in lines(path) if next(iter(line.values())) == name]
    return found


def result(path: str) -> dict[str, Any]:
    """A JSON file below ablations/results, named without its ending."""
    return json.loads((RESULTS / f"{path}.json").read_text(encoding="utf-8"))


def value(line: Line, column: str) -> float | None:
    """The number in a column; None where it is empty."""
    return float(line[column]) if line.get(column) else None


def dice(line: Line, structure: str) -> str:
    return f"{number(value(line, f'dice_{structure}'), 3)} ± {number(value(line, f'dice_{structure}_sd'), 3)}"


def change(line: Line, removed: bool = False) -> str:
    """The change of Dice to the reference, with its 95 % interval where there is one; turned round for what the setting `removed`."""
    difference, *limits = (value(line, column) for column in ("difference", *(("high", "low") if removed else ("low", "high"))))
    if removed:
        difference, *limits = (None if x is None else -x for x in (difference, *limits))
    interval = "" if None in limits else f" [{', '.join(number(limit, 3) for limit in limits)}]"
    return number(difference, 3, signed=True) + interval


def ahead(plain: Line, own: Line) -> str:
    """Which of two lines of the paper's tables has the higher Dice."""
    difference = float(plain["Dice mean"]) - float(own["Dice mean"])
    return "the same" if not difference else f"so {'the U-Net' if difference > 0 else 'ICA-UNet'} is ahead by {abs(difference):.3f}"


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
    part = (ROOT / "launch" / "acdc.flags").read_text(encoding="utf-8").split("# Printed in the paper.")[1].split("# Ours")[0]
    texts = {field.name: field.metadata["help"] for _, field in fields()}
    rows = [(f"`--{name}={given}`", texts[name]) for name, given in re.findall(r"^--(\w+)=(.*)$", part, re.MULTILINE)]
    return plain_table(("Setting", "Meaning"), rows)


def profiled(row: str) -> str:
    """Where the time of a benchmark's row goes."""
    found = report.profile(row, report.read(RESULTS / "profile_acdc" / "benchmark.json")["rows"][row])
    return "\n".join(found[2:]).strip()


def large_cohort(table: str) -> str:
    """One of the tables of what a large cohort takes."""
    return TABLES[table](result("large_cohort/benchmark"))


def claimed() -> str:
    """What results say to each claim of the paper."""
    rows = claims.table(report.read(RESULTS / "real_time" / "benchmark.json")["rows"], report_of_streams())
    return plain_table(("In the paper", "Claim", "Verdict", "Our figures", "From"), [[place, says, word, text or NONE, source] for place, says, word, text, source in rows])


def lost_by(network: str) -> dict[str, Any]:
    """Where a network loses its Dice, as ablations/where_lost.py has it."""
    return result(f"where_lost/{network}")


def lost_in(table: str) -> str:
    """A table of it: of the whole, or of the validation patients by place, size or kind."""
    found = lost_by("acdc_causal")
    return lost.whole_table(found) if table == "whole" else where_lost.tables(found["val"])[table]


def streams_in_parallel() -> str:
    """The streams in their forms, from one core and from several."""
    heads, rows = parallel.table(report_of_streams())
    return plain_table(heads, rows, [False, *[True] * (len(heads) - 1)])


def report_of_streams() -> dict[str, Any]:
    return result("parallel/benchmark")


def pictures() -> None:
    """The pictures of the documents that are made of committed results."""
    figures.parallel_streams(ROOT / "docs" / "streams_in_parallel.png", parallel.panels(report_of_streams()))
    found = lost_by("acdc_causal")
    figures.by_place(
        ROOT / "docs" / "where_lost.png",
        {
            structure: {words: {f"{phase} {place}": dice[structure] for phase, place, dice in found[split]["places"]} for split, words in lost.SPLITS.items()}
            for structure in STRUCTURES
        },
    )


def modules() -> str:
    """Every module of the package and of ablations/, with the first line of its docstring."""
    found = []
    for top in ("ica_unet_jax", "ablations"):
        files = sorted((ROOT / top).rglob("*.py"), key=lambda path: (path.parent != ROOT / top, path.parent, path.name))
        folder = None
        for path in files:
            if not (text := ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))):
                continue
            if path.parent != folder:
                folder = path.parent
                found.append(f"\n{folder.relative_to(ROOT)}/")
            found.append(f"  {path.name:<26}{text.splitlines()[0]}")
    return "```text\n" + "\n".join(found).strip() + "\n```"


def timed(name: str) -> dict[str, Any]:
    """The rows of a committed benchmark of frames."""
    return report.read(RESULTS / "real_time" / f"{name}.json")["rows"]


def answers() -> str:
    """The screen of the README: what committed results say to what people ask first."""
    past = named("causal_acdc_mini/causal", "t-1 alone")
    n4, causal, dense, plain, paper = (
        named("tables_acdc_mini/table_1" if "ICA" in name else "tables_acdc_mini/table_2", name)
        for name in (
            "ICA-UNet, n = 4, independent", "ICA-UNet, n = 4, independent, past frame alone", "ICA-UNet, n = 4, dense", "U-Net 2D", "ICA-UNet, n = 4 (paper)"
        )
    )  # fmt: skip
    rest = [line["Dice mean"] for line in lines("tables_acdc_mini/table_1") + lines("tables_acdc_mini/table_2") if trained(line) and "at 0.25" in line["System"]]
    decided = [(PARTS_OF_THE_METHOD[line["title"]], line) for name in STUDIES for line in lines(f"acdc_mini/{name}") if line["decision"] == "worse"]
    helps, hurts = ([f"{words} ({change(line, removed)})" for (words, removed), line in decided if removed == wanted] for wanted in (True, False))
    undecided = [line for name in STUDIES for line in lines(f"acdc_mini/{name}") if line["decision"] == "undecided"]
    bases_decided = [line for line in lines("acdc_mini/basis_dimension") if line["decision"] not in ("", "undecided")]
    nothing = [PARTS_OF_THE_METHOD[line["title"]][0] for line in lines("acdc_mini/loss_terms") if line["decision"].startswith("no effect") and " x " not in line["title"]]
    twin = named("acdc_mini/streams", "dense, equal work")
    fast, jax, unet = (
        timed("benchmark")[name] for name in ("roi/n4/independent/past@openvino", "roi/n4/independent/past", "roi/unet2d@openvino")
    )
    p50, p95, period = (*(fast["frame_ms"][name] for name in ("p50", "p95")), speed.PERIOD)
    on_gpu, ours = result("real_time/h200"), cases.summarize(judged("recommended"))["dice"]
    real_time = "**Yes**" if p95 < period else "**Most frames, not all**" if p50 < period else "**No**"
    rows = [
        (
            "How accurate is it?",
            f"Mean Dice **{number(ours['mean'], 3)}** (RV {number(ours['RV'], 3)}, MYO {number(ours['MYO'], 3)}, LV {number(ours['LV'], 3)}) at end-diastole and end-systole on 20 patients of ACDC whom it had not seen, by `launch/recommended.flags`, one "
            f"training. The paper prints {paper['Dice mean'].split()[0]}, on labels of all frames that were never published.",
            "[levers](docs/results/levers.md)",
        ),
        (
            "Is it real time?",
            f"{real_time}, with OpenVINO, two CPU cores of a shared machine and past frames alone: a frame (8 slices of 128x128) takes {p50:.0f} ms, 95 % at most "
            f"{p95:.0f}, of {period:.0f} that 22 a second leave. In JAX it takes {jax['frame_ms']['p50']:.0f} ms. A 2D U-Net with OpenVINO takes "
            f"{unet['frame_ms']['p50']:.0f} ms{', real time too' * (unet['frame_ms']['p95'] < period)}. `launch/recommended.flags` on an {speed.gpu(on_gpu)}, full frames: {on_gpu['compute_ms']['p50']:.0f} ms in JAX.",
            "[speed](docs/results/speed.md)",
        ),
        (
            "Which parts matter?",
            f"After 250 steps, a tenth of a full training: **Helps:** {'; '.join(helps)}. **Hurts:** {'; '.join(hurts)}. **No effect** above 0.01: {', '.join(nothing)}. "
            f"**Undecided:** {len(undecided)} other comparisons{', among them all of the number of bases' * (not bases_decided)}.",
            "[ablations](docs/results/ablations.md)",
        ),
        (
            "Is it better than a plain U-Net?",
            f"**Not shown.** On 6 of the patients after 500 steps a 2D U-Net on the images has {plain['Dice mean']} and ICA-UNet {n4['Dice mean']}, {ahead(plain, n4)}; one training of each, so it "
            f"may be chance. One U-Net for all coefficients (\"dense\") instead of one for each basis has {dense['Dice mean']} there; over three folds after 250 steps it differs by {change(twin)}, {twin['decision']}.",
            "[rivals](docs/results/rivals.md)",
        ),
        (
            "Better than the other rivals?",
            f"**Not known.** U-Net 3D, MSU-Net, GridNet, Ω-Net and an ensemble reach {min(rest)} to {max(rest)} on the same 6 patients, but at a quarter of their width and "
            "untuned. A fair trial, one recipe for all, was rehearsed on the patients for choosing; the comparison is not made.",
            "[rivals](docs/results/rivals.md), [learning rates](docs/results/learning_rates.md)",
        ),
        (
            "Does it need the neighbouring frames?",
            f"**{past['decision'].capitalize()}.** To leave out the frame after changes Dice by {change(past)}. A network trained with both gives the same Dice with copies of the frame in their places.",
            "[causal](docs/results/causal.md), [neighbours](docs/results/neighbours.md)",
        ),
    ]
    return plain_table(("Question", "Answer today", "More"), rows).replace("\\*", "*")


def judged(network: str, name: str = "cases") -> list[cases.Row]:
    """The cases that a network was judged on."""
    return cases.read_cases_csv(RESULTS / network / f"{name}.csv")


def corrupted() -> list[robustness.Row]:
    """What corruptions cost the twin of the weights in the package."""
    return robustness.read_csv(RESULTS / "acdc_causal" / "robustness.csv")


def timings() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Of trainings of the recommended network, on a GPU and on CPU cores."""
    runs = [RESULTS / "recommended", RESULTS / "acdc_causal", *(RESULTS / "choosing_levers" / "cells").glob("*streams=dense*/seed*")]
    found = [json.loads((run / "timing.json").read_text(encoding="utf-8")) for run in sorted(runs)]
    return [one for one in found if one["device"] != "cpu"], next(one for one in found if one["device"] == "cpu" and one["steps"] == 4000)


def kept() -> Weights:
    """The twin itself."""
    return weights(str(RESULTS / "acdc_causal" / "twin.safetensors"))


def tuned() -> str:
    found = result("acdc_causal/fine_tuning")
    return f"{fine_tuning.sentence(found)}\n\n{fine_tuning.table(found)}"


PARTS_OF_THE_METHOD = {  # by titles of the tables: the part in the words of a newcomer, and whether the setting takes it away
    "S": ("the sparsity term of the loss", False),
    "I": ("the independence term of the loss", False),
    "R": ("the reconstruction term of the loss", False),
    "bases from the frame alone": ("learned bases (ours, not in the paper's text) beside those computed from the frame", True),
    "shared streams": ("a U-Net of its own for each basis, instead of one that serves all in turn", True),
}


PARTS: dict[str, Callable[[], str]] = {
    "answers": answers,
    "accuracy": lambda: cells("causal_acdc_mini/causal"),
    "decided": lambda: contrasts(f"acdc_mini/{name}" for name in STUDIES),
    "bases": lambda: bases("acdc_mini/loss_terms"),
    "phantom": lambda: contrasts(f"phantom/{name}" for name in ("loss_terms", "basis_dimension")),
    "phantom_others": lambda: contrasts(f"phantom_others/{name}" for name in ("contracting_blocks", "projection_width", "ica_weight", "alpha", "correlation", "supervision")),
    "phantom_bases": lambda: bases("phantom/loss_terms"),
    "levers": lambda: levers.table(RESULTS / "choosing_levers"),
    "levers_answer": lambda: levers.answer(RESULTS / "choosing_levers", lost.by_window(lost_by("acdc_causal"))),
    "levers_once": lambda: f"`launch/recommended.flags`: {model_card.answer(judged('recommended'))}",
    "card_answer": lambda: model_card.answer(judged("acdc_causal")),
    "weights": lambda: model_card.short(judged("acdc_causal"), corrupted(), judged("acdc_causal", "phantom_cases")),
    "card_groups": lambda: cases_table(judged("acdc_causal")).strip(),
    "card_corruptions": lambda: model_card.corruptions(corrupted()),
    "card_phantom": lambda: model_card.answer(judged("acdc_causal", "phantom_cases")),
    "card_doubts": lambda: model_card.doubted(corrupted(), kept().doubt_limits),
    "card_time": lambda: model_card.timed([result(f"acdc_causal/stream_{dtype}") for dtype in ("float32", "bfloat16")]),
    "card_tuning": tuned,
    "small": lambda: cells("small_acdc_mini/small"),
    "search": lambda: search.table(search.read(RESULTS / "choosing_levers" / "search.csv")),
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
    "profile_frame": lambda: profiled("acdc/own"),
    "profile_step": lambda: profiled("acdc/train"),
    "speed_answer": lambda: speed.answer(timed("benchmark"), result("real_time/h200")),
    "on_gpu": lambda: f"{speed.streamed_on_gpu(result('real_time/h200'))}\n\n{speed.trained_on_gpu(*timings())}",
    "runtimes": lambda: speed.runtimes(timed("benchmark")),
    "full_frames": lambda: speed.full_frames(timed("full_frames")),
    "hour": lambda: speed.hour(result("real_time/hour")),
    "served": lambda: speed.served(result("serving/stream"), {name: result(f"serving/{name}") for name in speed.PROTOCOLS}),
    **{f"large_{name}": functools.partial(large_cohort, name) for name in TABLES},
    "claims": claimed,
    "lost_answer": lambda: lost.answer(lost_by("acdc_causal")),
    "lost_made": lambda: lost.made(lost_by("acdc_causal")),
    **{f"lost_{name}": functools.partial(lost_in, name) for name in ("whole", "places", "sizes", "kinds")},
    "streams_in_parallel": streams_in_parallel,
    "paper_settings": paper_settings,
    "modules": modules,
}

if __name__ == "__main__":
    main()
