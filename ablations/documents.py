"""The generated parts of the documents: `python ablations/documents.py` rewrites them in README.md and docs/.

A part lies between `<!-- made by python ablations/documents.py: NAME -->` and `<!-- end -->`; NAME is a key of `PARTS`. Tables of
results are read from ablations/results, the list of modules from their docstrings.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules would hide the standard library's

from ablations import (  # noqa: E402
    acdc100,
    acdc100_answers,
    acdc100_networks,
    acdc100_pairs,
    acdc100_tables,
    claims,
    fine_tuning,
    levers,
    model_card,
    search,
    speed,
)
from ablations import where_lost as lost  # noqa: E402
from ablations.answers import STUDIES, answers, headline, rivals  # noqa: E402
from ablations.committed import (  # noqa: E402
    RESULTS,
    Line,
    change,
    dice,
    judged,
    lines,
    named,
    printed_in_paper,
    result,
    timed,
    value,
)
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

MARKED = re.compile(r"(<!-- made by python ablations/documents\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


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


def cells(path: str, decided: bool = True) -> str:
    """Every setting of a study that has been trained, and what it changes; `decided`: with what was decided."""
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
    kept = len(heads) if decided else -1
    return plain_table(heads[:kept], [row[:kept] for row in rows], [False, *[True] * 6, *([False] if decided else [])])


def accuracy() -> str:
    """The best that was reached, and what the paper prints."""
    best = cases.summarize(judged("recommended"))
    paper = named("tables_acdc_mini/table_1", "ICA-UNet, n = 4 (paper)")["Dice mean"].split()[0]
    return (
        f"**The best so far: mean Dice {number(best['dice']['mean'], 3)} on {best['n_patients']} unseen patients, by one training of `launch/recommended.flags` "
        f"([levers](levers.md)).** The paper prints {paper} on other data, so whether its accuracy is reached is not known."
    )


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


def systems(keep: Callable[[Line], bool], columns: Iterable[str], order: Callable[[Line], float]) -> str:
    """Lines of the paper's Table 1, in order of a figure."""
    found = sorted((line for line in lines("tables_acdc_mini/table_1") if keep(line)), key=order)
    columns = tuple(columns)
    return plain_table(columns, ([line[column] for column in columns] for line in found), [False, *[True] * (len(columns) - 1)])


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
    table = plain_table(("In the paper", "Claim", "Verdict", "Our figures", "From"), [[place, says, word, text or NONE, source] for place, says, word, text, source in rows])
    otherwise = acdc100.if_all_shared("main")
    return f"{table}\n\nOf acdc100/main: {otherwise} ([why](acdc100.md))" if otherwise else table


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
    acdc100_networks.latency(ROOT / "docs" / "acdc100_latency.png")
    acdc100_networks.by_place(ROOT / "docs" / "acdc100_places.png")
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


def corrupted() -> list[robustness.Row]:
    """What corruptions cost the twin of the weights in the package."""
    return robustness.read_csv(RESULTS / "acdc_causal" / "robustness.csv")


def kept() -> Weights:
    """The twin itself."""
    return weights(str(RESULTS / "acdc_causal" / "twin.safetensors"))


def tuned() -> str:
    found = result("acdc_causal/fine_tuning")
    return f"{fine_tuning.sentence(found)}\n\n{fine_tuning.table(found)}"


# Trainings of the recommended network.
_LEVER = "choosing_levers/cells/stream_width=64_encoder_width=12_decoder_width=24_decoder_convs=2_streams=dense_"
ON_GPU = ("recommended", "acdc_causal", f"{_LEVER}-4952379f94/seed1_fold4", f"{_LEVER}-192a95564e/seed0_fold4", f"{_LEVER}-192a95564e/seed1_fold4")
ON_CPU = f"{_LEVER}-4952379f94/seed4_fold4"

PARTS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "answers": answers,
    "accuracy_answer": accuracy,
    "accuracy": lambda: cells("causal_acdc_mini/causal"),
    "decided": lambda: contrasts(f"acdc_mini/{name}" for name in STUDIES),
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
    "learning_rates": lambda: cells("choosing_learning_rate/learning_rate", decided=False),
    "rivals": rivals,
    "real_time": lambda: systems(
        lambda line: not printed_in_paper(line),
        ("System", "Parameters (M)", "GFLOP a frame", "FPS", "Compute (ms)", "Waits for frames", "Keeps 22 FPS"),
        lambda line: float(line["Compute (ms)"]),
    ),
    "in_the_paper": lambda: systems(
        printed_in_paper, ("System", "Dice RV", "Dice MYO", "Dice LV", "Dice mean", "FPS", "Latency (ms, paper)"), lambda line: -float(line["Dice mean"].split()[0])
    ),
    "ratios": ratios,
    "profile_frame": lambda: profiled("acdc/own"),
    "profile_step": lambda: profiled("acdc/train"),
    "speed_answer": lambda: speed.answer(timed("benchmark"), result("real_time/h200")),
    "on_gpu": lambda: f"{speed.streamed_on_gpu(result('real_time/h200'))}\n\n{speed.trained_on_gpu([result(f'{run}/timing') for run in ON_GPU], result(f'{ON_CPU}/timing'))}",
    "runtimes": lambda: speed.runtimes(timed("benchmark")),
    "full_frames": lambda: speed.full_frames(timed("full_frames")),
    "hour": lambda: speed.hour(result("real_time/hour")),
    "served": lambda: speed.served(result("serving/stream"), {name: result(f"serving/{name}") for name in speed.PROTOCOLS}),
    **{f"large_{name}": functools.partial(large_cohort, name) for name in TABLES},
    "claims": claimed,
    "acdc100_answers": acdc100_answers.answers,
    **{f"acdc100_{name}": part for name, part in (acdc100_tables.PARTS | acdc100_networks.PARTS | acdc100_pairs.PARTS).items()},
    "acdc100_terms": lambda: contrasts(["acdc100/loss_terms"]),
    "acdc100_bases": lambda: bases("acdc100/loss_terms"),
    "lost_answer": lambda: lost.answer(lost_by("acdc_causal")),
    "lost_made": lambda: lost.made(lost_by("acdc_causal")),
    **{f"lost_{name}": functools.partial(lost_in, name) for name in ("whole", "places", "sizes", "kinds")},
    "streams_in_parallel": streams_in_parallel,
    "paper_settings": paper_settings,
    "modules": modules,
}

if __name__ == "__main__":
    main()
