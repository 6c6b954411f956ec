"""Closed forms against scikit-learn, cca-zoo, each other, and a published number."""

import itertools

import numpy as np
import pytest

from mmjax import correlation
from mmjax.correlation import fit_cca, fit_gcca, fit_kcca, fit_pls, linear_kernel, rbf_kernel
from mmjax.errors import UsageError
from mmjax.evaluation.measures.retrieval import mean_average_precision
from mmjax.losses import total_correlation

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(80, 2))
X = HIDDEN @ RNG.normal(size=(2, 5)) + RNG.normal(size=(80, 5))
Y = HIDDEN @ RNG.normal(size=(2, 4)) + RNG.normal(size=(80, 4))
Z = HIDDEN @ RNG.normal(size=(2, 3)) + RNG.normal(size=(80, 3))
NEW = RNG.normal(size=(10, 5))
VIEWS = {"x": X, "y": Y}


def assert_same_directions(found, expected, rtol=1e-6):
    """Each column the same but for its sign and size."""
    cosine = (found * expected).sum(0) / np.linalg.norm(found, axis=0) / np.linalg.norm(expected, axis=0)
    np.testing.assert_allclose(np.abs(cosine), 1, rtol=rtol)


def test_cca_has_the_correlations_it_says_and_nothing_else():
    fitted = fit_cca(VIEWS, 4)
    z = fitted.transform(VIEWS)
    joint = np.cov(z["x"], z["y"], rowvar=False)
    expected = np.block([[np.eye(4), np.diag(fitted.values)], [np.diag(fitted.values), np.eye(4)]])
    np.testing.assert_allclose(joint, expected, atol=1e-10)
    assert 1 > fitted.values[0] > fitted.values[-1] > 0
    moved = fit_cca({"x": X @ RNG.normal(size=(5, 5)) + 3, "y": Y}, 4)  # invertible maps change nothing
    np.testing.assert_allclose(moved.values, fitted.values, rtol=1e-8)


def test_cca_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.cross_decomposition")
    other = sklearn.CCA(4, scale=False, max_iter=10000, tol=1e-12).fit(X, Y)
    left, right = other.transform(X, Y)
    mine = fit_cca(VIEWS, 4)
    correlations = [np.corrcoef(left[:, k], right[:, k])[0, 1] for k in range(4)]
    np.testing.assert_allclose(mine.values, correlations, rtol=1e-6)
    assert_same_directions(mine.transform(VIEWS)["x"], left, rtol=1e-5)
    assert_same_directions(mine.transform({"x": NEW})["x"], other.transform(NEW), rtol=1e-5)


