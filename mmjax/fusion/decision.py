"""Decision-level fusion: trained unimodal models vote, nothing more is trained (``Stacking`` fits one linear map).

Plain functions ``(logits, present) -> [batch, classes]`` on stored logits, one array ``[batch, classes]`` per modality.
They return scores whose argmax is the decision and whose softmax is the probability. NumPy in, NumPy out, in the
precision of the input; jax arrays and tracers alike. What stands in the logits of an absent modality never matters.
"""

import dataclasses
from typing import Any

import numpy as np

from mmjax.typing import Mapping

__all__ = [
    "Stacking",
    "cross_fit_stacking",
    "fit_stacking",
    "mean_of_logits",
    "mean_of_probabilities",
    "mean_of_scores",
    "prior_corrected_product",
    "product",
]

Logits = Mapping[str, Any]
"""Per modality ``[batch, classes]``."""
Present = Mapping[str, Any] | None
"""Per modality ``[batch]`` bool; None = all are present."""


def mean_of_logits(logits: Logits, present: Present = None) -> Any:
    """The mean of the logits of the modalities present; uniform (zeros) where none is.

    Raises:
      ValueError: no modality, shapes that differ, or other names in ``present``.

    Example:
      >>> mean_of_logits({"text": np.array([[2.0, 0.0]]), "audio": np.array([[0.0, 1.0]])})
      array([[1. , 0.5]])
    """
    xp, members, mask = _members(logits, present)
    return _where(xp, mask, members).sum(0) / xp.maximum(mask.sum(0), 1).astype(members.dtype)


def mean_of_scores(scores: Mapping[str, Any], present: Present = None) -> Any:
    """The mean of the scores ``[batch]`` or ``[batch, scores]`` of the modalities present (regression); of all of them
    where none is, each of which then says what it says of nothing.

    Raises:
      ValueError: as ``mean_of_logits``, of such scores.

    Example:
      >>> scores = {"text": np.array([1.0, 1.0]), "audio": np.array([3.0, 3.0])}
      >>> mean_of_scores(scores, {"text": np.array([True, True]), "audio": np.array([True, False])})
      array([2., 1.])
    """
    shapes = {name: values.shape for name, values in sorted(scores.items())}
    if len(set(shapes.values())) > 1 or not all(len(shape) in (1, 2) for shape in shapes.values()):
        raise ValueError(f"scores must all be [batch], or all [batch, scores], got {shapes}")
    one = all(len(shape) == 1 for shape in shapes.values())
    columns = {name: values[:, None] if one else values for name, values in scores.items()}
    xp, members, mask = _members(columns, present)
    mean = _where(xp, mask, members).sum(0) / xp.maximum(mask.sum(0), 1).astype(members.dtype)
    mean = xp.where(mask.any(0), mean, members.mean(0))
    return mean[:, 0] if one else mean


def mean_of_probabilities(logits: Logits, present: Present = None) -> Any:
    """Log of the mean of the probabilities of the modalities present (a linear opinion pool); uniform where none is.

    Raises:
      ValueError: as ``mean_of_logits``.

    Example:
      >>> agreed = mean_of_probabilities({"text": np.log([[0.9, 0.1]]), "audio": np.log([[0.5, 0.5]])})
      >>> np.exp(agreed).round(2)
      array([[0.7, 0.3]])
    """
    xp, members, mask = _members(logits, present)
    members = _log_softmax(xp, _where(xp, mask, members))
    total = _log_sum_exp(xp, xp.where(mask, members, xp.finfo(members.dtype).min), axis=0)[0]
    return _log_softmax(xp, xp.where(mask.any(0), total, xp.zeros_like(total)))


def product(logits: Logits, present: Present = None, *, weights: Mapping[str, float] | None = None) -> Any:
    """Log-opinion pool, ``p proportional to prod_m p_m^w_m`` over the modalities present; log-probabilities.

    Args:
      weights: exponent per modality; None = 1 each, the product of experts. Uniform where no modality is present.

    Raises:
      ValueError: as ``mean_of_logits``, or the weights have other names.

    Example:
      >>> agreed = product({"text": np.log([[0.9, 0.1]]), "audio": np.log([[0.5, 0.5]])})
      >>> np.exp(agreed).round(2)
      array([[0.9, 0.1]])
    """
    xp, members, mask = _members(logits, present)
    members = _where(xp, mask, _log_softmax(xp, _where(xp, mask, members)))
    if weights is not None:
        _check_names("weights", weights, logits)
        exponents = xp.asarray([weights[name] for name in sorted(logits)], dtype=members.dtype)
        members = members * exponents[:, None, None]
    return _log_softmax(xp, members.sum(0))


