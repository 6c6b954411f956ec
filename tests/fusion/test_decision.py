"""Decision-level fusion against exact answers, in float64: a Gaussian world whose posteriors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression

from mmjax.fusion.decision import (
    _folds,
    cross_fit_stacking,
    fit_stacking,
    mean_of_logits,
    mean_of_probabilities,
    mean_of_scores,
    prior_corrected_product,
    product,
)

CLASSES, BATCH = 3, 400
PRIOR = np.array([0.6, 0.3, 0.1])
WIDTHS = {"audio": 2, "text": 4, "video": 3}
FUNCTIONS = {
    "mean_of_logits": mean_of_logits,
    "mean_of_probabilities": mean_of_probabilities,
    "product": product,
    "prior_corrected_product": lambda *args: prior_corrected_product(*args, log_prior=np.log(PRIOR)),
}
every_function = pytest.mark.parametrize("fuse", FUNCTIONS.values(), ids=FUNCTIONS)


class GaussianWorld:
    """Modalities that are Gaussian and independent given the class, and the log-likelihood of each."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.target = rng.choice(CLASSES, size=BATCH, p=PRIOR)
        self.log_likelihood = {}
        for name, width in WIDTHS.items():
            means = rng.normal(size=(CLASSES, width))
            root = rng.normal(size=(width, width))
            covariance = root @ root.T + np.eye(width)
            x = means[self.target] + rng.multivariate_normal(np.zeros(width), covariance, size=BATCH)
            self.log_likelihood[name] = np.stack(
                [multivariate_normal(mean, covariance).logpdf(x) for mean in means], axis=-1
            )

    @property
    def posteriors(self):
        """Exact unimodal log-posteriors, each with a constant of its own per row, as logits may have."""
        return {n: ll + np.log(PRIOR) + np.arange(BATCH)[:, None] / 50 for n, ll in self.log_likelihood.items()}

    def joint(self, present):
        """The exact joint log-posterior given what is present."""
        evidence = sum(np.where(present[n][:, None], ll, 0) for n, ll in self.log_likelihood.items())
        return log_softmax(evidence + np.log(PRIOR), axis=-1)


