"""One step, wherever it runs: on a mesh, under pmap, on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from mmjax.errors import UsageError
from mmjax.metrics import compute
from mmjax.sharding import (
    check_divides,
    describe_split,
    jit_step,
    make_mesh,
    put_batch,
    seed_devices,
    shard_seeds,
    state_sharding,
)
from mmjax.training import init_state, make_train_step
from tests.draw import quick_jit
from tests.toy import MODEL, TASK, make_batch

# The momentum after one step is the gradient, so parameters and gradients can both be compared.
TX = optax.with_extra_args_support(optax.sgd(0.1, momentum=0.9))
KEY = jax.random.key(0)
BATCH = make_batch(32)


def init(key):
    return init_state(MODEL, TX, jax.tree.map(jnp.asarray, BATCH.streams), key)


def assert_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@functools.cache
def on_one_device():
    """State and metrics after one step."""
    return quick_jit(make_train_step(MODEL, TASK, TX))(quick_jit(init)(KEY), BATCH, KEY)


@pytest.mark.parametrize("fsdp, tensor", [(1, 1), (4, 1), (2, 2)])
def test_a_sharded_step_equals_the_step_on_one_device(fsdp, tensor):
    mesh = make_mesh(fsdp=fsdp, tensor=tensor)
    assert tuple(mesh.shape.values()) == (8 // fsdp // tensor, fsdp, tensor)
    shapes = jax.eval_shape(init, KEY)
    state = quick_jit(init, out_shardings=state_sharding(shapes, mesh, small=1))(KEY)
    kernel = state.params["head"]["mlp"]["dense_0"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // (fsdp * tensor)
    step = jit_step(make_train_step(MODEL, TASK, TX), mesh, shapes, small=1)
    state, metrics = step(state, put_batch(BATCH, mesh), KEY)
    assert state.params["head"]["mlp"]["dense_0"]["kernel"].sharding.is_equivalent_to(kernel.sharding, 2)
    expected_state, expected_metrics = on_one_device()
    assert_close(compute(metrics), compute(expected_metrics))
    assert_close(state, expected_state)  # parameters, and gradients in the momentum


def test_the_same_step_under_pmap():
    """Since JAX 0.8 pmap is itself jit of shard_map; here the gradients are averaged by a part of the optimiser."""
    average = optax.stateless(lambda grads, params: jax.lax.pmean(grads, "devices"))
    tx = optax.with_extra_args_support(optax.chain(average, TX))
    state = quick_jit(init)(KEY)
    state = state.replace(opt_state=tx.init(state.params))
    parts = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), BATCH)
    step = jax.pmap(make_train_step(MODEL, TASK, tx), axis_name="devices", in_axes=(None, 0, None))
    states, metrics = step(state, parts, KEY)
    expected_state, expected_metrics = on_one_device()
    assert_close(compute(jax.tree.map(lambda x: x.sum(0), metrics)), compute(expected_metrics))
    assert_close(jax.tree.map(lambda x: x[0], states.params), expected_state.params)


def test_where_arrays_lie():
    mesh = make_mesh(fsdp=2, tensor=2)
    shapes = {"kernel": (6, 64, 4), "tall": (8, 3), "odd": (3, 5), "bias": (8,), "scalar": ()}
    leaves = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = {name: s.spec for name, s in state_sharding(leaves, mesh, small=1).items()}
    P = PartitionSpec
    assert found == {
        "kernel": P(None, "fsdp", "tensor"),
        "tall": P("fsdp", None),
        "odd": P(None, None),
        "bias": P("fsdp"),
        "scalar": P(),
    }
    assert all(s.spec == P() for s in state_sharding(leaves, mesh).values())  # all of them are small


def test_what_does_not_divide_is_said_in_one_line():
    with pytest.raises(UsageError, match="batch_size=12 does not divide over 8 devices"):
        check_divides(12, make_mesh())
    check_divides(12, make_mesh(tensor=2))
    with pytest.raises(UsageError, match="fsdp=3 times tensor=1 must divide the number of devices, 8"):
        make_mesh(fsdp=3)


def test_seeds_lie_on_as_many_devices_as_divide_them():
    for seeds, devices in ((8, 8), (5, 5), (10, 5), (12, 6), (11, 1), (1, 1)):
        assert len(seed_devices(seeds)) == devices
        spread = shard_seeds({"a": jnp.arange(seeds)})["a"]
        assert len(spread.sharding.device_set) == devices
        np.testing.assert_array_equal(spread, np.arange(seeds))
    assert len(shard_seeds(jnp.arange(5), enabled=False).sharding.device_set) == 1


def test_what_a_mesh_splits_is_told_by_the_numbers_that_lie_in_parts():
    params = {"wide": jnp.zeros((64, 64)), "odd": jnp.zeros((63, 65)), "bias": jnp.zeros(64)}
    mesh = make_mesh(fsdp=8)
    where = state_sharding(params, mesh)
    in_parts = sum(leaf.size for leaf, at in zip(jax.tree.leaves(params), jax.tree.leaves(where)) if any(at.spec))
    assert describe_split(params, mesh).startswith(
        f"fsdp=8: {in_parts:,} of {4096 + 63 * 65 + 64:,} parameters are split"
    )
    assert in_parts == 4096
    assert describe_split(params, make_mesh(fsdp=2, tensor=2)).startswith("fsdp=2 and tensor=2: 4,096 of")
    assert describe_split(params, make_mesh()) == ""
