"""LSTM and GRU: values, first and second derivatives against flax; holes against the sequence without them."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import Recurrent
from mmjax.layers import GRU, LSTM, final_state
from mmjax.stream import Stream
from tests.draw import draw_params
from tests.encoders.helpers import QUICK

BATCH, TIME, WIDTH, FEATURES = 3, 6, 5, 4
CELLS = {"lstm": (LSTM, nn.OptimizedLSTMCell, "ifog"), "gru": (GRU, nn.GRUCell, "rzn")}
ALL = jnp.ones((BATCH, TIME), bool)
HOLES = jnp.array([[0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 1], [1, 0, 1, 1, 0, 0]], bool)


def _inputs(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, TIME, WIDTH)), jnp.float32)


def _as_flax(params, gates):
    """Our parameters as those of flax's cell, which keeps every gate apart."""
    split = {f"i{g}": k for g, k in zip(gates, np.split(params["input"]["kernel"], len(gates), -1))}
    tree = {name: {"kernel": kernel} for name, kernel in split.items()}
    tree |= {f"h{g}": {"kernel": k} for g, k in zip(gates, np.split(params["kernel"], len(gates), -1))}
    if gates == "rzn":
        for gate, bias in zip(gates, np.split(params["input"]["bias"], 3)):
            tree[f"i{gate}"]["bias"] = bias
        tree["hn"]["bias"] = params["bias"]
    else:
        for gate, bias in zip(gates, np.split(params["bias"], 4)):
            tree[f"h{gate}"]["bias"] = bias
    return tree


def _derivatives(apply, *, twice):
    """Compiled: outputs, gradient by (params, inputs), and if asked the gradient of its squared norm by inputs."""

    def loss(params, x):
        y = apply(params, x)
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), y

    def norm(params, x):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(jax.grad(loss, (0, 1), has_aux=True)(params, x)[0]))

    def run(params, x):
        (_, y), gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return y, gradient, jax.grad(norm, 1)(params, x) if twice else None

    return jax.jit(run, compiler_options=QUICK)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_cell_against_flax(name, reverse):
    cell, reference, gates = CELLS[name]
    recurrence = nn.RNN(reference(FEATURES), reverse=reverse, keep_order=True)
    x = _inputs()
    params = draw_params(cell(FEATURES), x, ALL)
    ours, theirs = (
        _derivatives(apply, twice=not reverse)
        for apply in (
            lambda p, x: cell(FEATURES).apply({"params": p}, x, ALL, reverse=reverse),
            lambda p, x: recurrence.apply({"params": {"cell": p}}, x),
        )
    )
    got, (by_params, by_x), second = ours(params, x)
    expected, (flax_by_params, flax_by_x), flax_second = theirs(_as_flax(params, gates), x)
    chex.assert_trees_all_close(got, expected, atol=1e-6)
    chex.assert_trees_all_close(by_x, flax_by_x, atol=3e-6)
    chex.assert_trees_all_close(_as_flax(by_params, gates), flax_by_params, atol=1e-5, rtol=1e-5)
    if not reverse:
        chex.assert_trees_all_close(second, flax_second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CELLS)
def test_holes_are_as_if_they_were_not_there(name):
    """Both ways: values and gradients are those of the three real items of each row alone."""
    encoder = Recurrent(6, cell=CELLS[name][0], bidirectional=True)
    x, rows = _inputs(), np.arange(1, BATCH)[:, None]
    real = np.array([np.flatnonzero(row) for row in HOLES[1:]])
    params = {"params": draw_params(encoder, Stream.of(x))}
    direction = jax.random.normal(jax.random.key(1), (BATCH, TIME, 6))

    def loss(params, x, mask, direction):
        out = encoder.apply(params, Stream(x, mask))
        return (out.values * direction).sum(), out

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)
    (_, out), (by_params, by_x) = run(params, x, HOLES, direction)
    (_, alone), (alone_by_params, alone_by_x) = run(params, x[rows, real], HOLES[rows, real], direction[rows, real])
    assert alone.mask.all()
    np.testing.assert_array_equal(out.mask, HOLES)
    assert not out.values[~HOLES].any() and not by_x[~HOLES].any()
    chex.assert_trees_all_close(out.values[rows, real], alone.values, atol=1e-6)
    chex.assert_trees_all_close(by_x[rows, real], alone_by_x, atol=1e-5)
    chex.assert_trees_all_close(by_params, alone_by_params, atol=1e-5)