WORLD = GaussianWorld()
ALL = {name: np.ones(BATCH, bool) for name in WIDTHS}
SOME = {name: np.arange(BATCH) // 2**i % 2 == 0 for i, name in enumerate(WIDTHS)}  # every pattern, none included


@pytest.mark.parametrize("present", [ALL, {**ALL, "text": ~ALL["text"]}, SOME], ids=["all", "no text", "every pattern"])
def test_the_prior_corrected_product_is_the_joint_posterior(present):
    scores = prior_corrected_product(WORLD.posteriors, present, log_prior=np.log(PRIOR))
    assert scores.dtype == np.float64
    np.testing.assert_allclose(softmax(scores, -1), softmax(WORLD.joint(present), -1), rtol=0, atol=1e-12)


def test_the_plain_product_counts_the_prior_once_too_often_per_modality():
    scores = product(WORLD.posteriors, ALL)
    np.testing.assert_allclose(scores, log_softmax(WORLD.joint(ALL) + 2 * np.log(PRIOR), axis=-1), atol=1e-10)


def test_products_of_powers():
    weights = {"audio": 0.5, "text": 2.0, "video": 0.0}
    expected = sum(w * log_softmax(WORLD.posteriors[n], -1) for n, w in weights.items())
    np.testing.assert_allclose(product(WORLD.posteriors, weights=weights), log_softmax(expected, -1), atol=1e-12)


def test_means_by_hand():
    logits = {"a": np.log([[0.5, 0.25, 0.25]]), "b": np.log([[0.1, 0.8, 0.1]])}
    both = {"a": np.array([True]), "b": np.array([True])}
    np.testing.assert_allclose(np.exp(mean_of_probabilities(logits, both)), [[0.3, 0.525, 0.175]], rtol=1e-12)
    expected = np.sqrt([0.05, 0.2, 0.025])
    np.testing.assert_allclose(softmax(mean_of_logits(logits, both)), [expected / expected.sum()], rtol=1e-12)
    np.testing.assert_allclose(mean_of_logits(logits, {**both, "b": np.array([False])}), logits["a"], rtol=1e-12)


@pytest.mark.parametrize("fuse", [mean_of_logits, mean_of_probabilities])
def test_the_mean_of_identical_members_is_the_member(fuse):
    member = WORLD.posteriors["audio"]
    scores = fuse({"a": member, "b": member, "c": member})
    np.testing.assert_allclose(softmax(scores, -1), softmax(member, -1), atol=1e-12)


@every_function
def test_what_stands_in_an_absent_member_never_matters(fuse):
    poisoned = {n: np.where(SOME[n][:, None], logits, np.nan) for n, logits in WORLD.posteriors.items()}
    np.testing.assert_array_equal(fuse(poisoned, SOME), fuse(WORLD.posteriors, SOME))
    alone = {**{n: ~there for n, there in ALL.items()}, "text": ALL["text"]}
    np.testing.assert_allclose(softmax(fuse(poisoned | {"text": WORLD.posteriors["text"]}, alone), -1),
                               softmax(WORLD.posteriors["text"], -1), atol=1e-12)  # fmt: skip


@every_function
def test_with_nothing_present_only_the_prior_is_left(fuse):
    scores = fuse(WORLD.posteriors, {name: ~there for name, there in ALL.items()})
    expected = PRIOR if fuse is FUNCTIONS["prior_corrected_product"] else np.full(CLASSES, 1 / CLASSES)
    np.testing.assert_allclose(softmax(scores, -1), np.tile(expected, (BATCH, 1)), atol=1e-12)


def test_a_class_of_prior_zero_has_posterior_zero():
    """One of three classes never occurs in train: of the other two the result is that of a world without it."""
    prior = np.array([0.7, 0.0, 0.3])
    with np.errstate(divide="ignore"):
        scores = prior_corrected_product(WORLD.posteriors, SOME, log_prior=np.log(prior))
    assert not np.isnan(scores).any() and (softmax(scores, -1)[:, 1] == 0).all()
    without = {name: np.delete(logits, 1, axis=1) for name, logits in WORLD.posteriors.items()}
    expected = softmax(prior_corrected_product(without, SOME, log_prior=np.log([0.7, 0.3])), -1)
    # p(y | x) / p(y) of the classes that occur, up to a factor that no class sees
    np.testing.assert_allclose(np.delete(softmax(scores, -1), 1, axis=1), expected, atol=1e-12)
    grads = jax.grad(lambda x: prior_corrected_product({"a": x}, log_prior=jnp.log(jnp.asarray(prior)))[:, 0].sum())
    assert jnp.isfinite(grads(jnp.asarray(WORLD.posteriors["audio"][:5]))).all()


def test_a_class_that_is_impossible_to_all_members_stays_so():
    logits = {"a": np.array([[0.0, -np.inf, 1.0]]), "b": np.array([[2.0, -np.inf, 0.0]])}
    for fuse in (mean_of_logits, mean_of_probabilities, product):
        scores = fuse(logits)
        assert scores[0, 1] == -np.inf and np.isfinite(scores[0, [0, 2]]).all()
    assert np.isnan(mean_of_probabilities({**logits, "b": np.full((1, 3), np.nan)})).all()  # never hidden


@every_function
def test_jax_arrays_and_tracers_give_the_same(fuse):
    as_jax = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), WORLD.posteriors)
    scores = jax.jit(fuse)(as_jax, jax.tree.map(jnp.asarray, SOME))
    np.testing.assert_allclose(softmax(scores, -1), softmax(fuse(WORLD.posteriors, SOME), -1), atol=1e-4)


def test_the_mean_of_scores_is_that_of_the_members_present():
    scores = {"a": np.array([1.0, 2.0, np.nan, 5.0]), "b": np.array([3.0, np.nan, 4.0, 7.0])}
    present = {"a": np.array([True, True, False, False]), "b": np.array([True, False, True, False])}
    np.testing.assert_array_equal(mean_of_scores(scores, present), [2, 2, 4, 6])  # of none: what all say of nothing
    several = {name: np.stack([values, 10 * values], 1) for name, values in scores.items()}
    np.testing.assert_array_equal(mean_of_scores(several, present), [[2, 20], [2, 20], [4, 40], [6, 60]])
    for wrong in ({"a": np.zeros((4, 2, 1))}, {"a": np.zeros((4, 2)), "b": np.zeros(4)}):
        with pytest.raises(ValueError, match=r"\[batch\], or all \[batch, scores\], got .*'a': \(4, 2"):
            mean_of_scores(wrong)


def test_a_mean_of_logits_is_its_own_additive_projection():
    """EMAP (A11.4): averaging each modality over the other's examples loses nothing of a sum over modalities."""
    first, second = (WORLD.posteriors[name][:30] for name in ("audio", "text"))
    pairs = np.stack([[mean_of_logits({"a": a[None], "b": b[None]})[0] for b in second] for a in first])
    emap = pairs.mean(1) + pairs.mean(0) - pairs.mean((0, 1))
    np.testing.assert_allclose(emap, mean_of_logits({"a": first, "b": second}), atol=1e-12)


