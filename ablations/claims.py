"""The paper's claims, each with what our results say to it: for docs/results/claims.md.

A claim about accuracy is held against a contrast of a study: one decision among those of the statistics (docs/statistics.md). One about
speed is held against times. A claim about accuracy that no committed result on real images answers is "not tested".
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablations import acdc100_pairs
from ablations.committed import RESULTS
from ica_unet_jax.reporting.markup import number

SOURCES = ("acdc100", "acdc100_design", "acdc_mini", "causal_acdc_mini")  # the first that has the study answers
SIMULATED = ("phantom", "phantom_others")  # these answer no claim, but are told where nothing else is there
CONFIRMED, REFUTED, UNDECIDED, NOT_TESTED = "confirmed", "refuted", "undecided", "not tested"
OPPOSITE = {"better": "worse", "worse": "better"}

Verdict = tuple[str, str, str]  # the word, the figures, where they are from
Rows = Mapping[str, Mapping[str, Any]]  # of a benchmark


@dataclasses.dataclass(frozen=True)
class Contrast:
    """What a study would have to decide: its line `title` is `expected`, "better" or "worse", than the reference, or `as_good`."""

    study: str
    title: str
    expected: str
    as_good: bool = False  # would do as well

    def verdict(self, results: Path = RESULTS) -> Verdict:
        for source in SOURCES + SIMULATED:
            lines = {line["title"]: line for line in _lines(results / source / f"{self.study}.csv")}
            if (line := lines.get(self.title)) and line["decision"]:
                beside = [f"beside {title}" for title, other in lines.items() if other["kind"] == "reference" and line["kind"] == "cell"]
                text = f"{' '.join((self.title, *beside))}: {figures(line)}"
                if source in SIMULATED:
                    return NOT_TESTED, f"on simulated hearts alone, {text}", f"{source}/{self.study}"
                if (full := acdc100_pairs.judged(self.study, self.title)) is not None:
                    text += f"; once at full size: {number(full, 3, signed=True)}"
                return self._word(line["decision"]), text, f"{source}/{self.study}"
        return NOT_TESTED, "", self.study

    def _word(self, decision: str) -> str:
        verdict, within, _ = decision.partition(", within")
        if verdict == self.expected or (self.as_good and within):
            return CONFIRMED
        if decision.startswith(("no effect", "as good")):
            return CONFIRMED if self.as_good else REFUTED
        return REFUTED if verdict == OPPOSITE[self.expected] else UNDECIDED


@dataclasses.dataclass(frozen=True)
class Claim:
    place: str  # in the paper
    says: str  # in our words
    test: tuple[Contrast, ...] | Callable[[Rows, Mapping[str, Any]], Verdict]  # all of these, or of the benchmark's rows and the streams in parallel

    def verdict(self, rows: Rows, streams: Mapping[str, Any], results: Path = RESULTS) -> Verdict:
        """Confirmed where each contrast confirms it, refuted where one refutes it."""
        if callable(self.test):
            return self.test(rows, streams)
        words, texts, sources = zip(*(contrast.verdict(results) for contrast in self.test), strict=True)
        word = next((word for word in (REFUTED, NOT_TESTED, UNDECIDED) if word in words), CONFIRMED)
        return word, "; ".join(filter(None, texts)), ", ".join(dict.fromkeys(sources))


def figures(line: Mapping[str, str]) -> str:
    """The change of mean Dice, its interval and what was decided."""
    difference, *ends = (number(float(line[name]), 3, signed=True) for name in ("difference", *(("low", "high") if line["low"] else ())))
    interval = f" [{', '.join(ends)}]" if ends else ""
    return f"{difference}{interval}, {line['decision']}"


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def throughput(rows: Rows, _: Any) -> Verdict:
    frame = rows[JUDGED_BY]["frame_ms"]
    return _by(frame, 1000 / 22), f"{1000 / frame['p50']:.0f} frames a second, p95 of a frame {frame['p95']:.0f} ms; {MACHINE}", "real_time"


def latency(rows: Rows, _: Any) -> Verdict:
    frame, wait = rows[JUDGED_BY]["frame_ms"], 1000 / 22
    text = (
        f"computing: p50 {frame['p50']:.0f} ms, p95 {frame['p95']:.0f}; {MACHINE}. From a frame's arrival to its mask the paper's network waits for frame t+1 too, {wait:.0f} ms at 22 a "
        f"second, and {'is beyond 50 ms' if wait + frame['p50'] > 50 else 'keeps 50 ms'}"
    )
    return f"{_by(frame, 50.0)} by the paper's clock", text, "real_time"


def latency_ratio(_: Rows, __: Any) -> Verdict:
    with (RESULTS / "tables_acdc_mini" / "table_1_ratios.csv").open(newline="", encoding="utf-8") as file:
        [line] = [x for x in csv.DictReader(file) if (x["System"], x["In units of"]) == ("MSU-Net, span 10", "ICA-UNet, n = 3")]
    printed = line["Arrival to mask, 30 FPS (paper)"]
    text = (
        f"the paper's own figures by one clock for both: {printed} times from arrival to mask, {line['Compute (paper)']} in compute time. Ours: {float(line['Compute']):.0f} times in "
        "compute time, with a width of MSU-Net that is our choice, as none is printed"
    )
    return (REFUTED if float(printed) < 12.6 else CONFIRMED), text, "tables_acdc_mini"


def parallel(_: Rows, streams: Mapping[str, Any]) -> Verdict:
    from ica_unet_jax.benchmarking import parallel as timed

    heads, lines = timed.table(streams)
    column = heads.index("m = 32")
    found = {line[0]: float(line[column]) for line in lines if line[1] == max(other[1] for other in lines)}
    mapped, loop, dense = found[timed.MAPPED], found[timed.IN_TURN], found[timed.DENSE]
    text = f"m = 32, two CPU cores: mapped {mapped:.1f} ms, one after the other {loop:.1f}, one dense U-Net of as much work {dense:.1f}. No GPU was timed"
    return (f"{CONFIRMED} on CPUs" if mapped < min(loop, dense) / CLEARLY else f"{REFUTED} on CPUs"), text, "parallel"


def _by(frame: Mapping[str, float], limit: float) -> str:
    """Frame times against a limit in ms: as this machine's minutes differ, what lies close to it decides nothing."""
    if CLEARLY * frame["p95"] <= limit:
        return CONFIRMED
    return REFUTED if frame["p50"] > CLEARLY * limit else UNDECIDED


