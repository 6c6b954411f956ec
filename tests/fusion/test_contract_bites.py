"""The contract suite fails on what it is there to catch: four fusions, each with one classic defect."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mmjax.layers import Dense, pool_modalities
from mmjax.stream import Stream, masked_mean, pooled
from tests.fusion.test_contract import METHODS, Case, test_contract

prove = test_contract
del test_contract  # imported to be called, not to be collected twice


class MeanOfPadding(nn.Module):
    """Averages over the length, padding included."""

    dim: int

    @nn.compact
    def __call__(self, streams, *, train=False) -> Stream:
        pools = {n: s.replace(values=s.values.mean(1, keepdims=True), mask=s.mask[:, :1]) for n, s in streams.items()}
        tokens = pool_modalities(pools, self.dim)
        return pooled(tokens.values.sum(1), tokens.mask.any(-1))


class BiasOfTheAbsent(nn.Module):
    """Projects and forgets to mask again."""

    dim: int

    @nn.compact
    def __call__(self, streams, *, train=False) -> Stream:
        tokens = [Dense(self.dim, name=f"in_{n}")(masked_mean(s.values, s.mask)) for n, s in sorted(streams.items())]
        return pooled(sum(tokens), jnp.stack([s.present for s in streams.values()]).any(0))


class LogOfTheMask(nn.Module):
    """Hides the absent by adding log(0), which has no gradient where everything is absent."""

    dim: int

    @nn.compact
    def __call__(self, streams, *, train=False) -> Stream:
        tokens = pool_modalities(streams, self.dim)
        weights = jax.nn.softmax(Dense(1, name="score")(tokens.values)[..., 0] + jnp.log(tokens.mask))
        return pooled(jnp.einsum("bm,bmd->bd", weights, tokens.values), tokens.mask.any(-1))


class FirstCounts(nn.Module):
    """Goes by the order of the dict."""

    dim: int

    @nn.compact
    def __call__(self, streams, *, train=False) -> Stream:
        tokens = pool_modalities(streams, self.dim)
        leader = tokens.values[:, sorted(streams).index(next(iter(streams)))]
        return pooled(tokens.values.sum(1) + leader, tokens.mask.any(-1))


@pytest.mark.parametrize(
    "defect, complaint",
    [
        (MeanOfPadding, "changed with nan where masked"),
        (BiasOfTheAbsent, "gradient to in_video/bias though {'video'} is absent"),
        (LogOfTheMask, "is not finite"),
        (FirstCounts, "Not equal to tolerance"),
    ],
)
def test_the_suite_catches(defect, complaint, monkeypatch):
    monkeypatch.setitem(METHODS, defect.__name__, defect)
    with pytest.raises(AssertionError, match=complaint):
        prove(defect.__name__, Case())