class TestStacking:
    def test_is_logistic_regression_on_centred_logits(self):
        stacking = fit_stacking(WORLD.posteriors, WORLD.target, SOME, penalty=2.0)
        rows = [np.where(SOME[n][:, None], x - x.mean(-1, keepdims=True), 0) for n, x in WORLD.posteriors.items()]
        features = np.concatenate(rows, -1)
        oracle = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(features, WORLD.target)
        probabilities = softmax(stacking(WORLD.posteriors, SOME), -1)
        np.testing.assert_allclose(probabilities, oracle.predict_proba(features), atol=1e-4)

    def test_finds_the_member_that_lies(self):
        liar = {"liar": np.random.default_rng(0).normal(0, 5, (BATCH, CLASSES)), "text": WORLD.posteriors["text"]}
        fitted = fit_stacking(liar, WORLD.target)
        np.testing.assert_array_less(np.abs(fitted.kernel[:CLASSES]).max(), np.abs(fitted.kernel[CLASSES:]).max() / 3)
        right = {name: (fuse(liar).argmax(-1) == WORLD.target).mean() for name, fuse in [("s", fitted), ("p", product)]}
        assert right["s"] > right["p"] + 0.1

    def test_a_class_that_validation_lacks_keeps_its_column(self):
        target = np.minimum(WORLD.target, 1)
        scores = fit_stacking(WORLD.posteriors, target)(WORLD.posteriors)
        assert scores.shape == (BATCH, CLASSES) and np.isfinite(scores).all()
        assert softmax(scores, -1)[:, 2].max() < 0.1

    def test_a_cross_fitted_score_is_by_a_fit_that_saw_neither_the_item_nor_its_group(self):
        group = np.arange(BATCH) // 20
        fold = _folds(WORLD.target, group, 5)
        assert all(np.unique(fold[group == one]).size == 1 for one in range(20))
        scores = cross_fit_stacking(WORLD.posteriors, WORLD.target, SOME, group=group)
        for number in range(5):
            own, others = fold == number, fold != number
            rest, part = ({n: x[rows] for n, x in WORLD.posteriors.items()} for rows in (others, own))
            here, there = ({n: x[rows] for n, x in SOME.items()} for rows in (others, own))
            expected = fit_stacking(rest, WORLD.target[others], here)(part, there)
            np.testing.assert_array_equal(scores[own], expected)
        each = _folds(WORLD.target, np.arange(BATCH), 5)
        counts = np.stack([np.bincount(WORLD.target[each == number], minlength=CLASSES) for number in range(5)])
        assert (np.ptp(counts, axis=0) <= 1).all()  # every class is spread evenly where groups allow it

    def test_what_is_measured_on_cross_fitted_scores_is_not_flattered(self):
        noise = {name: np.random.default_rng(1).normal(size=(60, 12)) for name in ("a", "b")}
        target = np.random.default_rng(2).integers(0, 12, 60)
        flattered = (fit_stacking(noise, target, penalty=1e-3)(noise).argmax(-1) == target).mean()
        honest = (cross_fit_stacking(noise, target, penalty=1e-3).argmax(-1) == target).mean()
        assert honest < 0.2 and flattered > 0.5  # the members say nothing

    def test_every_item_has_a_score_however_few_groups_there_are(self):
        for count in (1, 2, 3):
            scores = cross_fit_stacking(WORLD.posteriors, WORLD.target, group=np.arange(BATCH) % count)
            assert np.isfinite(scores).all() and (scores.argmax(-1) == WORLD.target).mean() > 0.7
        with pytest.raises(ValueError, match="two examples at least, got 1"):
            cross_fit_stacking({"a": np.zeros((1, 3))}, [0])

    def test_refuses_what_it_cannot_fit(self):
        with pytest.raises(ValueError, match=r"penalty=0 must be positive"):
            fit_stacking(WORLD.posteriors, WORLD.target, penalty=0)
        with pytest.raises(ValueError, match=r"numbers from 0 to 2, got .* from 0 to 3"):
            fit_stacking(WORLD.posteriors, WORLD.target + (WORLD.target == 2))
        stacking = fit_stacking(WORLD.posteriors, WORLD.target)
        with pytest.raises(ValueError, match=r"name \['audio'\], the members are \['audio', 'text', 'video'\]"):
            stacking({"audio": WORLD.posteriors["audio"]})


def test_errors_say_what_would_be_right():
    logits = WORLD.posteriors
    with pytest.raises(ValueError, match="at least one modality, got none"):
        mean_of_logits({})
    with pytest.raises(ValueError, match=r"\[batch, classes\], got .*'text': \(400,\)"):
        mean_of_logits({**logits, "text": logits["text"][:, 0]})
    with pytest.raises(ValueError, match=r"present name \['audio'\]"):
        mean_of_logits(logits, {"audio": ALL["audio"]})
    with pytest.raises(ValueError, match="weights name"):
        product(logits, weights={"audio": 1.0})
    with pytest.raises(ValueError, match=r"must be \(3,\), one entry per class"):
        prior_corrected_product(logits, log_prior=np.log([0.5, 0.5]))
