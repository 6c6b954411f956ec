"""Greedy decoding and beam search, beside an eager PyTorch loop with a cache of keys and values, parameters equal.

    python -m benchmarks.generation [greedy] [beam] [--layers 4 --width 256 --batch 32 --length 32 --vocabulary 8000]

Both first show that they say the same with the same scores. The model never ends a sentence, so that both take every
step; what an end costs (choosing among ended and live ones) both pay. PyTorch's loop is written as one would who cares:
inference mode, a cache head by head that is allocated once, one product for query, key and value, its fused attention
over the part of the cache that is filled, one memory for all beams of an example.
"""

import argparse
import math

from benchmarks.timing import compare, single_thread

BEAMS, ITEMS, HEADS, END = 4, 49, 4, 0


def draw(args):
    """A decoder with random parameters that never ends a sentence, and a memory of a feature map's size."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mmjax import Stream
    from mmjax.decoder import DecoderBlock, TextDecoder

    random = np.random.RandomState(0)
    head = TextDecoder(args.width, args.vocabulary, num_layers=args.layers, block=DecoderBlock(num_heads=HEADS))
    memory = Stream.of(jnp.asarray(random.randn(args.batch, ITEMS, args.width), jnp.float32))
    words = Stream.of(jnp.zeros((args.batch, 2), jnp.int32))
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), memory, targets=words))["params"]

    def value(path, leaf):
        name = path[-1].key
        scale = leaf.shape[0] ** -0.5 if name == "kernel" else 0.1
        return jnp.asarray((name == "scale") + scale * random.randn(*leaf.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(value, shapes)
    params["out"]["bias"] = params["out"]["bias"].at[END].set(-1e4)
    return head, params, memory


class Peer:
    """The same decoder in PyTorch, a step at a time."""

    def __init__(self, params, memory, length, layers):
        import jax
        import numpy as np
        import torch

        torch.set_num_threads(1)
        self.length, self.layers, self.memory = length, layers, torch.tensor(np.asarray(memory.values))
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        # As in torch.nn.Linear: [out, in].
        self.p = {
            "/".join(key.key for key in path): torch.tensor(np.asarray(x.T if path[-1].key == "kernel" else x).copy())
            for path, x in leaves
        }
        self.width = self.p["first"].shape[0]
        for block in (f"blocks_{i}" for i in range(layers)):
            for part in ("weight", "bias"):
                name = {"weight": "kernel", "bias": "bias"}[part]
                each = [self.p[f"{block}/self_attention/{x}/{name}"] for x in ("query", "key", "value")]
                self.p[f"{block}/qkv/{name}"] = torch.cat(each)
        steps = np.arange(length)[:, None] * np.exp(-np.log(10_000.0) * np.arange(0, self.width, 2) / self.width)
        self.positions = torch.tensor(np.stack([np.sin(steps), np.cos(steps)], -1).reshape(length, -1)).float()

    def linear(self, name, x):
        import torch.nn.functional as F

        return F.linear(x, self.p[f"{name}/kernel"], self.p.get(f"{name}/bias"))

    def norm(self, name, x):
        import torch.nn.functional as F

        return F.layer_norm(x, x.shape[-1:], self.p[f"{name}/scale"], self.p[f"{name}/bias"], eps=1e-6)

    def heads(self, x):
        return x.reshape(*x.shape[:-1], HEADS, -1).transpose(-2, -3)

    def start(self, beams):
        """Keys and values of the memory, and an empty cache of the rows."""
        import torch

        self.beams, self.read = beams, []
        rows = len(self.memory) * beams
        for i in range(self.layers):
            context = self.norm(f"blocks_{i}/memory_norm", self.memory)
            self.read.append(
                [
                    self.heads(self.linear(f"blocks_{i}/cross_attention/{x}", context)).contiguous()
                    for x in ("key", "value")
                ]
            )
        return [torch.zeros(2, rows, HEADS, self.length, self.width // HEADS) for _ in range(self.layers)]

    def step(self, ids, caches, t):
        """Logits ``[rows, vocabulary]``; the caches change in place."""
        import torch.nn.functional as F

        x = self.p["first"].expand(len(ids), -1) if t == 0 else F.embedding(ids, self.p["embedding/embedding"])
        x = x * math.sqrt(self.width) + self.positions[t]
        for i, cache in enumerate(caches):
            block = f"blocks_{i}"
            q, k, v = self.linear(f"{block}/qkv", self.norm(f"{block}/self_norm", x)).chunk(3, -1)
            cache[0, :, :, t], cache[1, :, :, t] = k.unflatten(-1, (HEADS, -1)), v.unflatten(-1, (HEADS, -1))
            q = q.unflatten(-1, (HEADS, -1))[:, :, None]
            mixed = F.scaled_dot_product_attention(q, cache[0, :, :, : t + 1], cache[1, :, :, : t + 1])
            x = x + F.linear(mixed.flatten(1), self.p[f"{block}/self_attention/out/kernel"])
            q = self.linear(f"{block}/cross_attention/query", self.norm(f"{block}/cross_norm", x))
            q = self.heads(q.view(-1, self.beams, self.width))
            mixed = F.scaled_dot_product_attention(q, *self.read[i]).transpose(1, 2).reshape(x.shape)
            x = x + F.linear(mixed, self.p[f"{block}/cross_attention/out/kernel"])
            y = F.gelu(self.linear(f"{block}/mlp/dense_0", self.norm(f"{block}/mlp_norm", x)), approximate="tanh")
            x = x + self.linear(f"{block}/mlp/dense_1", y)
        return self.linear("out", self.norm("norm", x))

    def greedy(self):
        """Tokens ``[batch, length]`` and their log-probabilities."""
        import torch

        with torch.inference_mode():
            caches = self.start(1)
            ids = torch.zeros(len(self.memory), dtype=torch.long)
            going, scores, said = torch.ones(len(ids), dtype=torch.bool), torch.zeros(len(ids)), []
            for t in range(self.length):
                logits = self.step(ids, caches, t)
                best, ids = logits.max(-1)
                scores += torch.where(going, best - logits.logsumexp(-1), 0)
                going &= ids != END
                said.append(torch.where(going, ids, END))
                if not going.any():
                    break
            return torch.stack(said, 1).numpy(), scores.numpy()

    def beam(self):
        """The best of the beam: tokens ``[batch, length]`` and scores, by the rules of ``mmjax.generation``."""
        import torch

        with torch.inference_mode():
            batch, beams, caches = len(self.memory), BEAMS, self.start(BEAMS)
            ids = torch.zeros(batch * beams, dtype=torch.long)
            scores = torch.full((batch, beams), -torch.inf)
            scores[:, 0] = 0
            said = torch.zeros(batch, beams, self.length, dtype=torch.long)
            done, done_said = torch.full((batch, 1), -torch.inf), torch.zeros(batch, 1, self.length, dtype=torch.long)
            for t in range(self.length):
                totals = self.step(ids, caches, t).log_softmax(-1).view(batch, beams, -1) + scores[..., None]
                ends = totals[..., END].clone()
                totals[..., END] = -torch.inf
                size = totals.shape[-1]
                scores, places = totals.view(batch, -1).topk(beams)
                least = torch.cat([ends, scores], 1).topk(beams)[0][:, -1:]
                ends = torch.where(ends >= least, ends, -torch.inf)
                done, where = torch.cat([done, ends], 1).topk(1)
                done_said = torch.cat([done_said, said], 1).gather(1, where[..., None].expand(-1, -1, self.length))
                parents, words = places // size, places % size
                said = said.gather(1, parents[..., None].expand(-1, -1, self.length))
                said[:, :, t] = words
                rows = (torch.arange(batch)[:, None] * beams + parents).view(-1)
                caches = [cache.index_select(1, rows) for cache in caches]
                ids = words.view(-1)
                if not (scores.max(1)[0] > done.min(1)[0]).any():
                    break
            done, where = torch.cat([done, scores], 1).topk(1)
            done_said = torch.cat([done_said, said], 1).gather(1, where[..., None].expand(-1, -1, self.length))
            return done_said[:, 0].numpy(), done[:, 0].numpy()


def main() -> None:
    """Prints the ratios of greedy decoding and of a beam of four, or of the one that is named."""
    single_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="greedy, beam; both")
    for name, default in (("layers", 4), ("width", 256), ("batch", 32), ("length", 32), ("vocabulary", 8_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    import jax
    import numpy as np

    from mmjax.generation import beam_search, generate_greedily

    head, params, memory = draw(args)
    peer = Peer(params, memory, args.length, args.layers)
    for what in args.what or ("greedy", "beam"):
        generate, options = (generate_greedily, {}) if what == "greedy" else (beam_search, {"beams": BEAMS})
        options = {"max_length": args.length, "end_id": END, **options}
        ours = jax.jit(lambda p, m, g=generate, o=options: g(head, {"params": p}, m, **o))
        found, (said, scores) = ours(params, memory), getattr(peer, what)()
        np.testing.assert_array_equal(found.tokens.values[:, 0], said)
        np.testing.assert_allclose(found.scores[:, 0], scores, rtol=1e-4)
        name = f"{what}, {args.layers} layers of width {args.width}, batch {args.batch}, {args.length} tokens"
        compare(name, lambda f=ours: jax.block_until_ready(f(params, memory)), getattr(peer, what), rounds=args.rounds)


if __name__ == "__main__":
    main()