JUDGED_BY = "roi/n4/independent/past@openvino"
MACHINE = "8x128x128, past frames alone, OpenVINO, float32, two CPU cores"
CLEARLY = 1.2  # by which two runs of one timing may differ here
CLAIMS = (
    Claim("Abstract; Table 1", "at least 22 frames a second", throughput),
    Claim("Abstract; Table 1", "at most 50 ms of latency", latency),
    Claim("Abstract", "up to 12.6 times less latency than MSU-Net (442 to 35 ms, span 10 and n = 3)", latency_ratio),
    Claim("Abstract; Table 1", "more accurate than MSU-Net, the best before it in real time", (Contrast("main", "MSU-Net, span 2", "worse"),)),
    Claim("Table 1", "n = 4 is more accurate than n = 3", (Contrast("design", "n = 3", "worse"),)),
    Claim("Table 2", "as accurate as networks without a limit of time: ensemble of U-Nets", (Contrast("main", "Ensemble U-Net", "worse", as_good=True),)),
    Claim("Table 2", "the same: Omega-Net", (Contrast("main", "Omega-Net", "worse", as_good=True),)),
    Claim("Table 2", "the same: GridNet", (Contrast("main", "GridNet", "worse", as_good=True),)),
    Claim("Section 3", "m streams of coefficients are fast, as they run in parallel", parallel),
    Claim("Section 3", "a stream of its own for each coefficient, rather than one for all in turn", (Contrast("streams", "shared streams", "worse"),)),
    Claim("Section 3", "the same, rather than one wide U-Net over all", (Contrast("design", "independent streams, equal work", "better"),)),
    Claim(
        "Section 3", "bases and coefficients instead of features (bases as long skips)", (Contrast("main", "no ICA", "worse"), Contrast("design", "no ICA", "worse")),
    ),
    Claim("Section 3", "bases are computed from the frame alone", (Contrast("design", "bases from the frame alone", "better", as_good=True),)),
    Claim("Section 3", "the frame after helps", (Contrast("causal", "t-1 alone", "worse"),)),
    Claim("Section 3, Eq. 1", "the sparsity term helps", (Contrast("loss_terms", "S", "better"),)),
    Claim("Section 3, Eq. 1", "the independence term helps", (Contrast("loss_terms", "I", "better"),)),
    Claim("Section 3, Eq. 1", "the reconstruction term helps", (Contrast("loss_terms", "R", "better"),)),
    Claim("Section 3, Eq. 2", "outputs at coarser levels help as supervision", (Contrast("supervision", "the finest output alone", "worse"),)),
    Claim("Section 2", "an encoder trained together with the network beats an ICA by itself", (Contrast("doses", "encoder trained by Eq. 1 alone", "worse"),)),
)


def table(rows: Rows, streams: Mapping[str, Any]) -> list[list[str]]:
    """Place, claim, verdict, figures, and where these are from, of each claim."""
    return [[claim.place, claim.says, *claim.verdict(rows, streams)] for claim in CLAIMS]
