"""Recurrent networks over masked sequences: LSTM and GRU whose state is carried across holes in the mask.

The loop is a ``lax.scan`` with a derivative of its own. Input projections and the gradient of the recurrent kernel are
each one large product outside the loop, and the sigmoids of a step are one ``tanh``: on a CPU, forward and backward
take 0.4 to 0.85 of the time of ``nn.RNN`` with flax's cells. The price: reverse-mode derivatives only, of any order
(``jax.grad``, not ``jax.jvp``).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.dense import Dense
from mmjax.stream import apply_mask, masked_last
from mmjax.typing import Array, Bool, Dtype, Float, Shaped, checked

__all__ = ["GRU", "LSTM", "final_state"]


class _Rule(NamedTuple):
    """One step of a cell and its derivative; every array is ``[batch, width]``, the state's first is the output.

    Attributes:
      num_states: arrays in the state, each ``[batch, features]``.
      step: ``(state, from_input, from_state) -> (state, residual)``: what the two projections make of the state.
      pull: ``(residual, gradient of the new state) -> (gradient of from_input, of the old state)``, the latter without
        what flows through the recurrent kernel.
      from_state: ``(residual, gradient of from_input) -> gradient of from_state``.
    """

    num_states: int
    step: Callable
    pull: Callable
    from_state: Callable


def _sigmoids(x: Any, sigmoid: int, total: int) -> list[Any]:
    """``x`` in ``total`` equal parts, the first ``sigmoid`` of them through a sigmoid, the others through tanh.

    ``sigmoid(x) = (1 + tanh(x / 2)) / 2``: one ``tanh`` over all of them is twice as fast on CPU.
    """
    width = x.shape[-1] // total
    is_sigmoid = jnp.arange(x.shape[-1]) < sigmoid * width
    parts = jnp.split(jnp.tanh(x * jnp.where(is_sigmoid, 0.5, 1.0).astype(x.dtype)), total, axis=-1)
    return [0.5 * part + 0.5 if i < sigmoid else part for i, part in enumerate(parts)]


def _lstm_step(state: Any, from_input: Any, from_state: Any) -> Any:
    _, memory = state
    i, f, o, g = _sigmoids(from_input + from_state, 3, 4)
    new_memory = f * memory + i * g
    squashed = jnp.tanh(new_memory)
    return (o * squashed, new_memory), (i, f, o, g, memory, squashed)


def _lstm_pull(residual: Any, gradient: Any) -> Any:
    i, f, o, g, memory, squashed = residual
    by_output, by_memory = gradient
    by_memory = by_memory + by_output * o * (1 - squashed**2)
    by_gates = [
        by_memory * g * i * (1 - i),
        by_memory * memory * f * (1 - f),
        by_output * squashed * o * (1 - o),
        by_memory * i * (1 - g**2),
    ]
    return jnp.concatenate(by_gates, -1), (jnp.zeros_like(by_output), by_memory * f)


_LSTM = _Rule(2, _lstm_step, _lstm_pull, lambda residual, by_input: by_input)


def _gru_step(state: Any, from_input: Any, from_state: Any) -> Any:
    (hidden,) = state
    width = hidden.shape[-1]
    r, z = _sigmoids(from_input[..., : 2 * width] + from_state[..., : 2 * width], 2, 2)
    recurrent = from_state[..., 2 * width :]
    n = jnp.tanh(from_input[..., 2 * width :] + r * recurrent)
    return ((1 - z) * n + z * hidden,), (r, z, n, recurrent, hidden)


def _gru_pull(residual: Any, gradient: Any) -> Any:
    r, z, n, recurrent, hidden = residual
    (by_output,) = gradient
    by_n = by_output * (1 - z) * (1 - n**2)
    by_gates = [by_n * recurrent * r * (1 - r), by_output * (hidden - n) * z * (1 - z), by_n]
    return jnp.concatenate(by_gates, -1), (by_output * z,)


def _gru_from_state(residual: Any, by_input: Any) -> Any:
    width = residual[0].shape[-1]
    return jnp.concatenate([by_input[..., : 2 * width], by_input[..., 2 * width :] * residual[0]], -1)


_GRU = _Rule(1, _gru_step, _gru_pull, _gru_from_state)


def _loop(rule: _Rule, reverse: bool, from_input: Any, kernel: Any, bias: Any, mask: Any) -> Any:
    """The states' outputs ``[time, batch, features]`` and the residuals of every step; all arrays time-major."""
    dtype = jnp.promote_types(from_input.dtype, jnp.float32)  # the state adds up over time: never in bfloat16
    recurrent_kernel = kernel.astype(from_input.dtype)

    def body(state: Any, now: Any) -> Any:
        projected, real = now
        from_state = state[0].astype(from_input.dtype) @ recurrent_kernel
        new, residual = rule.step(state, projected.astype(dtype), from_state.astype(dtype) + bias.astype(dtype))
        state = tuple(jnp.where(real, a, b) for a, b in zip(new, state))
        return state, (state[0], residual)

    start = (jnp.zeros((from_input.shape[1], kernel.shape[0]), dtype),) * rule.num_states
    return jax.lax.scan(body, start, (from_input, mask[..., None]), reverse=reverse)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recur(rule: _Rule, reverse: bool, from_input: Any, kernel: Any, bias: Any, mask: Any) -> Any:
    return _loop(rule, reverse, from_input, kernel, bias, mask)[0]


