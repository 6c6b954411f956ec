import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.encoders.convolution import convolve
from mmjax.errors import UsageError
from mmjax.evaluation.measures.cost import (
    compile_program,
    count_contractions,
    count_params,
    count_program,
    device_peak_bytes,
    epochs_to_target,
    flops_by_formula,
    fusion_params,
    read_compiled,
    shapes_of,
    step_time,
    xla_cost,
)
from mmjax.fusion import AdditiveAttention, Concat
from mmjax.layers import GRU, LSTM, MLP, TransformerBlock
from mmjax.stream import Stream
from mmjax.training import compile_effort, init_state, make_train_step
from tests.toy import CLASSES, MODEL, SPLITS, TASK, WIDTHS

HASTE = compile_effort(0)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def bools(*shape):
    return jax.ShapeDtypeStruct(shape, bool)


def flops_of(module, *args, **kwargs):
    """FLOPs of a module's forward pass on shapes alone."""
    params = jax.eval_shape(lambda a: module.init(jax.random.key(0), *a, **kwargs), args)
    return flops_by_formula(lambda p, a: module.apply(p, *a, **kwargs), params, args)


def vectors(batch, modalities, length, dim):
    return {f"m{i}": Stream(floats(batch, length, dim), bools(batch, length)) for i in range(modalities)}


def test_products_by_hand():
    assert flops_by_formula(jnp.dot, floats(3, 5), floats(5, 7)) == 2 * 3 * 5 * 7
    einsum = functools.partial(jnp.einsum, "bhts,bshv->bthv")
    assert flops_by_formula(einsum, floats(2, 4, 6, 8), floats(2, 8, 4, 3)) == 2 * 2 * 4 * 6 * 8 * 3
    assert flops_by_formula(lambda x: jnp.tanh(x * x).sum(), floats(3, 5)) == 0  # elementwise work does not count


def test_mlp_by_hand():
    assert flops_of(MLP((16, 3)), floats(4, 8)) == 2 * 4 * (8 * 16 + 16 * 3)
    assert flops_of(MLP((16, 3)), floats(4, 6, 8)) == 2 * 4 * 6 * (8 * 16 + 16 * 3)


def test_token_layer_is_that_of_the_table():
    """12 MT d^2 + 2 (MT)^2 d MACs a layer (Vaswani et al. 2017 with an MLP four times as wide)."""
    tokens, d = 3 * 5, 8
    found = flops_of(TransformerBlock(), floats(2, tokens, d), mask=np.ones((2, tokens), bool))
    assert found == 2 * 2 * (12 * tokens * d**2 + 2 * tokens**2 * d)


def test_fusions_are_those_of_the_table():
    """Concat and FC: M d H MACs an example; additive attention over modalities: M (d H + H + d)."""
    m, d, h = 3, 8, 16
    assert flops_of(Concat(d), vectors(4, m, 1, d)) == 2 * 4 * m * d * d
    assert flops_of(Concat(h), vectors(4, m, 1, d)) == 2 * 4 * (m * d * h + m * h * h)  # projected before
    assert flops_of(AdditiveAttention(d, hidden_dim=h), vectors(4, m, 1, d)) == 2 * 4 * m * (d * h + h + d)


@pytest.mark.parametrize(("cell", "gates"), [(LSTM, 4), (GRU, 3)])
def test_recurrent_network_by_hand(cell, gates):
    """The body of the scan counts once a step: T g h (d + h) MACs, and XLA has no number."""
    b, t, d, h = 2, 9, 5, 8
    args = floats(b, t, d), bools(b, t)
    module = cell(features=h)
    assert flops_of(module, *args) == 2 * b * t * gates * h * (d + h)
    params = jax.eval_shape(lambda a: module.init(jax.random.key(0), *a), args)
    # backward: the recurrent product again in every step, and both kernels; the input needs no gradient
    loss = jax.value_and_grad(lambda p, a: module.apply(p, *a).sum())
    assert flops_by_formula(loss, params, args) == 2 * b * t * gates * h * (2 * (d + h) + h)
    if cell is LSTM:
        cost = xla_cost(lambda p, a: module.apply(p, *a), params, args, compiler_options=HASTE)
        assert cost.flops is None
        assert cost.bytes_accessed is None


