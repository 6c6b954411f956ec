"""What every fusion keeps. Exporting a module from ``mmjax.fusion`` is all it takes to be tested here.

A method is built as ``Cls(dim=8)`` over three streams that differ in length and width; ``SPECIAL`` names what else it
needs, and its other forms. One compiled value-and-gradient, mapped over seeds, serves every pattern of presence;
everything that needs no numbers is only traced. Budget: six CPU seconds a form, printed at the end of the run.
"""

import dataclasses
import itertools
import re
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mmjax.fusion
from mmjax.models import Layerwise
from mmjax.stream import Stream

DIM, BATCH, SEEDS = 8, 8, 2
WIDTHS = {"audio": 5, "text": DIM, "video": 3}
LENGTHS = {"audio": 4, "text": 3, "video": 2}
QUICK = {"xla_backend_optimization_level": 0}  # halves the time of a compilation


@dataclasses.dataclass(frozen=True)
class Case:
    """One form of a method.

    Attributes:
      fields: of the module, beside ``dim``.
      num_modalities: the first so many of audio, text and video.
      aligned: it works on aligned steps: all streams get one length, and different lengths must raise.
      side: streams that are no modality; the module names them in a field.
    """

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_modalities: int = 3
    aligned: bool = False
    side: Mapping[str, Stream] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return ",".join([*(f"{k}={v}" for k, v in self.fields.items()), *["bimodal"] * (self.num_modalities == 2)])


SPECIAL: dict[str, tuple[Case, ...]] = {
    "BottleneckFusion": (Case({"num_layers": 2, "start_layer": 0, "num_bottlenecks": 2}, num_modalities=2),),
    "DotProductAttention": (Case(), Case({"conditional": True})),
    "EarlyConcat": (Case(aligned=True),),
    "FiLMBlocks": (Case(), Case({"num_blocks": 1, "target": "audio", "shape": (2, 2)}, num_modalities=2)),
    "GMU": (Case(), Case({"normalise": True}), Case(num_modalities=2)),
    "JointTransformer": (
        Case({"num_layers": 1, "positions": True}),
        Case({"num_layers": 1, "per_modality": True, "cls_token": False}),
    ),
}
METHODS = {
    name: cls
    for name, cls in sorted(vars(mmjax.fusion).items())
    if isinstance(cls, type) and issubclass(cls, nn.Module)
}
FORMS = [pytest.param(name, case, id=f"{name}({case})") for name in METHODS for case in SPECIAL.get(name, (Case(),))]
FAMILIES = {cls.__module__.rpartition(".")[2]: name for name, cls in reversed(METHODS.items())}  # its first method


def build(name: str, case: Case) -> nn.Module:
    """The method; an exchange between two stages of nothing, then concatenated. The signature says which it is."""
    cls = METHODS[name]
    module = cls(dim=DIM, **case.fields)
    returned = typing.get_type_hints(cls.__call__).get("return")
    if returned is None:
        raise TypeError(f"annotate {name}.__call__: '-> Stream' for a fusion, '-> dict[str, Stream]' for an exchange")
    if returned is Stream:
        return module
    return Layerwise(stages=[{}], exchanges=[module], fusion=mmjax.fusion.Concat(dim=DIM))


def make_streams(case: Case, num_modalities: int | None = None) -> dict[str, Stream]:
    """Streams with padding and holes in every mask, something real in every row, and numbers everywhere."""
    rng = np.random.default_rng(0)
    streams = {}
    for i, (name, width) in enumerate(list(WIDTHS.items())[: num_modalities or case.num_modalities]):
        length = LENGTHS["audio"] if case.aligned else LENGTHS[name]
        mask = (np.arange(BATCH)[:, None] + np.arange(length) + i) % 3 != 0
        streams[name] = Stream(rng.normal(size=(BATCH, length, width)).astype(np.float32), mask)
    return streams


def every_pattern(names: list[str]) -> list[dict[str, bool]]:
    """Every way of being there or not, all present first."""
    return [dict(zip(names, there)) for there in itertools.product([True, False], repeat=len(names))]


