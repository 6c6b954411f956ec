"""Metrics against scikit-learn, SciPy and hand-computed numbers; what resampling and pseudo-values give."""

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from mmjax.errors import UsageError
from mmjax.evaluation.scores import Score, register, score, scores
from mmjax.evaluation.scores.ranking import average_precision, average_precisions
from mmjax.stream import Stream
from tests.evaluation.sentences import sentences

RANDOM = np.random.default_rng(0)
N = 60
CLASS = RANDOM.integers(0, 3, N)
LOGITS = RANDOM.normal(size=(2, N, 3)) + 1.5 * np.eye(3)[CLASS]
VALUE = RANDOM.normal(size=N)
PREDICTED = 0.6 * VALUE + 0.8 * RANDOM.normal(size=(2, N))
VECTOR = RANDOM.normal(size=(N, 3)) * [1, 100, 0.01] + [0, 5000, 0]
VECTORS = 0.6 * VECTOR + 0.4 * VECTOR.mean(0) + 0.5 * RANDOM.normal(size=(2, N, 3)) * [1, 100, 0.01]
LABEL = RANDOM.integers(0, 2, (N, 4))
LABEL_LOGITS = RANDOM.normal(size=(2, N, 4)) + LABEL - 0.4
RANK = RANDOM.integers(0, 20, (2, N))
DATA = {
    "classes": (LOGITS, CLASS),
    "values": (PREDICTED, VALUE),
    "vectors": (VECTORS, VECTOR),
    "labels": (LABEL_LOGITS, LABEL),
    "ranks": (RANK, np.zeros(N)),
    "other": (  # both sides of a shared space, one item of the first and two of the second
        (RANDOM.normal(size=(2, N, 2, 2, 3)) + RANDOM.normal(size=(N, 1, 1, 3)))
        * np.array([[1, 0], [1, 1]])[..., None],
        {"label": CLASS, "unshared": RANDOM.uniform(size=N) < 0.6},
    ),
    "sentences": sentences(N),
    "tokens": (
        RANDOM.normal(size=(2, N, 5, 4)),
        Stream(RANDOM.integers(0, 4, (N, 5)), np.arange(5) < RANDOM.integers(1, 6, N)[:, None]),
    ),
}


def softmax(logits):
    mass = np.exp(logits)
    return mass / mass.sum(-1, keepdims=True)


PEERS = {
    "accuracy": lambda p, t: sklearn.metrics.accuracy_score(t, p.argmax(-1)),
    "accuracy_balanced": lambda p, t: sklearn.metrics.balanced_accuracy_score(t, p.argmax(-1)),
    "f1_macro": lambda p, t: sklearn.metrics.f1_score(t, p.argmax(-1), average="macro"),
    "f1_weighted": lambda p, t: sklearn.metrics.f1_score(t, p.argmax(-1), average="weighted"),
    "auroc": lambda p, t: sklearn.metrics.roc_auc_score(t, softmax(p), multi_class="ovr"),
    "mae": lambda p, t: sklearn.metrics.mean_absolute_error(t, p),
    "mse": lambda p, t: sklearn.metrics.mean_squared_error(t, p),
    "pearson": lambda p, t: scipy.stats.pearsonr(p, t).statistic,
    "spearman": lambda p, t: scipy.stats.spearmanr(p, t).statistic,
    "scores_r2": lambda p, t: sklearn.metrics.r2_score(t, p),
    "scores_mae": lambda p, t: sklearn.metrics.mean_absolute_error(t, p),
    "scores_pearson": lambda p, t: np.mean([scipy.stats.pearsonr(*pair).statistic for pair in zip(p.T, t.T)]),
    "labels_f1_micro": lambda p, t: sklearn.metrics.f1_score(t, p > 0, average="micro"),
    "labels_f1_macro": lambda p, t: sklearn.metrics.f1_score(t, p > 0, average="macro"),
    "labels_f1_items": lambda p, t: sklearn.metrics.f1_score(t, p > 0, average="samples", zero_division=1),
    "labels_exact": lambda p, t: sklearn.metrics.accuracy_score(t, p > 0),
    "labels_auroc": lambda p, t: sklearn.metrics.roc_auc_score(t, p, average="macro"),
    "tokens_accuracy": lambda p, t: sklearn.metrics.accuracy_score(t.values[t.mask], p[t.mask].argmax(-1)),
    "tokens_nats": lambda p, t: sklearn.metrics.log_loss(t.values[t.mask], softmax(p[t.mask])),
    "labels_map": lambda p, t: sklearn.metrics.average_precision_score(t, p, average="macro"),
}


