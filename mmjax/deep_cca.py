"""Deep canonical correlation analysis (Andrew et al. 2013): a shared space of two modalities by correlation alone."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.dual_encoder import DualEncoder, Embedded, item_pairs
from mmjax.losses import normalise
from mmjax.stream import Stream, apply_mask
from mmjax.typing import Array, Bool, Float, Mapping

__all__ = ["DeepCCA", "canonical_maps", "paired_moments"]

Moments = dict[str, Array]
"""``weight`` (share that is not of the start), ``left``, ``right``: means; ``left_left``, ``right_right``,
``left_right``: covariances."""


class DeepCCA(DualEncoder):
    """Embeds two modalities where they correlate; to be trained with ``Retrieval(method="dcca")``.

    The objective knows coordinates up to any linear map, so that cosines between them mean nothing. The paper fits
    linear CCA on all of train afterwards; here moving averages of the batches' means and covariances (the collection
    ``moments``) stand for train, and embeddings are canonical coordinates by them, each multiplied by its correlation
    (what of a modality is best known from the other counts most), as unit vectors. The objective and the averages are
    of pairs of items: a photograph with five captions is five pairs.

    Attributes:
      dim: as of ``DualEncoder``; the rows of a batch must be many times as many.
      momentum: of the moving averages, which begin without a bias towards 0.
      ridge: added to the diagonals of both covariances.

    Raises:
      ValueError: other than two streams; and as ``DualEncoder``.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((4, 1, 8))), "text": Stream.of(jnp.ones((4, 3, 6)))}
      >>> outputs, variables = DeepCCA({}, dim=2, several=("text",)).init_with_output(jax.random.key(0), streams)
      >>> outputs.embeddings["text"].values.shape, variables["moments"]["average"]["left_right"].shape
      ((4, 3, 2), (2, 2))
    """

    momentum: float = 0.99
    ridge: float = 1e-4

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, targets: Any = None, train: bool = False) -> Embedded:
        if len(streams) != 2:
            raise ValueError(f"DeepCCA is of two streams, got {sorted(streams)}")
        coordinates = self.coordinates(streams, train=train)
        left, right = sides = [coordinates[name] for name in sorted(coordinates)]
        widths = {side: one.values.shape[-1] for side, one in zip(("left", "right"), sides)}
        average = self.variable("moments", "average", _nothing, **widths)
        if train and not self.is_initializing():
            new = paired_moments(*item_pairs(left, right))
            fresh = jnp.where(new.pop("rows") > 1, 1 - self.momentum, 0)  # a batch without pairs says nothing
            new["weight"] = jnp.float32(1)
            average.value = jax.tree.map(lambda a, b: a + fresh * (b - a), average.value, new)
        embeddings = {}
        for name, (mean, turn) in zip(sorted(coordinates), canonical_maps(average.value, self.ridge)):
            one = coordinates[name]
            turned = (one.values - mean) @ turn
            embeddings[name] = Stream(apply_mask(normalise(turned), one.mask), one.mask)
        return Embedded(embeddings, jnp.float32(1), jnp.float32(0), train, coordinates)


def paired_moments(
    left: Float[Array, "pairs left"], right: Float[Array, "pairs right"], present: Bool[Array, " pairs"]
) -> Moments:
    """Means and covariances of the pairs that are there, and their number ``rows``; no gradient.

    Example:
      >>> x = jnp.array([[0.0], [2.0], [9.0]])
      >>> found = paired_moments(x, -x, jnp.array([True, True, False]))
      >>> [float(found[name].squeeze()) for name in ("rows", "left", "right", "left_left", "left_right")]
      [2.0, 1.0, -1.0, 2.0, -2.0]
    """
    count = present.sum()
    centred, means = [], []
    for values in (left, right):
        kept = apply_mask(jax.lax.stop_gradient(values).astype(jnp.float32), present)
        means.append(kept.sum(0) / jnp.maximum(count, 1))
        centred.append(apply_mask(kept - means[-1], present))
    x, y = centred
    rest = jnp.maximum(count - 1, 1)
    return {"rows": count, "left": means[0], "right": means[1], "left_left": x.T @ x / rest,
            "right_right": y.T @ y / rest, "left_right": x.T @ y / rest}  # fmt: skip


def canonical_maps(moments: Moments, ridge: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Of each side its mean and the map ``[width, directions]`` to canonical coordinates times their correlations.

    Before anything was averaged the maps are of no use, but finite.

    Example:
      >>> x = jnp.array([[0.0], [2.0], [4.0]])
      >>> moments = paired_moments(x, -x, jnp.ones(3, bool)) | {"weight": jnp.ones(())}
      >>> _ = moments.pop("rows")
      >>> (mean, turn), (other, back) = canonical_maps(moments, 1e-4)
      >>> jnp.abs((x - mean) @ turn).round(2).ravel().tolist()  # of variance 1
      [1.0, 0.0, 1.0]
    """
    weight = jnp.maximum(moments["weight"], 1e-8)
    unbiased = {name: value / weight for name, value in moments.items() if name != "weight"}
    turns = _turns(unbiased["left_left"], unbiased["right_right"], unbiased["left_right"], jnp.float32(ridge))
    return (unbiased["left"], turns[0]), (unbiased["right"], turns[1])


@jax.custom_batching.sequential_vmap  # several factorisations at once may wait for ever, see losses.correlation
def _turns(left: Array, right: Array, cross: Array, ridge: Array) -> tuple[Array, Array]:
    def factor(covariance: Array) -> Array:
        return jnp.linalg.cholesky(covariance + ridge * jnp.eye(len(covariance)))

    def divide(lower: Array, values: Array, trans: int = 0) -> Array:
        return jax.scipy.linalg.solve_triangular(lower, values, lower=True, trans=trans)

    a, b = factor(left), factor(right)
    u, correlations, vt = jnp.linalg.svd(divide(b, divide(a, cross).T).T, full_matrices=False)
    return divide(a, u * correlations, 1), divide(b, vt.T * correlations, 1)


def _nothing(left: int, right: int) -> Moments:
    shapes = {"weight": (), "left": (left,), "right": (right,), "left_left": (left, left)}
    shapes |= {"right_right": (right, right), "left_right": (left, right)}
    return {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
