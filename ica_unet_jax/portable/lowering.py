"""A traced JAX function as an ONNX graph: what depends on no input is computed, each operation that is left becomes a node or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from ica_unet_jax.errors import UserError
from ica_unet_jax.portable.elementwise import Value
from ica_unet_jax.portable.graph import Graph
from ica_unet_jax.portable.layout import Tensor
from ica_unet_jax.portable.products import Products

UNARY = {
    "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "floor": "Floor",
    "round": "Round", "sin": "Sin", "cos": "Cos", "erf": "Erf", "not": "Not", "sign": "Sign",
}  # fmt: skip
BINARY = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "lt": "Less", "gt": "Greater",
    "le": "LessOrEqual", "ge": "GreaterOrEqual", "eq": "Equal", "and": "And", "or": "Or",
}  # fmt: skip
REDUCES = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"}
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")


def lower(graph: Graph, function: Callable[..., Any], *arguments: Tensor) -> list[Value]:
    """Adds what `function` does with the arguments, and gives its results, leaves of the tree, as they come to lie.

    What depends on no tensor of the graph stays an array.

    Raises:
      UserError: it does something for which there is no lowering.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments]
    closed = jax.make_jaxpr(function)(*shapes)
    return _Lowering(graph).run(closed.jaxpr, closed.consts, arguments)


class _Lowering(Products):
    """A method named `_` and a primitive's name lowers it."""

    def run(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Value:
            return np.asarray(variable.val, variable.aval.dtype) if isinstance(variable, Literal) else values[variable]

        for equation in jaxpr.eqns:
            given = [read(variable) for variable in equation.invars]
            values |= dict(zip(equation.outvars, self.equation(equation, given), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def equation(self, equation: Any, given: list[Value]) -> list[Value]:
        name, parameters = equation.primitive.name, equation.params
        if name in CALLS:
            inner = parameters.get("jaxpr") or parameters["call_jaxpr"]
            if parameters.get("name") == "leaky_relu" and isinstance(given[0], Tensor):
                return [self.made("LeakyRelu", given[0], alpha=float(given[1]))]
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        if not any(isinstance(x, Tensor) for x in given):
            found = equation.primitive.bind(*map(jax.numpy.asarray, given), **parameters)
            return [np.asarray(x) for x in (found if equation.primitive.multiple_results else [found])]
        method = getattr(self, f"_{name}", None)
        if method is None and name in UNARY:
            return [self.made(UNARY[name], given[0])]
        if method is None and name in BINARY:
            return [self.elementwise(BINARY[name], given, equation.outvars[0].aval.dtype)]
        if method is None and name in REDUCES:
            return [self.reduce(REDUCES[name], given[0], parameters["axes"])]
        if method is None:
            raise UserError(f"This network cannot be written as ONNX: there is no lowering of `{name}`. Export it with --format=jax.")
        found = method(*given, **parameters)
        return found if isinstance(found, list) else [found]