@pytest.mark.parametrize("name", PEERS)
def test_the_metric_is_that_of_its_peer(name):
    metric = score(name)
    outputs, target = DATA[metric.outputs]
    expected = [PEERS[name](one, target) for one in outputs]
    np.testing.assert_allclose(metric.of(outputs, target), expected, rtol=1e-9)


OWN_CANDIDATES = [name for name, one in scores().items() if one.outputs == "other"] + ["cider_d"]
"""Every item of the split stays a candidate in a draw, see ``tests/test_ranking.py``; or counts in the frequency of
n-grams."""


@pytest.mark.parametrize("name", [name for name in scores() if name not in OWN_CANDIDATES])
def test_a_draw_is_the_metric_of_the_items_drawn(name):
    metric = score(name)
    outputs, target = DATA[metric.outputs]
    drawn = np.random.default_rng(1).integers(0, N, (3, N))
    weight = np.stack([np.bincount(one, minlength=N) for one in drawn])
    some = [jax.tree.map(lambda values, one=one: values[one], target) for one in drawn]
    expected = np.stack([metric.of(outputs[:, one], known) for one, known in zip(drawn, some)], axis=1)
    rtol = 0.05 if name == "spearman" else 1e-9  # its ranks are taken once
    np.testing.assert_allclose(metric.resampled(outputs, target, weight), expected, rtol=rtol)


@pytest.mark.parametrize("name", [name for name in scores() if not name.startswith("median")])  # the jackknife fails
def test_what_items_add_has_the_metric_as_its_mean_and_the_bootstrap_as_its_spread(name):
    metric = score(name)
    outputs, target = DATA[metric.outputs]
    added = metric.per_item(outputs, target)
    np.testing.assert_allclose(added.mean(1), metric.sign * metric.of(outputs, target), rtol=1e-9)
    weight = np.random.default_rng(2).multinomial(N, np.full(N, 1 / N), 4000)
    spread = metric.resampled(outputs, target, weight).std(1)
    np.testing.assert_allclose(added.std(1) / np.sqrt(N), spread, rtol=0.15)


def test_pseudo_values_are_those_of_leaving_an_item_out():
    metric = score("f1_macro")
    added = metric.per_item(LOGITS, CLASS)
    whole = metric.of(LOGITS, CLASS)
    left = np.stack([metric.of(np.delete(LOGITS, i, axis=1), np.delete(CLASS, i)) for i in range(N)], axis=1)
    pseudo = N * whole[:, None] - (N - 1) * left
    np.testing.assert_allclose(added - added.mean(1, keepdims=True), pseudo - pseudo.mean(1, keepdims=True), atol=1e-9)


def test_f1_by_hand():
    logits = np.eye(3)[[0, 0, 1, 1, 1]][None]
    target = np.array([0, 1, 1, 1, 0])  # class 0: 1 hit of 2 predicted and 2 there; class 1: 2 hits of 3 and 3
    np.testing.assert_allclose(score("f1_macro").of(logits, target), (0.5 + 2 / 3) / 2)
    np.testing.assert_allclose(score("f1_weighted").of(logits, target), (2 * 0.5 + 3 * 2 / 3) / 5)


def test_a_correlation_survives_a_large_mean_and_none_is_made_of_a_constant():
    far = score("pearson").of(PREDICTED + 2000, VALUE + 2000)
    np.testing.assert_allclose(far, score("pearson").of(PREDICTED, VALUE), rtol=1e-8)
    for constant in (np.full((1, N), 0.3), np.full((1, N), 0.1) + 1e-17):
        assert np.isnan(score("pearson").of(constant, VALUE)).all()
        assert np.isnan(score("spearman").of(constant, VALUE)).all()


def test_a_score_that_is_constant_has_no_share_in_the_means_of_several():
    target = np.concatenate([VECTOR, np.full((N, 1), 0.1)], 1)
    outputs = np.concatenate([VECTORS, np.full((2, N, 1), 0.3)], -1)
    for name in ("scores_r2", "scores_pearson"):
        np.testing.assert_allclose(score(name).of(outputs, target), score(name).of(VECTORS, VECTOR), rtol=1e-9)
        assert np.isnan(score(name).of(outputs[..., 3:], target[:, 3:])).all()
    np.testing.assert_allclose(score("scores_r2").of(np.tile(VECTOR.mean(0), (1, N, 1)), VECTOR), 0, atol=1e-9)


