"""The screen of the README: what committed results say to what people ask first."""

from __future__ import annotations

from ablations import speed
from ablations.committed import Line, change, judged, lines, named, result, timed, trained
from ica_unet_jax.metrics import cases
from ica_unet_jax.reporting.markup import number, plain_table

STUDIES = ("loss_terms", "bases_from", "streams", "basis_dimension")  # of acdc_mini
PARTS_OF_THE_METHOD = {  # by titles of the tables: the part in the words of a newcomer, and whether the setting takes it away
    "S": ("the sparsity term of the loss", False),
    "I": ("the independence term of the loss", False),
    "R": ("the reconstruction term of the loss", False),
    "bases from the frame alone": ("learned bases (ours, not in the paper's text) beside those computed from the frame", True),
    "shared streams": ("a U-Net of its own for each basis, instead of one that serves all in turn", True),
}


def answers() -> str:
    """The screen of the README: what committed results say to what people ask first."""
    past = named("causal_acdc_mini/causal", "t-1 alone")
    n4, dense, plain, paper = (
        named("tables_acdc_mini/table_1" if "ICA" in name else "tables_acdc_mini/table_2", name)
        for name in (
            "ICA-UNet, n = 4, independent", "ICA-UNet, n = 4, dense", "U-Net 2D", "ICA-UNet, n = 4 (paper)"
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
    on_gpu, recommended = result("real_time/h200"), cases.summarize(judged("recommended"))
    ours = recommended["dice"]
    real_time = "**Yes**" if p95 < period else "**Most frames, not all**" if p50 < period else "**No**"
    rows = [
        (
            "How accurate is it?",
            f"Mean Dice **{number(ours['mean'], 3)}** (RV {number(ours['RV'], 3)}, MYO {number(ours['MYO'], 3)}, LV {number(ours['LV'], 3)}) at end-diastole and end-systole on {recommended['n_patients']} patients of ACDC whom it had not seen, by `launch/recommended.flags`, one "
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


def ahead(plain: Line, own: Line) -> str:
    """Which of two lines of the paper's tables has the higher Dice."""
    difference = float(plain["Dice mean"]) - float(own["Dice mean"])
    return "the same" if not difference else f"so {'the U-Net' if difference > 0 else 'ICA-UNet'} is ahead by {abs(difference):.3f}"
