"""The screen of the README: what committed results say to what people ask first."""

from __future__ import annotations

from ablations import acdc100, acdc100_pairs, speed
from ablations.committed import RESULTS, change, judged, lines, named, result, timed
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import number, plain_table

FAST = "roi/n4/independent/past@openvino"  # row of the benchmark of frames
STUDIES = ("streams", "basis_dimension")  # of acdc_mini
PARTS_STUDIED = ("acdc100/loss_terms", "acdc100_design/design", *(f"acdc_mini/{name}" for name in STUDIES))
PARTS_OF_THE_METHOD = {  # by table and title: the part in the words of a newcomer, and whether the setting takes it away
    ("acdc100/loss_terms", "S"): ("the sparsity term", False),
    ("acdc100/loss_terms", "I"): ("the independence term", False),
    ("acdc100/loss_terms", "R"): ("the reconstruction term, with the loss of Eq. 2 alone", False),
    ("acdc100_design/design", "bases from the frame alone"): ("learned bases (ours) beside those computed from the frame", True),
    ("acdc_mini/streams", "shared streams"): ("a U-Net of its own for each basis, not one for all in turn", True),
}


def answers() -> str:
    """The screen of the README: what committed results say to what people ask first."""
    past = named("causal_acdc_mini/causal", "t-1 alone")
    paper = named("tables_acdc_mini/table_1", "ICA-UNet, n = 4 (paper)")
    studied = {(path, line["title"]): line for path in PARTS_STUDIED for line in lines(path)}
    known = [(*told, studied[path, title], acdc100_pairs.judged(path.partition("/")[2], title)) for (path, title), told in PARTS_OF_THE_METHOD.items()]
    groups: dict[str, list[str]] = {"Helps": [], "Hurts": [], "No effect above 0.01": []}
    for words, removed, line, at_full in known:
        once = "" if at_full is None else f"; full size, once: {number(-at_full if removed else at_full, 3, signed=True)}"
        if line["decision"].startswith(("better", "worse")):
            groups["Helps" if line["decision"].startswith("worse") == removed else "Hurts"].append(f"{words} ({change(line, removed)}{once})")
        elif line["decision"].startswith("no effect"):
            groups["No effect above 0.01"].append(words)
    parts = " ".join(f"**{word}:** {'; '.join(found)}." for word, found in groups.items() if found)
    undecided = [line for line in studied.values() if line["decision"] == "undecided"]
    bases_decided = [line for line in lines("acdc_mini/basis_dimension") if line["decision"] not in ("", "undecided")]
    twin = named("acdc100_design/design", acdc100.STREAMS[0])
    dense = f", and independent streams beside one wide U-Net for all ({change(twin)})" * (twin in undecided)
    fast, jax, unet = (timed("benchmark")[name] for name in (FAST, "roi/n4/independent/past", "roi/unet2d@openvino"))
    p50, p95, period = (*(fast["frame_ms"][name] for name in ("p50", "p95")), speed.PERIOD)
    on_gpu, recommended = result("real_time/h200"), cases.summarize(judged("recommended"))
    ours = recommended["dice"]
    real_time = "**Yes**" if p95 < period else "**Most frames, not all**" if p50 < period else "**No**"

    rows = [
        (
            "How accurate is it?",
            f"Mean Dice **{number(ours['mean'], 3)}** (RV {number(ours['RV'], 3)}, MYO {number(ours['MYO'], 3)}, LV {number(ours['LV'], 3)}) at end-diastole and end-systole on {recommended['n_patients']} unseen patients of ACDC, by `launch/recommended.flags`, one "
            f"training. The paper prints {paper['Dice mean'].split()[0]}, on labels of all frames that were never published.",
            "[levers](docs/results/levers.md)",
        ),
        (
            "Is it real time?",
            f"{real_time}, with OpenVINO, two shared CPU cores and past frames alone: a frame (8 slices of 128x128) takes ICA-UNet {p50:.0f} ms, "
            f"95 % at most {p95:.0f}, and a 2D U-Net {unet['frame_ms']['p50']:.0f}, of {period:.0f} that 22 a second leave. ICA-UNet in JAX: {jax['frame_ms']['p50']:.0f}. "
            f"`launch/recommended.flags` on an {speed.gpu(on_gpu)}: {on_gpu['compute_ms']['p50']:.0f} ms for a full frame, in JAX.",
            "[speed](docs/results/speed.md)",
        ),
        (
            "Which parts matter?",
            f"{parts} **Undecided:** {len(undecided)} other comparisons{', among them all of the number of bases' * (not bases_decided)}{dense}. ({amounts()})",
            "[100 patients](docs/results/acdc100.md), [ablations](docs/results/ablations.md)",
        ),
        (
            "Is it better than a plain U-Net, or another rival?",
            rivals(intervals=False),
            "[rivals](docs/results/rivals.md), [100 patients](docs/results/acdc100.md)",
        ),
        (
            "Does it need the neighbouring frames?",
            f"**{past['decision'].capitalize()}.** To leave out the frame after changes Dice by {change(past)}. A network trained with both gives the same Dice with copies of the frame in their places.",
            "[causal](docs/results/causal.md), [neighbours](docs/results/neighbours.md)",
        ),
    ]
    return plain_table(("Question", "Answer today", "More"), rows).replace("\\*", "*")


def amounts() -> str:
    """Of how much the parts that matter are."""
    folders = {"The loss": "acdc100/loss_terms", "learned bases": "acdc100_design/design", "own U-Nets": "acdc_mini/streams"}
    said: dict[str, list[str]] = {}
    for words, path in folders.items():
        folder, name = path.split("/")
        found = acdc100.analyses(RESULTS / folder)[name]
        said.setdefault(f"{found.patients} patients, {acdc100.steps(acdc100.sweep(RESULTS / folder), found):,} steps", []).append(words)
    return "; ".join(f"{' and '.join(words)}: {amount}" for amount, words in said.items()) + "."


def rivals(intervals: bool = True) -> str:
    """Whether ICA-UNet is ahead of the rivals, how these and our own others do beside it, and of how much that was measured."""
    said = acdc100.beside("main", [*acdc100.RIVALS, "no ICA", acdc100.RECOMMENDED], intervals)
    rule = f"({len(others)} of these decisions need a rule that was not planned.)" if (others := acdc100.decided_otherwise("main")) else ""
    return " ".join(filter(None, [acdc100.ranked("main", acdc100.RIVALS), said, acdc100.briefly("main"), rule]))


def headline() -> str:
    """What is known in two sentences: of speed, and of a plain U-Net."""
    real_time = timed("benchmark")[FAST]["frame_ms"]["p95"] < speed.PERIOD
    found, pair = acdc100.study("main"), next((pair for pair in acdc100_pairs.pairs() if pair.study == "main"), None)
    plain = next((line.finding for line in found.lines if line.title == "U-Net 2D"), None) if found else None
    words = {"worse": "It is more accurate than a plain 2D U-Net, trained alike.", "as_good": "A plain 2D U-Net, trained alike, is as accurate."}
    words["better"] = "A plain 2D U-Net, trained alike, is more accurate than the paper's method"
    if pair:
        small, full = (number(value, 3, signed=True) for value in (pair.small.contrast.difference, pair.judged))
        words["better"] += f" on a small window ({small} of Dice); in one pair at full size, undecided: {full}"
    words["better"] += "."
    accurate = words.get(acdc100.kind(plain.decision) if plain else "", "It has not been shown to beat a plain U-Net.")
    return f"**On two CPU cores it is {'' if real_time else 'not yet '}real time, with OpenVINO. {accurate}**"