def test_ties_count_half_in_the_area():
    outputs = np.array([[[0.0], [0.0], [1.0], [0.0]]])
    target = np.array([[1], [0], [1], [0]])  # pairs: two ties and two wins of four
    np.testing.assert_allclose(score("labels_auroc").of(outputs, target), 0.75)


def test_recall_by_hand():
    ranks = np.array([[0, 1, 4, 5, 9, 10]])
    assert [float(score(f"recall@{k}").of(ranks, None)[0]) for k in (1, 5, 10)] == [1 / 6, 3 / 6, 5 / 6]


def test_a_thousand_classes_take_no_memory_with_their_square():
    import tracemalloc

    target = np.arange(2000) % 1000
    logits = np.random.default_rng(0).normal(size=(1, 2000, 1000)).astype(np.float32)
    tracemalloc.start()
    score("f1_macro").per_item(logits, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6  # blocks of 32 MB with their temporaries


def test_wrong_shapes_and_names_are_told():
    with pytest.raises(UsageError, match=r"row 'text': accuracy needs outputs \[seeds, items, classes\]"):
        score("accuracy").check(PREDICTED, CLASS, "text")
    with pytest.raises(UsageError, match="row 'text': labels_f1_micro needs outputs"):
        score("labels_f1_micro").check(LABEL_LOGITS, CLASS, "text")
    outputs, words = DATA["tokens"]
    with pytest.raises(
        UsageError, match=r"tokens_nats needs outputs \[seeds, items, steps, classes\] with a target, a "
    ):
        score("tokens_nats").check(outputs, words.values, "text")  # an array: what is padding?
    with pytest.raises(UsageError, match=r"outputs \(2, 60, 4, 4\) and a Stream \(60, 5\)"):
        score("tokens_nats").check(outputs[:, :, :4], words, "text")
    with pytest.raises(UsageError, match="no score 'acuracy'; there are acc2_has0"):
        score("acuracy")
    with pytest.raises(UsageError, match="there is a score 'mae' already"):
        register(score("mae"))
    with pytest.raises(UsageError, match="needs items="):
        Score("mine", "nothing", "mine", "values")


def test_no_metric_is_known_by_its_name_outside_the_scores():
    import pathlib
    import re

    import mmjax

    package = pathlib.Path(mmjax.__file__).parent
    files = [*(package / "evaluation").rglob("*.py"), *(package / "experiment").rglob("*.py")]
    literal = re.compile(r"""[!=]=\s*["'](accuracy|mae)["']|["'](accuracy|mae)["']\s*[!=]=""")
    assert len(files) > 50
    assert not [str(file) for file in files if literal.search(file.read_text(encoding="utf-8"))]


def test_average_precisions_of_many_queries_are_those_of_each():
    rng = np.random.default_rng(3)
    similarity, right = rng.integers(0, 6, (40, 17)) / 4, rng.random((40, 17)) < 0.2  # many ties
    one = np.ones((1, 17))
    each = [average_precision(row, chosen, one)[0] for row, chosen in zip(similarity, right)]
    assert np.isnan(each).any()
    np.testing.assert_allclose(average_precisions(similarity, right), each, rtol=1e-12)


def test_versions_of_items_pooled_are_the_items_of_all_of_them():
    """By counts of each version, what all items at once give; of a metric of ranks candidates are the version's own."""
    rng = np.random.default_rng(4)
    versions, target = [rng.normal(size=(2, 30, 3)) for _ in range(3)], rng.integers(0, 3, 30)
    weights = [rng.random((4, 30)) for _ in versions]
    f1 = score("f1_macro")
    together = f1.resampled(np.concatenate(versions, 1), np.tile(target, 3), np.concatenate(weights, 1))
    np.testing.assert_allclose(f1.pooled(versions, target, weights), together, rtol=1e-9)
    spaces = rng.normal(size=(2, 1, 30, 2, 1, 8)).astype(np.float32)
    spaces /= np.linalg.norm(spaces, axis=-1, keepdims=True)
    both = score("map").pooled(list(spaces), target, [np.ones((1, 30))] * 2)
    apart = [score("map").of(one, target) for one in spaces]
    np.testing.assert_allclose(both[:, 0], np.mean(apart, axis=0), rtol=1e-9)