def prior_corrected_product(logits: Logits, present: Present = None, *, log_prior: Any) -> Any:
    """Bayes' rule for modalities independent given the class: ``p(y|x) proportional to prod_m p(y|x_m) / p(y)^(P-1)``.

    ``P`` is the number of modalities present *in the example*; where none is, the result is ``p(y)``. Exact when the
    members are exact posteriors and the independence holds. Returns log-probabilities.

    Args:
      log_prior: ``[classes]``, the log of the class frequencies the members were trained on. A class of prior 0
        (``-inf``) has posterior 0 whatever the members say.

    Raises:
      ValueError: as ``mean_of_logits``, or a prior of another shape.

    Example:
      >>> members = {"text": np.log([[0.9, 0.1]]), "audio": np.log([[0.9, 0.1]])}
      >>> np.exp(prior_corrected_product(members, log_prior=np.log([0.9, 0.1]))).round(2)
      array([[0.9, 0.1]])
    """
    xp, members, mask = _members(logits, present)
    log_prior = xp.asarray(log_prior, dtype=members.dtype)
    if log_prior.shape != members.shape[-1:]:
        raise ValueError(f"{log_prior.shape=} must be {members.shape[-1:]}, one entry per class")
    possible = log_prior > -xp.inf
    log_prior = _log_softmax(xp, log_prior)
    finite = xp.where(possible, log_prior, xp.zeros_like(log_prior))  # posterior / prior is 0 / 0 at a prior of 0
    evidence = _where(xp, mask & possible, _log_softmax(xp, _where(xp, mask, members)) - finite)
    return _log_softmax(xp, log_prior + evidence.sum(0))  # prior * prod (posterior / prior): P - 1 needs no count


@dataclasses.dataclass(frozen=True)
class Stacking:
    """A linear map of the members' centred logits (Wolpert 1992); call it as the other functions of this file.

    Attributes:
      names: the members, sorted.
      kernel: ``[members * classes, classes]``; an absent member adds nothing.
      bias: ``[classes]``.
    """

    names: tuple[str, ...]
    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, logits: Logits, present: Present = None) -> Any:
        """Scores ``[batch, classes]``.

        Raises:
          ValueError: as ``mean_of_logits``, or members other than those it was fitted on.
        """
        _check_names("logits", logits, self.names)
        xp, members, mask = _members(logits, present)
        kernel = xp.asarray(self.kernel, dtype=members.dtype)
        return _centred(xp, members, mask) @ kernel + xp.asarray(self.bias, dtype=members.dtype)


def fit_stacking(logits: Logits, target: Any, present: Present = None, *, penalty: float = 1.0) -> Stacking:
    """Multinomial logistic regression on the members' logits, in float64.

    Minimises ``sum of -log p(target) + penalty / 2 * |kernel|^2`` (the bias is free up to a common constant). Fit it on
    *validation* logits: those of the training examples are too good, and the map learns to trust them.

    Args:
      target: ``[batch]`` class numbers.
      penalty: strength of the ridge; it must be positive, for separable logits have no finite solution without it.

    Raises:
      ValueError: as ``mean_of_logits``; a penalty that is not positive; a target that is no class.
    """
    from scipy.optimize import minimize

    if not penalty > 0:
        raise ValueError(f"{penalty=} must be positive")
    logits = {name: np.asarray(values, np.float64) for name, values in logits.items()}
    present = None if present is None else {name: np.asarray(values) for name, values in present.items()}
    _, members, mask = _members(logits, present)
    features = _centred(np, members, mask)
    target = np.asarray(target)
    classes = members.shape[-1]
    if target.shape != features.shape[:1]:
        raise ValueError(f"{target.shape=} must be {features.shape[:1]}, one class an example")
    if target.min() < 0 or target.max() >= classes:
        raise ValueError(f"classes are numbers from 0 to {classes - 1}, got them from {target.min()} to {target.max()}")
    truth = np.eye(classes)[target]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = np.split(parameters.reshape(-1, classes), [features.shape[1]])
        scores = _log_softmax(np, features @ kernel + bias)
        residual = np.exp(scores) - truth
        gradient = np.concatenate([features.T @ residual + penalty * kernel, residual.sum(0, keepdims=True)])
        return -(scores * truth).sum() + penalty / 2 * (kernel**2).sum(), gradient.ravel()

    start = np.zeros((features.shape[1] + 1) * classes)
    solution = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12})
    kernel, bias = np.split(solution.x.reshape(-1, classes), [features.shape[1]])
    return Stacking(tuple(sorted(logits)), kernel, bias[0])