def in_pattern(streams: Mapping[str, Stream], pattern: Mapping[str, Any]) -> dict[str, Stream]:
    return {k: s.replace(mask=s.mask & np.reshape(pattern[k], (-1, 1))) for k, s in streams.items()}


def poisoned(streams: Mapping[str, Stream], poison: float) -> dict[str, Stream]:
    return {k: s.replace(values=np.where(s.mask[..., None], s.values, np.float32(poison))) for k, s in streams.items()}


class Subject:
    """A method with parameters, and its compiled step."""

    def __init__(self, name: str, case: Case):
        self.case = case
        self.module = build(name, case)
        self.streams = make_streams(case)
        self.traces = 0
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), {**self.streams, **case.side})
        # Every parameter is drawn, for what starts at zero (a bias, a gate) would hide what it does to the padding.
        rng = np.random.default_rng(1)
        self.params = jax.tree.map(
            lambda leaf: rng.normal(0, 0.5, (SEEDS, *leaf.shape)).astype(leaf.dtype), shapes.get("params", {})
        )
        self.state = {k: v for k, v in shapes.items() if k not in ("params", "losses", "intermediates")}
        if self.state:  # hashes, running statistics: drawn by the module itself
            variables = jax.jit(self.module.init)(jax.random.key(0), {**self.streams, **case.side})
            self.state = {k: variables[k] for k in self.state}
        self.step = jax.jit(jax.vmap(self.value_and_grad, in_axes=(0, None, None)), compiler_options=QUICK)

    def apply(self, params: Any, streams: Mapping[str, Stream], *, train: bool = True) -> tuple[Stream, Any]:
        result, sown = self.module.apply(
            {"params": params, **self.state},
            {**streams, **self.case.side},
            train=train,
            rngs=jax.random.key(2),
            mutable=["intermediates", "losses", *self.state],
        )
        if not isinstance(result, Stream):
            raise TypeError(f"a fusion returns a Stream, e.g. pooled(values, present), not {type(result).__name__}")
        return result, sown

    def value_and_grad(self, params: Any, values: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
        """Everything the method says: result, weights, loss (its own losses included) and gradients."""
        self.traces += 1

        def loss(params: Any, values: Any) -> Any:
            result, sown = self.apply(params, {name: Stream(values[name], masks[name]) for name in values})
            direction = np.cos(np.arange(result.values.size)).reshape(result.values.shape)
            own = sum(leaf.mean() for leaf in jax.tree.leaves(sown.get("losses", {})))
            return (result.values * direction).sum() + own, (result, sown.get("intermediates", {}))

        (total, (result, reported)), (by_params, by_values) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
            params, values
        )
        return {"loss": total, "result": result, "reported": reported, "params": by_params, "values": by_values}

    def run(self, streams: Mapping[str, Stream]) -> dict[str, Any]:
        values = {name: stream.values for name, stream in streams.items()}
        return jax.device_get(self.step(self.params, values, {name: stream.mask for name, stream in streams.items()}))


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by their path, ``params/project_audio/kernel``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def names_in(path: str) -> set[str]:
    """The modalities that a parameter's path spells: audio and text of ``audio_to_text/query``."""
    return set(re.split(r"[^a-z]", path)) & set(WIDTHS)


@pytest.mark.parametrize("name, case", FORMS)
def test_contract(name: str, case: Case) -> None:
    subject = Subject(name, case)
    patterns = every_pattern(list(subject.streams))
    outcomes = [subject.run(in_pattern(subject.streams, pattern)) for pattern in patterns]
    for pattern, outcome in zip(patterns, outcomes):
        check_nothing_masked_matters(subject, pattern, outcome)
        check_absence(subject, pattern, outcome)
        check_weights(pattern, outcome)
    check_rows_mix(subject, patterns, outcomes)
    check_parameters_are_named(patterns, outcomes)
    check_order_eager_and_one_seed(subject, outcomes[0])
    assert subject.traces == 1, f"{subject.traces} traces for {len(patterns)} patterns of presence, one must serve all"
    check_shapes(name, case)