def test_convolution_by_hand():
    x, kernel = floats(2, 9, 7, 3), floats(3, 5, 3, 4)
    assert flops_by_formula(convolve, x, kernel) == 2 * 2 * 9 * 7 * 3 * 5 * 3 * 4
    strided = functools.partial(convolve, stride=2)
    forward = 2 * 2 * 5 * 4 * 3 * 5 * 3 * 4  # 5 by 4 places are left
    assert flops_by_formula(strided, x, kernel) == forward
    # By the kernel: the forward pass's work. By the input: 13 of 9 x 3 and 18 of 7 x 5 taps meet no hole of the stride.
    both = flops_by_formula(jax.grad(lambda x, k: strided(x, k).sum(), argnums=(0, 1)), x, kernel)
    assert both == forward + 2 * 2 * 13 * 18 * 3 * 4  # the forward pass itself is not asked for
    grouped = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1,), padding="VALID", feature_group_count=2,
        dimension_numbers=("NHC", "HIO", "NHC"),
    )  # fmt: skip
    assert flops_by_formula(grouped, floats(2, 9, 6), floats(3, 3, 8)) == 2 * 2 * 7 * 3 * 3 * 8
    depth = functools.partial(jax.lax.conv_general_dilated, window_strides=(1,), padding="VALID", rhs_dilation=(2,))
    assert flops_by_formula(depth, floats(2, 3, 9), floats(4, 3, 3)) == 2 * 2 * 5 * 3 * 3 * 4


def test_through_what_wraps_a_function():
    x = floats(4, 4)
    once = 2 * 4**3

    @jax.custom_vjp
    def by_vjp(x):
        return x @ x

    by_vjp.defvjp(lambda x: (x @ x, x), lambda x, d: (d @ x,))

    @jax.custom_jvp
    def by_jvp(x):
        return x @ x

    by_jvp.defjvp(lambda p, t: (p[0] @ p[0], t[0]))
    assert flops_by_formula(lambda x: (x @ x, x)[1], x) == 0  # nobody needs it
    for wrapped in (by_vjp, by_jvp, jax.jit(lambda x: x @ x), jax.checkpoint(lambda x: x @ x)):
        assert flops_by_formula(wrapped, x) == once
    assert flops_by_formula(jax.vmap(lambda x: x @ x), floats(5, 4, 4)) == 5 * once
    assert flops_by_formula(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x), x) == 2 * once
    assert flops_by_formula(lambda x: jax.lax.fori_loop(0, 6, lambda i, c: c @ x, x), x) == 6 * once

    def nested(x):
        return jax.lax.scan(lambda c, _: (jax.lax.map(lambda row: c @ row, x).sum(0) * c, 0), x, length=3)[0]

    assert flops_by_formula(nested, x) == 3 * 4 * 2 * 4 * 4
    # rematerialised: the derivative does the forward pass once more
    twice = jax.value_and_grad(lambda x: jax.checkpoint(lambda x: jnp.tanh(jnp.tanh(x @ x) @ x))(x).sum())
    plain = jax.value_and_grad(lambda x: jnp.tanh(jnp.tanh(x @ x) @ x).sum())
    assert flops_by_formula(twice, x) - flops_by_formula(plain, x) == once * 2


def test_what_cannot_be_known_says_so():
    x = floats(4, 4)
    found = count_contractions(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ x, x), x)
    assert found.flops is None
    assert "while loop" in found.note
    idle = count_contractions(lambda x: x @ jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c + 1, x), x)
    assert idle == (2 * 4**3, "")  # a loop without a product changes nothing
    called = count_contractions(lambda x: jax.pure_callback(lambda x: x, x, x), x)
    assert called.flops is None
    assert "pure_callback" in called.note


def test_shares_of_devices_add_up():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    program = jax.shard_map(lambda x: x @ jnp.ones((4, 3)), mesh=mesh, in_specs=spec, out_specs=spec)
    assert flops_by_formula(program, floats(6, 4)) == 2 * 6 * 4 * 3


@functools.cache
def trained():
    """The toy model's state, step and a batch."""
    tx = optax.with_extra_args_support(optax.sgd(0.1))
    batch = jax.tree.map(jnp.asarray, SPLITS["validation"])
    shapes = jax.eval_shape(lambda: init_state(MODEL, tx, batch.streams, jax.random.key(0)))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return state, make_train_step(MODEL, TASK, tx), batch