def cross_fit_stacking(
    logits: Logits,
    target: Any,
    present: Present = None,
    *,
    group: Any = None,
    folds: int = 5,
    penalty: float = 1.0,
) -> np.ndarray:
    """Scores ``[batch, classes]`` of each example by a ``Stacking`` fitted on the examples of the other folds.

    What is measured or fitted on these (an accuracy to choose by, a temperature) is not flattered by the fit, as the
    scores of a stacking on its own examples are. Whole groups stand in one fold, classes as evenly spread as they
    allow.

    Args:
      group: ``[batch]``, e.g. the video of each example; None = each is its own.
      folds: at most; fewer where there are fewer groups. With a single group its examples are the units.

    Raises:
      ValueError: as ``fit_stacking``, or fewer than two examples.
    """
    target = np.asarray(target)
    if len(target) < 2:
        raise ValueError(f"cross-fitting needs two examples at least, got {len(target)}")
    logits = {name: np.asarray(values, np.float64) for name, values in logits.items()}
    present = {name: np.ones(len(target), bool) for name in logits} if present is None else present
    fold = _folds(target, np.arange(len(target)) if group is None else np.asarray(group), folds)
    scores = np.zeros((len(target), next(iter(logits.values())).shape[-1]))
    for number in range(fold.max() + 1):
        (seen, here), (held_out, there) = (
            tuple({name: np.asarray(values)[rows] for name, values in of.items()} for of in (logits, present))
            for rows in (fold != number, fold == number)
        )
        scores[fold == number] = fit_stacking(seen, target[fold != number], here, penalty=penalty)(held_out, there)
    return scores


def _folds(target: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """The fold of each example: groups dealt in turn, sorted by the class that most of their examples have."""
    names, code = np.unique(group, return_inverse=True)
    if names.size < 2:
        code = np.arange(len(target))
    votes = np.zeros((code.max() + 1, target.max() + 1))
    np.add.at(votes, (code, target), 1)
    order = np.argsort(votes.argmax(1), kind="stable")
    fold = np.empty(len(votes), np.int64)
    fold[order] = np.arange(len(votes)) % min(count, len(votes))
    return fold[code]


def _members(logits: Logits, present: Present) -> tuple[Any, Any, Any]:
    """The array library, the logits ``[member, batch, classes]`` in sorted order, their mask ``[member, batch, 1]``."""
    if not logits:
        raise ValueError("decision-level fusion needs the logits of at least one modality, got none")
    shapes = {name: values.shape for name, values in sorted(logits.items())}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 2:
        raise ValueError(f"logits must all be [batch, classes], got {shapes}")
    names = sorted(logits)
    xp = logits[names[0]].__array_namespace__()  # numpy, or jax.numpy for its arrays and tracers
    members = xp.stack([logits[name] for name in names])
    if present is None:
        return xp, members, xp.ones((*members.shape[:2], 1), dtype=bool)
    _check_names("present", present, logits)
    mask = xp.stack([xp.asarray(present[name], dtype=bool) for name in names])
    if mask.shape != members.shape[:2]:
        raise ValueError(f"present must be [batch] per modality, got {mask.shape[1:]} for logits {members.shape[1:]}")
    return xp, members, mask[..., None]


def _check_names(what: str, names: Any, expected: Any) -> None:
    if set(names) != set(expected):
        raise ValueError(f"{what} name {sorted(names)}, the members are {sorted(expected)}")


def _where(xp: Any, mask: Any, members: Any) -> Any:
    """Zeros for what is absent; NaN may stand there."""
    return xp.where(mask, members, xp.zeros_like(members))


def _log_sum_exp(xp: Any, x: Any, axis: int) -> Any:
    highest = x.max(axis, keepdims=True)
    highest = xp.where(highest == -xp.inf, xp.zeros_like(highest), highest)  # of a class that is impossible to all
    total = xp.exp(x - highest).sum(axis, keepdims=True)
    nothing = total == 0
    return xp.where(nothing, -xp.inf, highest + xp.log(xp.where(nothing, xp.ones_like(total), total)))


def _log_softmax(xp: Any, x: Any) -> Any:
    return x - _log_sum_exp(xp, x, -1)


def _centred(xp: Any, members: Any, mask: Any) -> Any:
    """``[batch, members * classes]``: logits less their mean over the classes, which a softmax cannot see."""
    members = _where(xp, mask, members)
    members = members - members.mean(-1, keepdims=True)
    return xp.moveaxis(members, 0, 1).reshape(members.shape[1], -1)