def test_pls_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.cross_decomposition")
    for scale in (False, True):
        left, right = sklearn.PLSSVD(3, scale=scale).fit(X, Y).transform(X, Y)
        mine = fit_pls(VIEWS, 3, scale=scale)
        z = mine.transform(VIEWS)
        np.testing.assert_allclose(np.abs(z["x"]), np.abs(left), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(np.abs(z["y"]), np.abs(right), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose([np.cov(z["x"][:, k], z["y"][:, k])[0, 1] for k in range(3)], mine.values, rtol=1e-8)
    canonical = sklearn.PLSCanonical(1, scale=False, tol=1e-12, max_iter=10000).fit(X, Y).transform(X)
    assert_same_directions(fit_pls(VIEWS, 1).transform({"x": X})["x"], canonical)  # later ones are deflated there


def test_gcca_of_two_views_spans_cca():
    two, general = fit_cca(VIEWS, 4), fit_gcca(VIEWS, 4)
    np.testing.assert_allclose(general.values, 1 + two.values, rtol=1e-8)
    for name in VIEWS:
        assert_same_directions(general.transform(VIEWS)[name], two.transform(VIEWS)[name])


def test_gcca_is_what_the_views_predict_best():
    views = {"x": X, "y": Y, "z": Z}
    fitted = fit_gcca(views, 2)
    hats = [np.linalg.qr(v - v.mean(0))[0] for v in views.values()]
    values, vectors = np.linalg.eigh(sum(q @ q.T for q in hats))
    np.testing.assert_allclose(fitted.values, values[::-1][:2], rtol=1e-8)
    total = sum(fitted.transform(views).values())  # the predictions together lie along the shared coordinates
    assert_same_directions(total, vectors[:, ::-1][:, :2])


def test_kcca_with_the_linear_kernel_is_cca():
    for ridge in (1e-3, 0.5):
        dual, primal = fit_kcca(VIEWS, 3, kernel=linear_kernel, ridge=ridge), fit_cca(VIEWS, 3, ridge=ridge)
        np.testing.assert_allclose(dual.values, primal.values, rtol=1e-6)
        assert_same_directions(dual.transform({"x": NEW})["x"], primal.transform({"x": NEW})["x"], rtol=1e-5)


def test_kcca_sees_what_no_line_shows():
    angle = RNG.uniform(0, 2 * np.pi, 200)
    circle, wave = np.c_[np.cos(angle), np.sin(angle)], np.cos(2 * angle)[:, None]
    views = {"circle": circle + 0.05 * RNG.normal(size=(200, 2)), "wave": wave}
    train, test = ({name: v[rows] for name, v in views.items()} for rows in (slice(0, 120), slice(120, 200)))

    def held_out(fitted):
        z = fitted.transform(test)
        return abs(np.corrcoef(z["circle"][:, 0], z["wave"][:, 0])[0, 1])

    assert held_out(fit_kcca(train, 1, kernel=rbf_kernel(1.0), ridge=1e-3)) > 0.9
    assert held_out(fit_cca(train, 1)) < 0.35


def test_ridge_by_brute_force():
    """Of the values that directions can have, the greatest is found."""
    fitted = fit_cca(VIEWS, 1, ridge=0.3)
    covariance = np.cov(X, Y, rowvar=False)
    regular = covariance + 0.3 * np.eye(9)

    def value(a, b):
        return a @ covariance[:5, 5:] @ b / np.sqrt((a @ regular[:5, :5] @ a) * (b @ regular[5:, 5:] @ b))

    a, b = fitted.maps["x"][:, 0], fitted.maps["y"][:, 0]
    assert value(a, b) == pytest.approx(fitted.values[0])
    around = [value(a + 0.01 * RNG.normal(size=5), b + 0.01 * RNG.normal(size=4)) for _ in range(200)]
    assert max(around) <= fitted.values[0] < fit_cca(VIEWS, 1).values[0]


def test_the_objective_of_networks_is_the_same():
    for ridge in (1e-4, 0.3):
        found = total_correlation(X.astype(np.float32), Y.astype(np.float32), ridge=ridge)
        np.testing.assert_allclose(found, fit_cca(VIEWS, 4, ridge=ridge).values.sum(), rtol=1e-5)


def test_against_cca_zoo():
    linear = pytest.importorskip("cca_zoo.linear", reason="cca-zoo is not installed")
    nonparametric = pytest.importorskip("cca_zoo.nonparametric")
    views = {"x": X, "y": Y, "z": Z}
    # Its covariances are (1 - c) C + c I, ours C + r I: the same but for a factor, where r = c / (1 - c).
    share, ridge = 0.2, 0.25
    ours, theirs = fit_cca(VIEWS, 3), linear.CCA(3).fit([X, Y])
    for name, expected in zip(VIEWS, theirs.transform([X, Y])):
        assert_same_directions(ours.transform(VIEWS)[name], expected)
    ours, theirs = fit_gcca(views, 3, ridge=ridge), linear.GCCA(3, shrinkage=share).fit([X, Y, Z])
    for name, expected in zip(views, theirs.transform([X, Y, Z])):
        assert_same_directions(ours.transform(views)[name], expected, rtol=1e-5)
    gamma = 0.1
    ours = fit_kcca(VIEWS, 2, kernel=rbf_kernel(gamma), ridge=ridge)
    theirs = nonparametric.KCCA(2, kernel="rbf", gamma=gamma, shrinkage=share).fit([X, Y])
    for name, expected in zip(VIEWS, theirs.transform([X, Y])):
        assert_same_directions(ours.transform(VIEWS)[name], expected, rtol=1e-4)


def test_wikipedia_by_cca_is_within_a_point_of_the_published_precision(data_dir):
    """SIFT words and topics of 2,866 sections (Rasiwasia et al. 2010); .2435 / .1978 stand in the README of
    TongJiayan/Multimodal-Retrieve. Cosines of 7 components without a ridge: .2453 / .2010; with 5 to 9 components
    and ridges up to 1e-3 they lie from .237 to .257 and from .180 to .203.
    """
    folder = data_dir / "wiki_crossmodal"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    with np.load(folder / "wiki.npz", allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    views = {split: {n: arrays[f"{n}_{split}"] for n in ("image", "text")} for split in ("train", "test")}
    with pytest.raises(UsageError, match="1 to 9, the smallest rank, got 10"):  # topics sum to 1
        fit_cca(views["train"], 10)
    fitted = fit_cca(views["train"], 7, ridge=0.0)
    unit = {n: z / np.linalg.norm(z, axis=1, keepdims=True) for n, z in fitted.transform(views["test"]).items()}
    cosine, label = unit["image"] @ unit["text"].T, arrays["label_test"].astype(int)
    by_image = mean_average_precision(cosine, label, label)
    by_text = mean_average_precision(cosine.T, label, label)
    assert abs(by_image - 0.2435) < 0.01 and abs(by_text - 0.1978) < 0.01, (by_image, by_text)
    chance = mean_average_precision(np.random.default_rng(0).normal(size=cosine.shape), label, label)
    assert 0.11 < chance < 0.13


def test_what_does_not_fit_is_said():
    with pytest.raises(UsageError, match="two views are needed, got x, y, z; of more: fit_gcca"):
        fit_cca({"x": X, "y": Y, "z": Z}, 1)
    with pytest.raises(UsageError, match=r"same two rows or more, got rows \{'x': 80, 'y': 79\}"):
        fit_pls({"x": X, "y": Y[:-1]}, 1)
    with pytest.raises(UsageError, match="components are 1 to 4, the smallest rank, got 5"):
        fit_cca(VIEWS, 5)
    with pytest.raises(UsageError, match="view 'y' has values that are not finite, first in row 7"):
        fit_cca({"x": X, "y": np.where(np.arange(80)[:, None] == 7, np.nan, Y)}, 1)
    with pytest.raises(UsageError, match="no view 'z' was fitted; there are x, y"):
        fit_cca(VIEWS, 1).transform({"z": Z})
    with pytest.raises(UsageError, match=r"view 'x' is \[rows, 5\], got \(80, 4\)"):
        fit_kcca(VIEWS, 1).transform({"x": Y})
    with pytest.raises(UsageError, match="ridge must be above 0, got 0"):
        fit_kcca(VIEWS, 1, ridge=0)
    with pytest.raises(UsageError, match="ridge is 0 or more, got -1"):
        fit_cca(VIEWS, 1, ridge=-1)
    assert not any(np.isnan(v).any() for v in itertools.chain(fit_cca(VIEWS, 1).maps.values()))


def test_many_rows_give_the_same_by_their_products():
    """Tall data under a ridge are decomposed by the eigenvectors of their products."""
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(200, 3))
    views = {name: shared @ draw.normal(size=(3, width)) + draw.normal(size=(200, width)) for name, width in
             (("image", 6), ("text", 4))}  # fmt: skip
    views["image"] = np.concatenate([views["image"], views["image"][:, :1]], axis=1)  # of rank 6
    tall = fit_cca(views, 3, ridge=0.1)
    by_svd = [correlation._decompose(x - x.mean(0), exact=True) for x in views.values()]
    by_products = [correlation._decompose(x - x.mean(0), exact=False) for x in views.values()]
    for (u, s, vt), (v, t, wt) in zip(by_svd, by_products):
        np.testing.assert_allclose(s, t, rtol=1e-9)
        np.testing.assert_allclose(abs((u * v).sum(0)), 1, atol=1e-9)
        np.testing.assert_allclose(abs((vt * wt).sum(1)), 1, atol=1e-9)
    few = {name: x[:20] for name, x in views.items()}  # not tall
    assert not np.allclose(fit_cca(few, 3, ridge=0.1).values, tall.values)
    x, y = (v - v.mean(0) for v in views.values())
    cov = lambda a, b: a.T @ b / (len(a) - 1)  # noqa: E731
    whiten = lambda a: np.linalg.inv(np.linalg.cholesky(cov(a, a) + 0.1 * np.eye(a.shape[1])))  # noqa: E731
    known = np.linalg.svd(whiten(x) @ cov(x, y) @ whiten(y).T, compute_uv=False)[:3]
    np.testing.assert_allclose(tall.values, known, rtol=1e-9)
