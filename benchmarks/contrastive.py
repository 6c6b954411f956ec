"""Host memory and time of a contrastive loss with its gradient on a large batch, in blocks.

    python -m benchmarks.contrastive                        # 32,768 rows, width 512, blocks of 256, one thread
    python -m benchmarks.contrastive --loss dense --rows 4096

The peak is that of the whole process: interpreter, libraries, embeddings and gradients are in it. The dense loss of as
many rows would hold several products of 4.3 GB.
"""

import argparse
import os
import resource
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--loss", choices=("info_nce", "sigmoid", "dense"), default="info_nce")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
        " --xla_cpu_multi_thread_eigen=false" if args.threads == 1 else ""
    )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("NPROC", str(args.threads))

    import jax
    import jax.numpy as jnp

    from mmjax.losses import chunked_info_nce, chunked_sigmoid_contrastive, info_nce, normalise

    def loss(left, right, scale, bias):
        if args.loss == "dense":
            return info_nce(left, right, scale=scale).mean()
        if args.loss == "sigmoid":
            return chunked_sigmoid_contrastive(left, right, scale=scale, bias=bias, block=args.block).mean()
        return chunked_info_nce(left, right, scale=scale, block=args.block).mean()

    def total(values, scale, bias):
        return loss(normalise(values[0]), normalise(values[1]), scale, bias)

    keys = jax.random.split(jax.random.key(0))
    shape = (args.rows, args.width)
    values = tuple(jax.random.normal(key, shape) for key in keys)
    grad = jax.jit(jax.value_and_grad(total, (0, 1, 2))).lower(values, jnp.float32(10.0), jnp.float32(-10.0)).compile()
    start, cpu = time.perf_counter(), time.process_time()
    value, (slopes, *_) = jax.block_until_ready(grad(values, jnp.float32(10.0), jnp.float32(-10.0)))
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    norm = float(sum(jnp.square(slope).sum() for slope in slopes) ** 0.5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{args.loss}, {args.rows:,} rows of width {args.width}, blocks of {args.block}: loss {float(value):.4f}, "
        f"gradient of norm {norm:.3e}, peak {peak:.2f} GiB, {wall:.1f} s, {cpu:.1f} s of CPU"
    )


if __name__ == "__main__":
    main()
