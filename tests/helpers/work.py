"""The work of a function, counted by reading it."""

import math

import jax
from jax.interpreters.partial_eval import dce_jaxpr


def products(jaxpr):
    """Multiply-adds of all convolutions and matrix products of a jaxpr, inner ones too; padding counts."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            left, right, out = (v.aval.shape for v in (*equation.invars, *equation.outvars))
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                count += math.prod(out) * math.prod(left[i] for i in contracted)
            else:
                outputs = right[equation.params["dimension_numbers"].rhs_spec[0]]
                inserted = math.prod(equation.params["lhs_dilation"])  # zeros between the values
                count += math.prod(out) * math.prod(right) // outputs // inserted
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
                count += products(getattr(value, "jaxpr", value))
    return count


def needed(function, *inputs):
    """`products` of what the outputs depend on."""
    jaxpr = jax.make_jaxpr(function)(*inputs).jaxpr
    return products(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def xla(function, *inputs):
    """FLOPs by XLA's own count of the program before optimisation."""
    return jax.jit(function).lower(*inputs).cost_analysis()["flops"]
