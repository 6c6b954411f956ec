"""Cost of a model: parameters, FLOPs by formula and by XLA, memory, and time.

Counts are deterministic and belong in a table; clock times (``step_time``, ``compile_program``) belong in
``timing.json``. Arguments of a function may be arrays or the ``jax.ShapeDtypeStruct`` of ``shapes_of``: only
``step_time`` runs a program.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Float, Mapping, PyTree

__all__ = [
    "Contractions",
    "Flops",
    "StepTime",
    "XlaCost",
    "compile_program",
    "count_contractions",
    "count_params",
    "count_program",
    "device_peak_bytes",
    "epochs_to_target",
    "flops_by_formula",
    "fusion_params",
    "read_compiled",
    "shapes_of",
    "step_time",
    "xla_cost",
]

# Primitives whose work a jaxpr does not show: kernels and callbacks.
_HIDDEN = ("pallas_call", "ffi_call", "pure_callback", "io_callback", "ragged_dot", "dot_product_attention")


def count_params(params: PyTree) -> int:
    """Number of elements in the leaves of a tree.

    Pass ``variables["params"]`` for trained parameters; the other collections (batch statistics, hashes) are buffers.
    Arrays of several seeds have a leading axis: take one seed first.
    """
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))


def fusion_params(params: PyTree, name: str = "fusion") -> int:
    """Parameters of the parts called ``name`` anywhere in the tree, with their projections and stems; 0 without such a
    part.
    """
    if not isinstance(params, Mapping):
        return 0
    return sum(count_params(part) if key == name else fusion_params(part, name) for key, part in params.items())


def shapes_of(tree: PyTree, rows: int | None = None) -> PyTree:
    """Shapes and dtypes of the arrays.

    Args:
      rows: length of every leaf's first axis, for a batch of another size; None = unchanged.
    """

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        size = np.shape(leaf) if rows is None else (rows, *np.shape(leaf)[1:])
        return jax.ShapeDtypeStruct(size, leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf))

    return jax.tree.map(shape, tree)


class Contractions(NamedTuple):
    """FLOPs of a function's contractions.

    Attributes:
      flops: two for a multiplication and its addition; None if the number depends on the run.
      note: why it is None; else empty.
    """

    flops: int | None
    note: str = ""


class _Unknown(Exception):
    """Why the work cannot be counted."""


def count_contractions(function: Callable, *args: Any) -> Contractions:
    """FLOPs of the matrix products and convolutions in a function's jaxpr, two for each multiplication and addition.

    The body of a scan counts once per iteration (XLA counts it once), of a condition the most expensive branch. A
    convolution counts each tap at each output position, taps on padding included; the holes that a stride leaves in a
    derivative do not count.

    Not counted: elementwise work (activations, norms, softmax, a product summed by hand), Fourier transforms, sorting
    and matrix decompositions. None for products in a ``while`` loop, whose iterations are unknown, and for kernels and
    callbacks.

    Args:
      function: as it would be compiled; jit, remat and custom derivatives are followed.
      args: arrays or their shapes.
    """
    try:
        return Contractions(_count(jax.make_jaxpr(function)(*args).jaxpr))
    except _Unknown as error:
        return Contractions(None, str(error))


def flops_by_formula(function: Callable, *args: Any) -> int | None:
    """``count_contractions(function, *args).flops``: multiplications and additions of products, or None."""
    return count_contractions(function, *args).flops


def _count(jaxpr: Any) -> int:
    """FLOPs of equations that the results need; XLA drops the rest, such as the forward pass of a derivative alone."""
    total, needed = 0, set(map(id, jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in needed for variable in equation.outvars):
            total += _count_equation(equation)
            needed.update(map(id, equation.invars))
    return total


def _count_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return 2 * _dot_macs(equation)
    if name == "conv_general_dilated":
        return 2 * _conv_macs(equation)
    if name.startswith(_HIDDEN):
        raise _Unknown(f"{name} hides its work")
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr)
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    if name == "while":
        if _count(params["body_jaxpr"].jaxpr) + _count(params["cond_jaxpr"].jaxpr):
            raise _Unknown("a while loop contracts, and its number of iterations is known only when it runs")
        return 0
    if name == "custom_linear_solve":  # its other functions serve derivatives
        return _count(params["jaxprs"].solve.jaxpr)
    if name == "shard_map":  # its body is one device's share
        axes = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
        return math.prod(params["mesh"].shape[axis] for axis in axes) * _count(params["jaxpr"])
    return sum(_count(inner) for inner in _inner(params))


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
    """Jaxprs among the parameters of a call: jit, remat, custom derivatives."""
    for value in jax.tree.leaves(params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner


def _dot_macs(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _conv_macs(equation: Any) -> int:
    params, kernel, out = equation.params, equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    macs = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]]
    for axis, (stride, (low, _), hole, reach) in enumerate(
        zip(params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"])
    ):
        positions = stride * np.arange(out[numbers.out_spec[2 + axis]])[:, None]
        taps = reach * np.arange(kernel[numbers.rhs_spec[2 + axis]])
        macs *= int(((positions + taps - low) % hole == 0).sum())
    return macs


class XlaCost(NamedTuple):
    """XLA's analysis of a compiled program.

    Attributes:
      flops: elementwise work included; None for a program with loops, whose bodies XLA counts once.
      bytes_accessed: read and written by its operations; None likewise.
      peak_bytes: peak memory, arguments included; None if XLA does not report it.
    """

    flops: float | None
    bytes_accessed: float | None
    peak_bytes: int | None


def xla_cost(function: Callable, *args: Any, compiler_options: Mapping[str, Any] | None = None) -> XlaCost:
    """XLA's analysis of a function compiled for the current device; it differs from the formula (fusion, elementwise).

    Args:
      function: a forward pass or a train step.
      args: arrays or their shapes, of one example or of a batch.
      compiler_options: of ``jax.jit``; ``mmjax.training.compile_effort(0)`` compiles a large model fast.
    """
    compiled, _ = compile_program(function, *args, compiler_options=compiler_options)
    return read_compiled(compiled, loops=_loops(jax.make_jaxpr(function)(*args).jaxpr))


class Flops(NamedTuple):
    """FLOPs of a program, counted two ways; None if unknown.

    Attributes:
      formula: of ``flops_by_formula``.
      xla: XLA's count before optimisation, elementwise work included; None for a program with loops.
    """

    formula: int | None
    xla: float | None


def count_program(function: Callable, *args: Any) -> Flops:
    """Both counts from one trace, without compiling.

    Args:
      function: a forward pass or a train step.
      args: arrays or their shapes.
    """
    traced = jax.jit(function).trace(*args)
    jaxpr = traced.jaxpr.jaxpr
    try:
        formula = _count(jaxpr)
    except _Unknown:
        formula = None
    counts = None if _loops(jaxpr) else traced.lower().cost_analysis()
    return Flops(formula, _valid((counts or {}).get("flops")))


def _loops(jaxpr: Any) -> bool:
    """Whether a program's own code loops; random numbers, which loop on a CPU, do not count."""
    return any(
        equation.primitive.name in ("scan", "while") or any(_loops(inner) for inner in _inner(equation.params))
        for equation in jaxpr.eqns
    )


