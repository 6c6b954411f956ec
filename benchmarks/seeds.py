"""Eight seeds of a dense fusion model at once, beside eight sequential runs in eager PyTorch.

    python -m benchmarks.seeds

The network of the per-utterance rows of ``experiments/cmu_mosi.py`` (concatenation of three modalities) on random data
of its shape; an epoch of shuffled batches with dropout and AdamW, no evaluation on either side. The goal is 0.2.
"""

from benchmarks.timing import compare, single_thread

SEEDS, EXAMPLES, BATCH, DIM, CLASSES = 8, 1184, 32, 64, 2
WIDTHS = {"audio": 73, "text": 100, "video": 100}


def mmjax_epoch(data, target):
    """An epoch of all seeds, by the train step and the seed mapping of the library."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mmjax import Batch, Stream
    from mmjax.encoders import FeatureMLP
    from mmjax.fusion import Concat
    from mmjax.heads import ClassificationHead
    from mmjax.models import Multimodal
    from mmjax.tasks import Classification
    from mmjax.training import Train, init_state, make_optimizer, make_train_step

    encoders = {name: FeatureMLP(DIM, dropout_rate=0.3) for name in WIDTHS}
    model = Multimodal(encoders, Concat(DIM), ClassificationHead(CLASSES, hidden_dims=(DIM,), dropout_rate=0.5))
    tx = make_optimizer(Train(batch_size=BATCH), EXAMPLES // BATCH)
    step = make_train_step(model, Classification(CLASSES), tx)
    streams = {name: Stream.of(jnp.asarray(values)[:, None]) for name, values in data.items()}
    count = np.arange(EXAMPLES, dtype=np.int32)
    whole = jax.tree.map(
        jnp.asarray, Batch(streams, target.astype(np.int32), np.ones(EXAMPLES, np.float32), count, count)
    )

    def epoch(state, key):
        order = jax.random.permutation(key, EXAMPLES).reshape(-1, BATCH)
        return jax.lax.scan(lambda s, rows: step(s, jax.tree.map(lambda x: x[rows], whole), key), state, order)[0]

    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    state = jax.jit(jax.vmap(lambda key: init_state(model, tx, streams, key)))(keys)
    run = jax.jit(jax.vmap(epoch))
    print(f"parameters a seed: {sum(leaf[0].size for leaf in jax.tree.leaves(state.params))} (mmjax)", end=", ")
    return lambda: jax.block_until_ready(run(state, keys))


def torch_epoch(data, target):
    """An epoch of each seed, one after the other, eager."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    inputs = [torch.from_numpy(data[name]) for name in sorted(data)]
    labels = torch.from_numpy(target)

    class Model(nn.Module):
        """The same network."""

        def __init__(self):
            super().__init__()
            self.encoders = nn.ModuleList(nn.Linear(WIDTHS[name], DIM) for name in sorted(WIDTHS))
            self.fusion = nn.Linear(3 * DIM, DIM)
            self.hidden, self.out = nn.Linear(DIM, DIM), nn.Linear(DIM, CLASSES)
            self.drop = nn.Dropout(0.5)

        def forward(self, xs):
            """Logits."""
            encoded = [encoder(x) for encoder, x in zip(self.encoders, xs)]
            fused = self.fusion(torch.cat(encoded, -1))
            return self.out(self.drop(nn.functional.gelu(self.hidden(self.drop(fused)))))

    models = [Model() for _ in range(SEEDS)]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2) for model in models]
    print(f"{sum(p.numel() for p in models[0].parameters())} (PyTorch)")

    def run():
        for model, optimizer in zip(models, optimizers):
            order = torch.randperm(EXAMPLES).reshape(-1, BATCH)
            for rows in order:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model([x[rows] for x in inputs]), labels[rows])
                loss.backward()
                optimizer.step()

    return run


def main() -> None:
    """Prints the ratio."""
    single_thread()
    import numpy as np

    random = np.random.RandomState(0)
    data = {name: random.randn(EXAMPLES, width).astype(np.float32) for name, width in WIDTHS.items()}
    target = random.randint(0, CLASSES, EXAMPLES)
    ours, theirs = mmjax_epoch(data, target), torch_epoch(data, target)
    compare(f"{SEEDS} seeds, an epoch of {EXAMPLES} examples", ours, theirs)


if __name__ == "__main__":
    main()