def check_nothing_masked_matters(subject: Subject, pattern: Mapping[str, bool], outcome: Any) -> None:
    """Point 1: whatever stands in padding and absent modalities, no bit of result, weights or gradient changes."""
    for poison in (np.nan, 1e3):
        other = leaves(subject.run(poisoned(in_pattern(subject.streams, pattern), poison)))
        for path, leaf in leaves(outcome).items():
            assert leaf.tobytes() == other[path].tobytes(), f"{path} changed with {poison} where masked, {pattern}"


def check_absence(subject: Subject, pattern: Mapping[str, bool], outcome: Any) -> None:
    """Point 2: finite whatever is missing; what is absent gets no gradient, nor does what sees only it."""
    for path, leaf in leaves(outcome).items():
        assert np.isfinite(leaf).all(), f"{path} is not finite, {pattern}"
    for name, stream in in_pattern(subject.streams, pattern).items():
        assert not outcome["values"][name][:, ~stream.mask].any(), f"gradient to masked values of {name}, {pattern}"
    for path, leaf in leaves(outcome["params"]).items():
        gone = {name for name in names_in(path) if not pattern[name]}
        assert not (gone and leaf.any()), f"gradient to {path} though {gone} is absent, {pattern}"
    result = outcome["result"]
    assert not result.values[~result.mask].any(), f"the result is not zero where it is masked, {pattern}"
    assert result.mask.any() or not all(pattern.values()), "all are present, and the result is masked"
    assert not result.mask.any() or any(pattern.values()), "all are absent, and the result is not masked"
    if result.mask.shape[-1] == 1:
        assert (result.mask == any(pattern.values())).all(), f"a pooled result is real if anything is, {pattern}"


def check_weights(pattern: Mapping[str, bool], outcome: Any) -> None:
    """Point 6: weights sum to 1 over the last axis, or are 0 where there is nothing; gates lie between 0 and 1."""
    there = np.asarray([pattern[name] for name in sorted(pattern)])
    for path, leaf in leaves(outcome["reported"]).items():
        if re.search("_(weights|gates)/", path):
            assert (leaf >= 0).all() and (leaf <= 1 + 1e-6).all(), f"{path} leaves [0, 1], {pattern}"
        if "_weights/" in path:
            total = leaf.sum(-1)
            np.testing.assert_allclose(total, (total > 0.5).astype(np.float32), atol=1e-5, err_msg=path)
        if "modality_" in path:  # [seed, batch, modality, ...]
            by_modality = np.moveaxis(leaf, 2, 0)
            assert not by_modality[~there].any(), f"{path}: weight on an absent modality, {pattern}"
            assert by_modality[there].any() or not there.any(), f"{path}: no weight on anything, {pattern}"


def check_rows_mix(subject: Subject, patterns: list[dict[str, bool]], outcomes: list[Any]) -> None:
    """Point 3: in one batch every row may have its own pattern, and has what a batch of that pattern gives it."""
    rows = np.arange(BATCH) % len(patterns)
    mixed = {name: np.asarray([patterns[row][name] for row in rows]) for name in subject.streams}
    result = subject.run(in_pattern(subject.streams, mixed))["result"]
    for i, row in enumerate(rows):
        alone = outcomes[row]["result"]
        np.testing.assert_array_equal(result.mask[:, i], alone.mask[:, i])
        np.testing.assert_allclose(result.values[:, i], alone.values[:, i], rtol=1e-5, atol=1e-5)


def check_parameters_are_named(patterns: list[dict[str, bool]], outcomes: list[Any]) -> None:
    """Point 4: a parameter that learns from one modality alone, and never without it, carries its name."""
    learning = [{path for path, leaf in leaves(o["params"]).items() if leaf.any()} for o in outcomes]
    for name in patterns[0]:
        alone = learning[patterns.index({other: other == name for other in patterns[0]})]
        without = [paths for pattern, paths in zip(patterns, learning) if paths and not pattern[name]]
        for path in alone.difference(*without) if without else ():
            assert name in names_in(path), f"{path} sees only {name} and must be named after it"
        needless = [path for path in alone if f"project_{name}" in path and WIDTHS[name] == DIM]
        assert not needless, f"{name} is {DIM} wide and needs no projection"