def read_compiled(compiled: Any, loops: bool | None = None) -> XlaCost:
    """XLA's analysis of a compiled program (``jax.stages.Compiled``).

    Args:
      loops: whether it loops, which makes the counts useless; None = whether its text has a loop, those of random
        numbers included.
    """
    counts = compiled.cost_analysis() or {}
    loops = " while(" in (compiled.as_text() or "") if loops is None else loops
    flops, accessed = (None if loops else _valid(counts.get(key)) for key in ("flops", "bytes accessed"))
    memory = compiled.memory_analysis()
    peak = getattr(memory, "peak_memory_in_bytes", 0) if memory is not None else 0
    return XlaCost(flops, accessed, int(peak) or None)


def _valid(value: Any) -> float | None:
    """A count; XLA reports -1 for unknown."""
    return None if value is None or value < 0 else float(value)


def compile_program(
    function: Callable, *args: Any, compiler_options: Mapping[str, Any] | None = None
) -> tuple[Any, float]:
    """The compiled program (``jax.stages.Compiled``) and the seconds of tracing and compiling."""
    jitted = function if hasattr(function, "lower") and not compiler_options else jax.jit(function)
    clock = time.perf_counter()
    compiled = jitted.lower(*args).compile(compiler_options=dict(compiler_options) if compiler_options else None)
    return compiled, time.perf_counter() - clock


class StepTime(NamedTuple):
    """Milliseconds of a step: the median and the 90th percentile."""

    median_ms: float
    p90_ms: float


def step_time(program: Callable, *args: Any, warmup: int = 10, steps: int = 50, carry: bool = False) -> StepTime:
    """Time of a compiled program, each call timed until its result is ready.

    On a CPU run nothing beside it: two jobs slow each other down twofold.

    Args:
      program: compiled or jitted; the warm-up must include all compilation.
      args: arrays.
      warmup: calls before timing.
      steps: timed calls.
      carry: the first result becomes the next call's first argument, as a train step with a donated state needs.

    Raises:
      UsageError: no step to time.
    """
    if steps < 1 or warmup < 0:
        raise UsageError(f"step_time needs steps from 1 up and a warm-up from 0 up, got {steps=}, {warmup=}")
    seconds = []
    for _ in range(warmup + steps):
        clock = time.perf_counter()
        result = jax.block_until_ready(program(*args))
        seconds.append(time.perf_counter() - clock)
        if carry:
            args = (result[0], *args[1:])
    median, p90 = 1e3 * np.quantile(seconds[warmup:], [0.5, 0.9])
    return StepTime(float(median), float(p90))


def device_peak_bytes(device: Any = None) -> int | None:
    """Peak memory of this process on a device so far; None on a CPU, where JAX does not report it.

    Args:
      device: None = the first.
    """
    stats = (device or jax.devices()[0]).memory_stats()
    return None if not stats else int(stats["peak_bytes_in_use"])


def epochs_to_target(curve: Float[np.ndarray, " epochs"] | Sequence[float], share: float = 0.99) -> int:
    """The first epoch, counted from 1, that reaches ``share`` of the last score; higher is better and above 0.

    Multiplied by the seconds of an epoch it is the time to target.

    Raises:
      UsageError: no curve, or a last score not above 0 (an error, a loss).
    """
    values = np.asarray(curve, np.float64)
    if values.ndim != 1 or not values.size or not values[-1] > 0:
        raise UsageError(f"a share of the last score needs scores [epochs] that end above 0, got {values.tolist()}")
    return int(np.argmax(values >= share * values[-1])) + 1
