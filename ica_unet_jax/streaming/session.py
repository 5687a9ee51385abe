"""A live session: a scanner in its own thread, a segmenter in this one, and a count of what came out."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ica_unet_jax.data.case import Case
from ica_unet_jax.errors import UserError
from ica_unet_jax.inference import options, segmenters, turning
from ica_unet_jax.runs import provenance
from ica_unet_jax.runs.trained import Trained, find
from ica_unet_jax.runtime.compilation import Compilations
from ica_unet_jax.runtime.files import check_place, write_json
from ica_unet_jax.runtime.interruption import Interruption
from ica_unet_jax.streaming.recorder import Recorder
from ica_unet_jax.streaming.scanner import FrameQueue, Scanner, Shot, at_rate, open_source, with_faults
from ica_unet_jax.streaming.segmenter import Answer, Result, StreamingSegmenter
from ica_unet_jax.streaming.tally import Tally
from ica_unet_jax.streaming.view import LiveView

# Called after each frame with what was answered, and (dz, dy, dx) in mm. It has to return at once.
Show = Callable[[Tally, Sequence[Answer], tuple[float, float, float]], None]


def play(
    segmenter: StreamingSegmenter,
    shots: Iterable[Shot],
    *,
    queue_size: int = 2,
    deadline_ms: float = 50.0,
    clock: Callable[[], float] = time.perf_counter,
    stopped: threading.Event | None = None,
    watch: Callable[[Tally, Sequence[Answer]], None] = lambda tally, answers: None,
) -> Tally:
    """Plays a scanner's shots against a segmenter until they end, or `stopped` is set.

    Args:
      segmenter: whose clock is `clock`.
      shots: (seconds after the start, frame).
      queue_size: frames that may wait; when one more comes, the oldest is dropped.
      deadline_ms: later answers, counted from arrival, are deadline misses.
      watch: called after each frame, and at the end, with the tally and what was answered.
    """
    queue, tally = FrameQueue(queue_size), Tally(deadline_ms)
    scanner = Scanner(shots, queue, clock, stopped)
    waiting: dict[int, np.ndarray] = {}  # frames, for their answers, by number

    def done(results: Sequence[Result]) -> None:
        for result in results:
            tally.add(result)
        tally.look_at_memory(clock() - began)
        tally.frames, tally.dropped, tally.compilations = scanner.frames, queue.dropped, compilations.count
        watch(tally, [(waiting.pop(result.number), result) for result in results])

    began = clock()
    with Compilations() as compilations:
        scanner.start()
        try:
            for handover in queue:
                results, waiting[handover.number] = [], handover.frame
                try:
                    results = segmenter.push(handover.frame, handover.time_stamp, handover.number)
                except UserError as error:
                    del waiting[handover.number]
                    tally.refuse(error)
                done(results)
            done(segmenter.flush())
        finally:
            scanner.finish()
    return tally


def stream(
    network: str | Path | Trained,
    source: str | Path,
    *,
    rate: float = 22.0,
    seconds: float = 60.0,
    queue_size: int = 2,
    deadline_ms: float = 50.0,
    json_file: str | Path = "",
    gif: str | Path = "",
    faults: bool = False,
    show: Show = lambda tally, answers, spacing: None,
    **given: Any,
) -> dict[str, Any]:
    """Plays a cine or a phantom at a given rate against a trained model, shows it, and returns the summary.

    A signal ends it early, and "interrupted" in the summary names it: all else is of the frames until then.

    Args:
      network: as `trained.find` finds it.
      source: 4D NIfTI file, or "phantom"; repeated for as long as asked.
      rate: frames a second.
      seconds: for so long.
      queue_size, deadline_ms: as in `play`.
      json_file: the summary goes there, if named.
      gif: a picture of the last three seconds goes there, if named.
      faults: plays also what scanners do wrong, see `scanner.with_faults`.
      show: see `Show`; as a page has it.
      given: options of `options.STREAM`; `runtime` is auto unless given.

    Raises:
      UserError: no such network, no readable cine, a file that cannot be written.
    """
    if gif and Path(gif).suffix != ".gif":
        raise UserError(f"--gif={gif} is no GIF: name a file that ends in .gif.")
    for file in filter(None, (json_file, gif)):
        check_place(file)
    chosen = options.choose(options.STREAM, options.REAL_TIME | given)
    trained, made_by = find(network), provenance.this_process()  # of the code as it is loaded now: a stream may run for hours
    segmenter = segmenters.load_as(trained, chosen)
    window = chosen.seen_through(segmenter.config.data)
    codes = turning.codes_for(trained, segmenter.config.data, chosen)
    frames, spacing = open_source(source, segmenter.config, rate, larger=window == "follow", codes=codes)
    if str(source) != "phantom" and (told := turning.remark(trained, [Case(Path(source).name, cine=Path(source))], codes)):
        print(f"note: {told}", file=sys.stderr)
    live = StreamingSegmenter(segmenter, frames.shape[1:], spacing, window=window)
    recorder = Recorder(round(3 * rate)) if gif else None
    with LiveView() as view:

        def watch(tally: Tally, answers: Sequence[Answer]) -> None:
            view.update(tally)
            show(tally, answers, spacing)
            if recorder:
                recorder.add(answers)

        shots, stopped = at_rate(frames, rate, seconds), threading.Event()
        shots = with_faults(shots, rate) if faults else shots
        with Interruption(stopped.set) as asked:
            asked.hold("the summary is written")
            tally = play(live, shots, watch=watch, queue_size=queue_size, deadline_ms=deadline_ms, stopped=stopped)
    summary = tally.summary() | {
        "interrupted": signal.Signals(asked.received).name if asked.received else "",
        "rate": rate,
        "seconds": seconds,
        "faults": faults,
        "queue": queue_size,
        "input": str(source),
        "shape": list(frames.shape[1:]),
        "window": window,
        "turned_to": codes,
        "spacing_mm": [round(float(step), 4) for step in spacing],
        "model": {"crop": list(segmenter.config.model.crop), "neighbours": segmenter.config.model.neighbours},
        "checkpoint": chosen.checkpoint,
        "checkpoint_step": segmenter.step,
        "runtime": segmenter.runtime,
        "compute_dtype": segmenter.config.model.compute_dtype,
        "provenance": made_by,
    }
    if json_file:
        write_json(json_file, summary)
    if recorder:
        recorder.save(gif, spacing, rate)
    return summary
