"""A whole training step (forward, backward, AdamW) of single models, beside eager PyTorch with the same parameters.

    python -m benchmarks.steps [NAME ...] [--plain-pages | --kept]

Each model first shows that both sides compute the same loss and the same gradient. Then a step of its own (one call a
step, as the streaming feed takes them) and a step inside the epoch's scan (as the resident feed takes them) are timed
beside PyTorch's. ``--plain-pages`` leaves huge pages off, as users have them; ``--kept`` does so and keeps freed memory
in the process, as the command line of mmjax does.
"""

import os
import sys

from benchmarks.timing import compare, single_thread

PLAIN, KEPT = "--plain-pages", "--kept"
STEPS = 4  # of a slice


def flat(tree):
    """Parameters by path."""
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def ours(model, streams, target):
    """A step of its own, steps in a scan, loss and gradient at the start, and the parameters."""
    import jax
    import optax

    tx = optax.adamw(1e-3)
    params = jax.jit(model.init)(jax.random.key(0), streams)["params"]

    def loss_of(params):
        logits = model.apply({"params": params}, streams, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    def step(carry, _):
        params, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    alone = jax.jit(lambda carry: step(carry, None)[0], donate_argnums=0)
    scanned = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=STEPS)[0], donate_argnums=0)

    def slice_of(program, calls):
        carry = [jax.tree.map(lambda x: x.copy(), (params, tx.init(params)))]

        def run():
            for _ in range(calls):
                carry[0] = program(carry[0])
            jax.block_until_ready(carry[0])

        return run

    start = jax.jit(jax.value_and_grad(loss_of))(params)
    return slice_of(alone, STEPS), slice_of(scanned, 1), start, params


def theirs(forward, params, target):
    """The same step in PyTorch, by a function of the same parameters; and its loss and gradient at the start."""
    import torch

    torch.set_num_threads(1)
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in flat(params).items()}
    label = torch.tensor(target).long()

    def loss_of():
        return torch.nn.functional.cross_entropy(forward(weights), label)

    loss = loss_of()
    loss.backward()
    start = loss.item(), {name: value.grad.numpy().copy() for name, value in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3)

    def run():
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()

    return run, start


