"""What a model costs: parameters, FLOPs by formula and by XLA, memory, and time.

Counts are the same on every run and belong into a table. What a clock says (``step_time``, ``compile_program``) is not,
and belongs into ``timing.json``. Arguments of a function may be arrays or the ``jax.ShapeDtypeStruct`` of
``shapes_of``: nothing but ``step_time`` runs a program.
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

# Work that a jaxpr does not show: kernels and calls out of it.
_HIDDEN = ("pallas_call", "ffi_call", "pure_callback", "io_callback", "ragged_dot", "dot_product_attention")


def count_params(params: PyTree) -> int:
    """Numbers in the leaves of a tree.

    Give ``variables["params"]`` for what is trained; the other collections (batch statistics, hashes) are buffers.
    Arrays of several seeds have a leading axis: take one seed first.
    """
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))


def fusion_params(params: PyTree, name: str = "fusion") -> int:
    """Parameters of the part called ``name``, wherever it stands in the tree; 0 where it has none.

    Projections and stems that a fusion owns count as its own.
    """
    if not isinstance(params, Mapping):
        return 0
    return sum(count_params(part) if key == name else fusion_params(part, name) for key, part in params.items())


def shapes_of(tree: PyTree, rows: int | None = None) -> PyTree:
    """Shapes and dtypes in place of the arrays.

    Args:
      rows: length of every leaf's first axis, as of a batch of another size; None = as it is.
    """

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        size = np.shape(leaf) if rows is None else (rows, *np.shape(leaf)[1:])
        return jax.ShapeDtypeStruct(size, leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf))

    return jax.tree.map(shape, tree)


class Contractions(NamedTuple):
    """FLOPs of a function's contractions.

    Attributes:
      flops: two for a multiplication and its addition; None where the number cannot be known beforehand.
      note: why it is None; else empty.
    """

    flops: int | None
    note: str = ""


class _Unknown(Exception):
    """The reason why work cannot be counted."""


def count_contractions(function: Callable, *args: Any) -> Contractions:
    """FLOPs of the matrix products and convolutions in a function's jaxpr, two for each multiplication and addition.

    The body of a scan counts as often as it runs, which XLA's own count does not do, so recurrent models have a number.
    Of the branches of a condition the dearest counts. A convolution counts each tap at each position of its output, as
    the textbook does, taps on padding included; the holes that a stride leaves in a derivative do not count.

    Not counted: elementwise work (activations, norms, softmax, a product summed by hand), Fourier transforms, sorting
    and matrix decompositions. Not known, so None: products in a ``while`` loop, whose turns are known only when it
    runs, and kernels or calls out of the program.

    Args:
      function: as it would be compiled; jitted, rematerialised and custom derivatives are looked into.
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
    """FLOPs of what the results need: XLA drops the rest, such as the forward pass of a derivative asked for alone."""
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
            raise _Unknown("a while loop contracts, and how often it turns is known only when it runs")
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
    """What XLA says of a compiled program.

    Attributes:
      flops: its count, elementwise work included; None where the program loops, since a loop's body counts once there.
      bytes_accessed: read and written by its operations; None likewise.
      peak_bytes: most memory held at once, arguments included; None where XLA does not say.
    """

    flops: float | None
    bytes_accessed: float | None
    peak_bytes: int | None


def xla_cost(function: Callable, *args: Any, compiler_options: Mapping[str, Any] | None = None) -> XlaCost:
    """XLA's count for a function, compiled for the current device; it differs from the formula (fusion, elementwise).

    Args:
      function: a forward pass or a train step.
      args: arrays or their shapes, of one example or of a batch.
      compiler_options: of ``jax.jit``; ``mmjax.training.compile_effort(0)`` compiles a large model in haste.
    """
    compiled, _ = compile_program(function, *args, compiler_options=compiler_options)
    return read_compiled(compiled, loops=_loops(jax.make_jaxpr(function)(*args).jaxpr))


class Flops(NamedTuple):
    """FLOPs of a program, counted two ways; None where a way does not know.

    Attributes:
      formula: of ``flops_by_formula``.
      xla: XLA's count before it optimises, elementwise work included; None where the program loops.
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
    return Flops(formula, _counted((counts or {}).get("flops")))


def _loops(jaxpr: Any) -> bool:
    """Whether a program's own code loops; a random number's does on a CPU, and hardly counts."""
    return any(
        equation.primitive.name in ("scan", "while") or any(_loops(inner) for inner in _inner(equation.params))
        for equation in jaxpr.eqns
    )


def read_compiled(compiled: Any, loops: bool | None = None) -> XlaCost:
    """XLA's count for a program that is compiled already (``jax.stages.Compiled``).

    Args:
      loops: whether it loops, so that the count says nothing; None = whether any loop, that of a random number
        included, stands in it.
    """
    counts = compiled.cost_analysis() or {}
    loops = " while(" in (compiled.as_text() or "") if loops is None else loops
    flops, accessed = (None if loops else _counted(counts.get(key)) for key in ("flops", "bytes accessed"))
    memory = compiled.memory_analysis()
    peak = getattr(memory, "peak_memory_in_bytes", 0) if memory is not None else 0
    return XlaCost(flops, accessed, int(peak) or None)


def _counted(value: Any) -> float | None:
    """A count; XLA says -1 where it does not know."""
    return None if value is None or value < 0 else float(value)


def compile_program(
    function: Callable, *args: Any, compiler_options: Mapping[str, Any] | None = None
) -> tuple[Any, float]:
    """The compiled program (``jax.stages.Compiled``) and the seconds that tracing and compiling it took."""
    jitted = function if hasattr(function, "lower") and not compiler_options else jax.jit(function)
    clock = time.perf_counter()
    compiled = jitted.lower(*args).compile(compiler_options=dict(compiler_options) if compiler_options else None)
    return compiled, time.perf_counter() - clock


class StepTime(NamedTuple):
    """Milliseconds of a step: the median and the 90th percentile."""

    median_ms: float
    p90_ms: float


def step_time(program: Callable, *args: Any, warmup: int = 10, steps: int = 50, carry: bool = False) -> StepTime:
    """How long a compiled program takes, each call timed until its result is there.

    On a CPU run nothing beside it: two jobs slow each other down twofold. The numbers differ from run to run.

    Args:
      program: compiled or jitted; compiling must be over after the warm-up.
      args: arrays.
      warmup: calls that are not timed.
      steps: calls that are.
      carry: the first result is the next call's first argument, as a train step with a donated state needs.

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
    """Most memory that this process held on a device so far; None on a CPU, where JAX does not count.

    Args:
      device: None = the first.
    """
    stats = (device or jax.devices()[0]).memory_stats()
    return None if not stats else int(stats["peak_bytes_in_use"])


def epochs_to_target(curve: Float[np.ndarray, " epochs"] | Sequence[float], share: float = 0.99) -> int:
    """The first epoch, counted from 1, that reaches ``share`` of the last score; higher is better and above 0.

    Times the seconds of an epoch it is the time to target.

    Raises:
      UsageError: no curve, or a last score that is not above 0 (an error, a loss): there is no share of it.
    """
    values = np.asarray(curve, np.float64)
    if values.ndim != 1 or not values.size or not values[-1] > 0:
        raise UsageError(f"a share of the last score needs scores [epochs] that end above 0, got {values.tolist()}")
    return int(np.argmax(values >= share * values[-1])) + 1