def test_a_model_by_hand():
    state, _, batch = trained()
    assert WIDTHS == {"a": 8, "b": 4}
    projection, joint = 4 * 8, 16 * 8  # b is projected to the width of a, both blocks are joined
    forward = 2 * (projection + joint + 8 * 16 + 16 * CLASSES)
    predict = lambda v, b: MODEL.apply(v, b.streams)  # noqa: E731
    for rows in (1, 7):
        assert flops_by_formula(predict, state.variables, shapes_of(batch, rows)) == rows * forward
    step = trained()[1]
    found = flops_by_formula(step, state, shapes_of(batch, 7), jax.random.key(0))
    assert found == 7 * (3 * forward - 2 * projection)  # no gradient by the input of the first layer
    assert fusion_params(state.params) == projection + 8 + joint + 8
    assert count_params(state.params) == projection + 8 + joint + 8 + 8 * 16 + 16 + 16 * CLASSES + CLASSES


def test_parts_called_fusion_wherever_they_stand():
    tree = {"fusion": {"a": np.ones((2, 3)), "fusion": {"b": np.ones(4)}}, "head": {"fusion": {"c": np.ones(5)}}}
    assert fusion_params(tree) == 6 + 4 + 5
    assert fusion_params({"head": {"c": np.ones(5)}}) == 0
    assert fusion_params(jax.eval_shape(lambda: {"mix": jnp.ones((3, 3))}), name="mix") == 9
    assert count_params({}) == 0


def test_xla_counts_products_and_more():
    state, step, batch = trained()
    predict = lambda v, b: MODEL.apply(v, b.streams)  # noqa: E731
    args = state.variables, shapes_of(batch, 4)
    by_xla = xla_cost(predict, *args, compiler_options=HASTE)
    by_formula = flops_by_formula(predict, *args)
    assert by_formula < by_xla.flops < 2 * by_formula  # activations and masks come on top
    assert by_xla.bytes_accessed > 4 * count_params(state.params)
    assert by_xla.peak_bytes is None or by_xla.peak_bytes > 4 * count_params(state.params)
    compiled, seconds = compile_program(step, state, batch, jax.random.key(1), compiler_options=HASTE)
    assert seconds > 0
    assert read_compiled(compiled).flops > flops_by_formula(step, state, batch, jax.random.key(1)) * 0.9


def test_dropout_does_not_hide_the_count():
    def drop(x, key):
        return (x @ x) * jax.random.bernoulli(key, 0.5, (64, 64))

    cost = xla_cost(drop, floats(64, 64), jax.random.key(0), compiler_options=HASTE)
    assert cost.flops > 2 * 64**3

    def loop(x):
        return jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(c), x))(x)

    compiled, _ = compile_program(loop, floats(4), compiler_options=HASTE)
    assert read_compiled(compiled).flops is None
    assert xla_cost(loop, floats(4), compiler_options=HASTE).flops is None


def test_one_trace_gives_both_counts():
    state, step, batch = trained()
    args = state, shapes_of(batch, 4), jax.random.key(1)
    both = count_program(step, *args)
    assert both.formula == flops_by_formula(step, *args)
    assert 0.9 * both.formula < both.xla < 3 * both.formula
    product = lambda a, b: a @ b  # noqa: E731
    assert count_program(product, floats(2, 3), floats(3, 5)) == (60, 60)
    turned = lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c @ c, x)  # noqa: E731
    assert count_program(turned, floats(4, 4)) == (3 * 2 * 4**3, None)  # XLA would count one turn
    assert count_program(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ c, x), floats(4, 4)) == (
        None,
        None,
    )


def test_step_time_waits_and_carries():
    state, step, batch = trained()
    donated = jax.jit(step, donate_argnums=0, compiler_options=HASTE)
    copy = jax.tree.map(jnp.copy, state)
    found = step_time(donated, copy, batch, jax.random.key(1), warmup=2, steps=5, carry=True)
    assert 0 < found.median_ms <= found.p90_ms
    calls = []
    slow = step_time(lambda x: calls.append(x) or x, np.ones(2), warmup=3, steps=4)
    assert len(calls) == 7
    assert slow.median_ms >= 0
    with pytest.raises(UsageError, match="steps=0"):
        step_time(lambda: 0, steps=0)


def test_memory_of_a_cpu_is_not_counted():
    class Device:
        def memory_stats(self):
            return {"peak_bytes_in_use": 12}

    assert device_peak_bytes(Device()) == 12
    assert device_peak_bytes(jax.devices("cpu")[0]) is None


def test_epochs_to_target_by_hand():
    assert epochs_to_target([0.2, 0.79, 0.8, 0.85, 0.8]) == 3
    assert epochs_to_target([0.2, 0.79, 0.8, 0.85, 0.8], share=0.9) == 2
    assert epochs_to_target([0.5]) == 1
    with pytest.raises(UsageError, match="above 0"):
        epochs_to_target([-1.0, -0.5])