def _recur_forward(rule: _Rule, reverse: bool, from_input: Any, kernel: Any, bias: Any, mask: Any) -> Any:
    outputs, residuals = _loop(rule, reverse, from_input, kernel, bias, mask)
    # An empty slice tells the backward pass the compute type, which may differ from that of the outputs.
    return outputs, (outputs, residuals, kernel, bias, mask, from_input[:0])


def _recur_backward(rule: _Rule, reverse: bool, saved: Any, by_outputs: Any) -> Any:
    outputs, residuals, kernel, bias, mask, like = saved
    transposed = kernel.T.astype(like.dtype)
    edge = jnp.zeros_like(outputs[:1])
    before = jnp.concatenate([outputs[1:], edge] if reverse else [edge, outputs[:-1]])

    def body(gradient: Any, now: Any) -> Any:
        by_output, residual, real = now
        gradient = (gradient[0] + by_output, *gradient[1:])
        by_input, by_old = rule.pull(residual, gradient)
        by_input = jnp.where(real, by_input, 0)
        through_kernel = rule.from_state(residual, by_input).astype(like.dtype) @ transposed
        by_old = (by_old[0] + through_kernel.astype(edge.dtype), *by_old[1:])
        return tuple(jnp.where(real, a, b) for a, b in zip(by_old, gradient)), by_input

    start = (edge[0],) * rule.num_states
    by_input = jax.lax.scan(body, start, (by_outputs, residuals, mask[..., None]), reverse=not reverse)[1]
    by_state = rule.from_state(residuals, by_input)
    by_state = by_state.reshape(-1, by_state.shape[-1])
    # One product over all steps: added up step by step, the gradient of the kernel is what makes a scan slow.
    by_kernel = before.reshape(-1, before.shape[-1]).astype(like.dtype).T @ by_state.astype(like.dtype)
    by_bias = by_state.sum(0)
    return by_input.astype(like.dtype), by_kernel.astype(kernel.dtype), by_bias.astype(bias.dtype), None


_recur.defvjp(_recur_forward, _recur_backward)


