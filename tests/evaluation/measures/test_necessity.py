"""The gate: a model that uses a modality passes, one that does not fails, whatever its answers look like."""

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.measures.item_scores import item_scorer
from mmjax.evaluation.measures.necessity import _incongruent, gate
from mmjax.evaluation.statistics.significance import paired_gain

N = 60
RNG = np.random.default_rng(0)
TARGET = RNG.integers(0, 3, N)
LOGITS = {m: RNG.normal(size=(4, N, 3)) + 1.2 * np.eye(3)[TARGET] for m in "ab"}


def model(used):
    def mixed(rows):
        taken = {m: np.asarray(rows[m])[:, None] for m in used}
        return sum(np.where(taken[m] >= 0, LOGITS[m][:, taken[m][:, 0]], 0) for m in used).astype(np.float32)

    return mixed


def test_a_model_that_uses_both_passes_and_one_that_uses_one_fails():
    found = gate(item_scorer(model("ab"), TARGET), "ab", "b", N)
    assert found.matters and found.modality == "b" and set(found.against) == {"incongruent", "shuffled", "blanked"}
    assert all(c.gain.mean > 0.1 and c.score.shape == (4,) for c in found.against.values())
    assert found.against["incongruent"].gain.lower > 0
    assert found.against["blanked"].score.mean() > found.against["incongruent"].score.mean()  # no evidence, not wrong
    found = gate(item_scorer(model("a"), TARGET), "ab", "b", N)
    assert not found.matters
    assert all(c.gain.mean == 0 and c.gain.p == 1 for c in found.against.values())
    assert not gate(item_scorer(model("b"), TARGET), "ab", "a", N).matters


def test_contrasts_are_paired_gains():
    score, groups = item_scorer(model("ab"), TARGET), np.arange(N) // 3
    found = gate(score, "ab", "b", N, groups=groups, against=("blanked", "shuffled"), draws=2, seed=3)
    here = np.arange(N)
    right = score({"a": here, "b": here})
    np.testing.assert_allclose(found.score, right.mean(1))
    blanked = score({"a": here, "b": np.full(N, -1)})
    assert found.against["blanked"].gain == paired_gain(right, blanked, groups, seed=3)
    assert found.against["blanked"].gain.unit == "group"
    draws = [np.random.default_rng((3, draw)).permutation(N) for draw in range(2)]
    shuffled = np.mean([score({"a": here, "b": p}) for p in draws], axis=0)
    np.testing.assert_allclose(found.against["shuffled"].score, shuffled.mean(1))
    first, second = (found.against[name].gain for name in ("blanked", "shuffled"))
    assert first.lower < 0 and first.p_permutation < 0.05 < first.p_t  # seeds disagree: not yet sure
    assert second.lower > 0 and second.p < 0.05 and not found.matters  # the first one decides


def test_it_serves_generation():
    """A captioner says what the picture shows, one that is blind what the sentence before suggests."""
    words = np.array(["a dog", "a cat", "a bird"])
    references = words[TARGET]

    def overlap(said):
        return [[len({*s.split()} & {*r.split()}) / 2 for s, r in zip(answers, references)] for answers in said]

    def sees(rows):
        picture = np.asarray(rows["picture"])
        return overlap([np.where(picture >= 0, references[picture], "a")] * 3)

    def blind(rows):
        return overlap([words[(np.asarray(rows["text"]) + seed) % 3] for seed in range(3)])

    arguments = (["text", "picture"], "picture", N)
    seeing = gate(sees, *arguments)
    assert seeing.matters and seeing.score.tolist() == [1, 1, 1]
    assert seeing.against["blanked"].score.tolist() == [0.5, 0.5, 0.5]
    assert not gate(blind, *arguments).matters


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (3, 1, 2), (1,) * 7, (4, 4, 1), (5, 2, 2, 3)])
def test_incongruent_items_are_of_another_group(sizes):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    seen = []
    for draw in range(30):
        partner = _incongruent(groups, np.random.default_rng(draw))
        assert sorted(partner) == list(range(len(groups)))
        fixed = groups[partner] == groups if 2 * max(sizes) <= len(groups) else partner == np.arange(len(groups))
        assert not fixed.any()
        seen.append(tuple(partner))
    assert len(groups) == 2 or len(set(seen)) > 1


def test_one_large_group_falls_back_to_other_items():
    partner = _incongruent(np.array([0, 0, 0, 1]), np.random.default_rng(0))
    assert sorted(partner) == [0, 1, 2, 3] and (partner != np.arange(4)).all()


def test_wrong_arguments_are_said():
    score = item_scorer(model("ab"), TARGET)
    with pytest.raises(UsageError, match="no modality 'c'; there are \\['a', 'b'\\]"):
        gate(score, "ab", "c", N)
    with pytest.raises(UsageError, match="incongruent, shuffled, blanked; got \\['zeroed'\\]"):
        gate(score, "ab", "b", N, against=("zeroed",))
    with pytest.raises(UsageError, match="two items or more"):
        gate(score, "ab", "b", 1)
    with pytest.raises(UsageError, match="scores must be finite and \\[seeds, 60\\]"):
        gate(lambda rows: np.zeros(N), "ab", "b", N)
