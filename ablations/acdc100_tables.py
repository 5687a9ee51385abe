"""Tables of docs/results/acdc100.md: effects of parts, differences during training and how networks were trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from ablations import acdc100
from ica_unet_jax.reporting.markup import number, plain_table
from ica_unet_jax.sweeps import segmentation, statistics


def by_step(name: str) -> str:
    """The effects of a factorial, or the differences to the reference, at each validation; intervals of each alone."""
    if not (found := acdc100.study(name)):
        return acdc100.NOT_FINISHED
    lines = [line for line in found.lines if not line.state and bool(found.factors) <= bool(line.levels)]
    curves = [acdc100.curves(name, line) for line in lines]
    steps = _steps(curves)
    if len(lines) < 2 or not steps:
        return acdc100.NOT_FINISHED
    if found.factors:
        effects = statistics.factorial(np.array([line.levels for line in lines]))
        weights = {f"{found.factors[place]}, {acdc100.TERMS[found.factors[place]]}": effects[place,] for place in range(len(found.factors))}
    else:
        rivals = [line for line in lines if not line.is_reference]
        weights = dict(zip((line.title for line in rivals), statistics.against(len(lines), lines.index(found.reference)), strict=True))
    columns = []
    for step in steps:
        table = np.array([[curve[step] for curve in of_cell] for of_cell in curves])
        alike = np.array([line.title not in found.far for line in lines])
        columns.append(statistics.contrasts(table, np.array(list(weights.values())), alike=alike))
    heads = ["Effect" if found.factors else "Network", *(f"step {step}" for step in steps)]
    rows = [[title, *(acdc100.change(one) for one in row)] for title, row in zip(weights, zip(*columns, strict=True), strict=True)]
    turned = [title for title, row in zip(weights, zip(*columns, strict=True), strict=True) if len({one.difference > 0 for one in row}) > 1]
    words = f"The sign changes during training of: {', '.join(turned)}." if turned else "No difference changes its sign."
    return f"{plain_table(heads, rows, [False, *[True] * len(steps)])}\n\n{words}"


def terms_of_folds() -> str:
    """The smallest effect that could have been decided of the terms of the loss, and their effects in each fold."""
    if not (found := acdc100.study("loss_terms")) or not found.factors:
        return acdc100.NOT_FINISHED
    lines = [line for line in found.lines if line.levels]
    table = acdc100.table(lines)
    effects = statistics.factorial(np.array([line.levels for line in lines]))
    each = [f"{letter} {', '.join(number(value, 3, signed=True) for value in effects[place,] @ table)}" for place, letter in enumerate(found.factors)]
    return f"{segmentation.limits(found)} In each fold: {'; '.join(each)}."


def design() -> str:
    """Each part of the recommended network taken out or the other way round."""
    if not (found := acdc100.study("design")):
        return acdc100.NOT_FINISHED
    said = acdc100.beside("design", [line.title for line in found.lines if not line.is_reference])
    after = segmentation.limits(found), acdc100.between("design", *acdc100.STREAMS), acdc100.if_all_shared("design")
    heads = ["Network", "Parameters (M)", "GFLOP a frame", "ms", *acdc100.COMPARED]
    size = [[number(1e-6 * line.cell.parameters, 2), number(line.cell.gflop, 2), number(line.frame_ms, 0)] for line in found.lines]
    rows = [[line.title, *of_cell, *acdc100.compared(found, line)] for line, of_cell in zip(found.lines, size, strict=True)]
    return f"{said}\n\n{plain_table(heads, rows, [False, *[True] * 6, False])}\n\n{' '.join(filter(None, after))}"


def _steps(curves: Sequence[Sequence[dict[int, float]]]) -> list[int]:
    """Those at which all were validated."""
    return sorted(set.intersection(*(set(curve) for of_cell in curves for curve in of_cell)))


PARTS: dict[str, Callable[[], str]] = {
    "made": functools.partial(acdc100.made, "loss_terms", "main"),
    "networks_by_step": functools.partial(by_step, "main"),
    "terms_limits": terms_of_folds,
    "terms_by_step": functools.partial(by_step, "loss_terms"),
    "design": design,
    "design_made": functools.partial(acdc100.made, "design"),
    "design_by_step": functools.partial(by_step, "design"),
}