def test_layers_and_directions():
    """Two-way: the first half has seen the past alone, the second half the future alone."""
    encoder = Recurrent(6, cell=GRU, bidirectional=True)
    x = _inputs()
    params = {"params": draw_params(encoder, Stream.of(x))}
    change = x.at[:, 3].add(1.0)
    apply = jax.jit(lambda x: encoder.apply(params, Stream.of(x)).values, compiler_options=QUICK)
    before, after = apply(x), apply(change)
    moved = np.asarray(jnp.abs(after - before).max(0) > 1e-5)
    np.testing.assert_array_equal(moved[:, :3].any(-1), np.arange(TIME) >= 3)
    np.testing.assert_array_equal(moved[:, 3:].any(-1), np.arange(TIME) <= 3)


def test_hidden_dim_is_projected():
    encoder = Recurrent(5, bidirectional=True, hidden_dim=3, num_layers=2)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), Stream.of(_inputs()))["params"]
    assert sorted(shapes) == ["backward_0", "backward_1", "forward_0", "forward_1", "project"]
    assert shapes["project"]["kernel"].shape == (6, 5)
    assert shapes["forward_1"]["input"]["kernel"].shape == (6, 12)


def test_first_values_of_parameters():
    init = jax.jit(LSTM(3, forget_bias=2.0).init, compiler_options=QUICK)
    params = init(jax.random.key(0), _inputs(), ALL)["params"]
    np.testing.assert_array_equal(params["bias"], np.repeat([0.0, 2.0, 0.0, 0.0], 3))
    for gate in np.split(np.asarray(params["kernel"]), 4, -1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_an_orthogonal_kernel_is_no_batch_of_matrices(name):
    """The QR of a batch can wait for ever on XLA:CPU; see ``mmjax.encoders.recurrent``."""
    cell = CELLS[name][0](3)
    text = str(jax.make_jaxpr(cell.init)(jax.random.key(0), _inputs(), ALL))
    shapes = re.findall(r":f32\[([\d,]+)\](?: \w+:f32\[[\d,]+\])* = qr\[", text)
    assert set(shapes) == {"3,3"}


def test_seeds_by_vmap_and_by_map():
    encoder = Recurrent(4)
    stream = Stream(_inputs(), HOLES)
    params = jax.tree.map(lambda *x: jnp.stack(x), *(draw_params(encoder, stream, seed=s) for s in range(3)))

    def gradient(params):
        return jax.grad(lambda p: (encoder.apply({"params": p}, stream).values ** 2).sum())(params)

    by_vmap = jax.jit(jax.vmap(gradient), compiler_options=QUICK)(params)
    by_map = jax.jit(lambda p: jax.lax.map(gradient, p), compiler_options=QUICK)(params)
    chex.assert_trees_all_close(by_vmap, by_map, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_state_stays_float32_in_bfloat16(name):
    """700 steps of 1/1024 add up to what they should; a state in bfloat16 stops growing at about a half of it."""
    steps, rate = 700, 1 / 1024
    if name == "lstm":  # i, f and o are open, g is 1/1024: the memory counts
        cell, expected = LSTM(1), np.tanh(steps * rate)
        gates = {"bias": jnp.array([20.0, 20.0, 20.0, 0.0])}
        weights = {"kernel": jnp.array([[0.0, 0.0, 0.0, rate]])}
    else:  # 1 - z is 1/1024, n is tanh(1): an average that moves slowly
        cell, expected = GRU(1), np.tanh(1) * (1 - (1 - rate) ** steps)
        gates = {"bias": jnp.zeros(1)}
        weights = {"kernel": jnp.array([[0.0, 0.0, 1.0]]), "bias": jnp.array([0.0, -np.log(rate / (1 - rate)), 0.0])}
    params = {"kernel": jnp.zeros((1, 4 if name == "lstm" else 3)), "input": weights, **gates}
    apply = jax.jit(lambda x, mask: cell.apply({"params": params}, x, mask), compiler_options=QUICK)
    out = apply(jnp.ones((1, steps, 1), jnp.bfloat16), jnp.ones((1, steps), bool))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(out[0, -1, 0]), expected, rtol=0.02)


def test_final_state():
    values = jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4)
    mask = jnp.array([[False, True, True], [False, False, False]])
    np.testing.assert_array_equal(final_state(values, mask), [[8, 9, 6, 7], [0, 0, 0, 0]])


def test_errors():
    x = Stream.of(_inputs())
    with pytest.raises(ValueError, match=r"self\.dim=5: make it even"):
        jax.eval_shape(Recurrent(5, bidirectional=True).init, jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"self\.num_layers=0 must be at least 1"):
        jax.eval_shape(Recurrent(4, num_layers=0).init, jax.random.key(0), x)
    with pytest.raises(ValueError, match="expected feature vectors"):
        jax.eval_shape(Recurrent(4).init, jax.random.key(0), Stream.of(jnp.ones((2, 3), jnp.int32)))