def check_order_eager_and_one_seed(subject: Subject, outcome: Any) -> None:
    """Points 3 and 5: the dict reversed, not compiled, one seed: the same result as the first of the mapped seeds."""
    params, expected = jax.tree.map(lambda leaf: leaf[0], (subject.params, outcome["result"]))
    backwards = {name: jax.tree.map(jnp.asarray, subject.streams[name]) for name in reversed(subject.streams)}
    result, _ = subject.apply(params, backwards)
    np.testing.assert_array_equal(result.mask, expected.mask)
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-5, atol=1e-5)


def check_shapes(name: str, case: Case) -> None:
    """Points 4 and 5, traced only: the number of modalities, their lengths, the type of the computation."""
    module = build(name, case)

    def outline(streams: Mapping[str, Stream]) -> tuple[Stream, Any]:
        return jax.eval_shape(module.init_with_output, jax.random.key(0), {**streams, **case.side})

    for num_modalities in {1, 2, 3} - {case.num_modalities}:
        try:
            result, _ = outline(make_streams(case, num_modalities))
        except ValueError as error:
            assert re.search(r"modalit|stream", str(error)), f"the error must say what is accepted, not {error}"
        else:
            assert result.values.shape[-1] == DIM
    if case.aligned:
        with pytest.raises(ValueError, match="length"):
            outline(make_streams(dataclasses.replace(case, aligned=False)))
    half = {k: s.replace(values=s.values.astype(jnp.bfloat16)) for k, s in make_streams(case).items()}
    result, variables = outline(half)
    assert result.values.dtype == jnp.bfloat16, f"bfloat16 in gave {result.values.dtype}"
    assert {leaf.dtype for leaf in jax.tree.leaves(variables.get("params", {}))} <= {jnp.dtype("float32")}


@pytest.fixture(scope="module", params=FAMILIES, ids=[f"{file}-{name}" for file, name in FAMILIES.items()])
def family(request: pytest.FixtureRequest) -> Subject:
    """The first method of each file, for what is tested once a family."""
    name = FAMILIES[request.param]
    return Subject(name, SPECIAL.get(name, (Case(),))[0])


def test_family_sharded_equals_single_device(family: Subject) -> None:
    """Point 5: the batch over eight devices gives the loss and the gradients of one."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    replicated, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    patterns = every_pattern(list(family.streams))
    rows_of = [patterns[row % len(patterns)] for row in range(BATCH)]
    streams = in_pattern(family.streams, {n: np.asarray([p[n] for p in rows_of]) for n in family.streams})
    values, masks = ({n: getattr(s, field) for n, s in streams.items()} for field in ("values", "mask"))
    step = jax.jit(family.value_and_grad, in_shardings=(replicated, rows, rows), compiler_options=QUICK)
    sharded = leaves(step(jax.tree.map(lambda leaf: leaf[0], family.params), values, masks))
    for path, expected in leaves(family.run(streams)).items():
        np.testing.assert_allclose(sharded[path], expected[0], rtol=1e-4, atol=1e-5, err_msg=path)


def test_family_computes_in_bfloat16(family: Subject) -> None:
    """Point 5: bfloat16 in, the float32 result to its rounding out."""

    def predict(params: Any, streams: Mapping[str, Stream]) -> Stream:
        return family.apply(params, streams, train=False)[0]

    params = jax.tree.map(lambda leaf: leaf[0], family.params)
    half = {k: s.replace(values=s.values.astype(jnp.bfloat16)) for k, s in family.streams.items()}
    result = jax.jit(predict, compiler_options=QUICK)(params, half)
    expected = family.run(family.streams)["result"].values[0]
    assert result.values.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.values.astype(np.float32), expected, atol=0.05 * np.abs(expected).max())
