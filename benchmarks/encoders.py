"""One forward and backward pass of single encoders, beside eager PyTorch.

    python -m benchmarks.encoders

A two-way LSTM and GRU, and LeNet on one-channel pictures; equal shapes, no optimiser. Goals: 1.15, 0.7 and 1.4.
"""

from benchmarks.timing import compare, single_thread

BATCH, STEPS, WIDTH, HIDDEN = 32, 50, 64, 128


def ours(encoder, values):
    """The gradient of the encoder's summed output by its parameters."""
    import jax
    import jax.numpy as jnp

    from mmjax import Stream

    stream = Stream.of(jnp.asarray(values))
    params = jax.jit(encoder.init)(jax.random.key(0), stream)
    gradient = jax.jit(jax.grad(lambda p: encoder.apply(p, stream).values.sum()))
    return lambda: jax.block_until_ready([gradient(params) for _ in range(5)])


def theirs(module, values):
    """The same in PyTorch."""
    import torch

    torch.set_num_threads(1)
    x = torch.from_numpy(values)

    def run():
        for _ in range(5):
            module.zero_grad()
            result = module(x)
            (result[0] if isinstance(result, tuple) else result).sum().backward()

    return run


def torch_lenet(dim):
    """LeNet with the layers of ``mmjax.encoders.LeNet``: same padding, ReLU, max pooling."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 49, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, dim)),
    )


def main() -> None:
    """Prints the ratios."""
    single_thread()
    import numpy as np
    from torch import nn

    from mmjax.encoders import LeNet, Recurrent
    from mmjax.layers import GRU, LSTM

    random = np.random.RandomState(0)
    frames = random.randn(BATCH, STEPS, WIDTH).astype(np.float32)
    for name, cell, peer in (("LSTM", LSTM, nn.LSTM), ("GRU", GRU, nn.GRU)):
        encoder = Recurrent(2 * HIDDEN, cell=cell, bidirectional=True)
        module = peer(WIDTH, HIDDEN, batch_first=True, bidirectional=True)
        compare(f"two-way {name}", ours(encoder, frames), theirs(module, frames))
    pictures = random.rand(64, 1, 28, 28, 1).astype(np.float32)
    compare("LeNet", ours(LeNet(48), pictures), theirs(torch_lenet(48), pictures.reshape(64, 1, 28, 28)))


if __name__ == "__main__":
    main()