def resnet(size, channels, batch, stage_sizes, widths):
    """Residual network on pictures; PyTorch keeps its kernels as ``[out, in, h, w]`` and its maps channels first."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from mmjax.encoders import ResNet
    from mmjax.fusion import Concat
    from mmjax.heads import ClassificationHead
    from mmjax.models import Multimodal

    random = np.random.RandomState(0)
    pictures = random.rand(batch, 1, size, size, channels).astype(np.float32)
    encoder = ResNet(64, widths=widths, stage_sizes=stage_sizes)
    model = Multimodal({"image": encoder}, Concat(64), ClassificationHead(10))
    x = torch.tensor(pictures[:, 0].transpose(0, 3, 1, 2).copy())

    def conv(weights, name, x, stride=1):
        kernel = weights[f"encoders_image/{name}/kernel"].permute(3, 2, 0, 1)
        # XLA's "same" padding puts the odd row at the end
        reach, n = kernel.shape[-1], x.shape[-1]
        total = max((-(-n // stride) - 1) * stride + reach - n, 0)
        low = total // 2
        if total % 2:
            return F.conv2d(F.pad(x, (low, total - low, low, total - low)), kernel, stride=stride)
        return F.conv2d(x, kernel, stride=stride, padding=low)

    def norm(weights, name, x):
        scale, bias = (weights[f"encoders_image/{name}/{part}"] for part in ("scale", "bias"))
        return F.group_norm(x, 8, scale, bias, eps=1e-6)

    def forward(weights):
        y = F.relu(norm(weights, "stem_norm", conv(weights, "stem", x)))
        for i, count in enumerate(stage_sizes):
            for j in range(count):
                name, stride = f"block_{i}_{j}", 2 if i and not j else 1
                z = F.relu(norm(weights, f"{name}/norm_0", conv(weights, f"{name}/conv_0", y, stride)))
                z = norm(weights, f"{name}/norm_1", conv(weights, f"{name}/conv_1", z))
                if f"encoders_image/{name}/skip/kernel" in weights:
                    y = norm(weights, f"{name}/skip_norm", conv(weights, f"{name}/skip", y, stride))
                y = F.relu(y + z)
        y = y.mean((2, 3))
        for name in ("encoders_image/out", "fusion/mlp/dense_0", "head/mlp/dense_0"):
            y = y @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]
        return y

    return model, {"image": pictures}, forward, random.randint(0, 10, batch)


def attention(weights, name, x, context, heads):
    """Multi-head attention of mmjax's parameters, by PyTorch's fused kernel."""
    import torch.nn.functional as F

    def split(part, x):
        y = x @ weights[f"{name}/{part}/kernel"] + weights[f"{name}/{part}/bias"]
        return y.reshape(*y.shape[:2], heads, -1).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(split("query", x), split("key", context), split("value", context))
    return mixed.transpose(1, 2).reshape(x.shape) @ weights[f"{name}/out/kernel"]


def block(weights, name, x, heads):
    """The pre-norm transformer block."""
    import torch.nn.functional as F

    def norm(part, x):
        found = {key.rpartition("/")[2]: value for key, value in weights.items() if key.startswith(f"{name}/{part}/")}
        return F.layer_norm(x, x.shape[-1:], found["scale"], found["bias"], eps=1e-6)

    y = norm("attention_norm", x)
    x = x + attention(weights, f"{name}/attention", y, y, heads)
    y = norm("mlp_norm", x)
    y = F.gelu(y @ weights[f"{name}/mlp/dense_0/kernel"] + weights[f"{name}/mlp/dense_0/bias"], approximate="tanh")
    return x + y @ weights[f"{name}/mlp/dense_1/kernel"] + weights[f"{name}/mlp/dense_1/bias"]


def joint(length, batch, dim=64, layers=2):
    """Joint transformer over three streams of ``length`` tokens."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from mmjax.fusion import JointTransformer
    from mmjax.heads import ClassificationHead
    from mmjax.models import Multimodal

    random = np.random.RandomState(0)
    streams = {name: random.randn(batch, length, dim).astype(np.float32) for name in ("audio", "text", "video")}
    model = Multimodal({}, JointTransformer(dim, num_layers=layers), ClassificationHead(10))
    x = {name: torch.tensor(values) for name, values in streams.items()}

    def forward(weights):
        tokens = [x[name] + weights[f"fusion/embedding_{name}"] for name in sorted(x)]
        y = torch.cat([weights["fusion/cls"].expand(batch, 1, dim), *tokens], 1)
        for i in range(layers):
            y = block(weights, f"fusion/block_{i}", y, 4)
        found = {key.rpartition("/")[2]: v for key, v in weights.items() if key.startswith("fusion/norm/")}
        y = F.layer_norm(y, (dim,), found["scale"], found["bias"], eps=1e-6)[:, 0]
        return y @ weights["head/mlp/dense_0/kernel"] + weights["head/mlp/dense_0/bias"]

    return model, streams, forward, random.randint(0, 10, batch)


CASES = {
    "resnet": lambda: resnet(28, 1, 64, (1, 1, 1), (16, 32, 64)),
    "resnet20": lambda: resnet(32, 3, 32, (3, 3, 3), (16, 32, 64)),
    "joint60": lambda: joint(20, 32),
    "joint180": lambda: joint(60, 32),
}


def main() -> None:
    """Prints the ratios of the named cases, or of all."""
    single_thread(huge_pages=not {PLAIN, KEPT} & set(sys.argv))
    pages = "huge pages" if "GLIBC_TUNABLES" in os.environ else "plain pages"
    if KEPT in sys.argv:
        from mmjax.allocator import keep_freed_memory

        pages += ", freed memory kept" if keep_freed_memory() else ", freed memory cannot be kept here"
    import jax.numpy as jnp
    import numpy as np

    from mmjax import Stream

    names = [name for name in sys.argv[1:] if name not in (PLAIN, KEPT)] or list(CASES)
    for name in names:
        model, arrays, forward, target = CASES[name]()
        streams = {key: Stream.of(jnp.asarray(values)) for key, values in arrays.items()}
        alone, scanned, (loss, gradient), params = ours(model, streams, target)
        peer, (their_loss, their_gradient) = theirs(forward, params, target)
        np.testing.assert_allclose(loss, their_loss, rtol=1e-4)
        for path, value in flat(gradient).items():
            np.testing.assert_allclose(value, their_gradient[path], rtol=2e-2, atol=2e-4, err_msg=path)
        print(f"{name}: loss {float(loss):.5f} beside {their_loss:.5f}, {pages}")
        compare("  a step of its own", alone, peer)
        compare("  inside the scan", scanned, peer)


if __name__ == "__main__":
    main()