def _gates(init: nn.initializers.Initializer, count: int) -> nn.initializers.Initializer:
    """Draws each of ``count`` gates on its own, side by side: an orthogonal kernel is orthogonal gate by gate.

    One after the other, never mapped: the QR of several matrices at once waits for threads of XLA:CPU's pool while it
    holds one, so that two of them at the same time on two cores wait for ever (jaxlib 0.10.2).
    """

    def draw(key: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
        each = (*shape[:-1], shape[-1] // count)
        return jnp.concatenate([init(key, each, dtype) for key in jax.random.split(key, count)], -1)

    return draw


def _run(rule: _Rule, reverse: bool, projected: Any, kernel: Any, bias: Any, mask: Any) -> Any:
    """``[batch, time, features]`` of time-major projections, zero in the padding."""
    outputs = _recur(rule, reverse, projected, kernel, bias, mask.T)
    return apply_mask(outputs.astype(projected.dtype).swapaxes(0, 1), mask)


class LSTM(nn.Module):
    """One direction of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    ``i, f, o = sigmoid(W x + U h + b)``, ``g = tanh(W x + U h + b)``, ``c' = f c + i g``, ``h' = o tanh(c')``. Gates
    stand side by side in the kernels in the order i, f, o, g. At a masked step the state stays and the output is 0.

    Attributes:
      features: width of the state and of the output.
      forget_bias: first value of the forget gate's bias; 1 helps to remember (Jozefowicz et al. 2015).

    Example:
      >>> x, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
      >>> states, _ = LSTM(features=4).init_with_output(jax.random.key(0), x, mask)
      >>> states.shape
      (2, 5, 4)
    """

    features: int
    forget_bias: float = 1.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "b t d"], mask: Bool[Array, "b t"], *, reverse: bool = False
    ) -> Shaped[Array, "b t features"]:
        width = self.features
        # Time first, then project: the input is the smaller of the two to transpose.
        steps = apply_mask(x, mask).swapaxes(0, 1)
        projected = Dense(4 * width, use_bias=False, dtype=self.dtype, name="input")(steps)
        kernel = self.param("kernel", _gates(nn.initializers.orthogonal(), 4), (width, 4 * width), jnp.float32)
        first = jnp.zeros(4 * width).at[width : 2 * width].set(self.forget_bias)
        bias = self.param("bias", lambda key: first)
        return _run(_LSTM, reverse, projected, kernel, bias, mask)


class GRU(nn.Module):
    """One direction of a gated recurrent unit (Cho et al. 2014, in the form that cuDNN and flax compute).

    ``r, z = sigmoid(W x + b + U h)``, ``n = tanh(W x + b + r (U h + b'))``, ``h' = (1 - z) n + z h``: the reset gate
    multiplies after the recurrent product, not before as in the paper. Gates stand side by side in the kernels in the
    order r, z, n. At a masked step the state stays and the output is 0.

    Attributes:
      features: width of the state and of the output.

    Example:
      >>> x, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
      >>> states, _ = GRU(features=4).init_with_output(jax.random.key(0), x, mask)
      >>> states.shape
      (2, 5, 4)
    """

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "b t d"], mask: Bool[Array, "b t"], *, reverse: bool = False
    ) -> Shaped[Array, "b t features"]:
        width = self.features
        projected = Dense(3 * width, dtype=self.dtype, name="input")(apply_mask(x, mask).swapaxes(0, 1))
        kernel = self.param("kernel", _gates(nn.initializers.orthogonal(), 3), (width, 3 * width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (width,), jnp.float32)
        # r and z have their bias in the input's projection already.
        return _run(_GRU, reverse, projected, kernel, jnp.pad(bias, (2 * width, 0)), mask)


@checked
def final_state(values: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """The last state of each direction of a two-way layer: the sentence vector of the classic taggers.

    A reduction of the tokens of ``Recurrent(dim, bidirectional=True)`` (for one way: ``masked_last``): the forward
    half at the last real item, the backward half at the first; 0 where there is none.

    Example:
      >>> two_way = jnp.array([[[1.0, 4.0], [2.0, 3.0]]])  # two steps, forward and backward
      >>> final_state(two_way, jnp.ones((1, 2), bool)).tolist()
      [[2.0, 4.0]]
    """
    half = values.shape[-1] // 2
    first = masked_last(values[:, ::-1, half:], mask[:, ::-1])
    return jnp.concatenate([masked_last(values[..., :half], mask), first], -1)
