"""Gaussian modalities, independent given the class, with exact posteriors and Bayes accuracy.

The mean of class ``y`` in modality ``m`` is ``strength_m`` times the ``y``-th of orthonormal directions, the covariance
is the identity, so the class means of any set of modalities are equally far apart. In a sequence of ``L`` items the
items are independent, each with that mean over ``sqrt(L)``: the evidence does not depend on ``L``.
"""

from typing import Any

import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.datasets.recipe import Columns
from mmjax.datasets.synthetic.common import columns, directions, random_lengths
from mmjax.errors import UsageError

__all__ = ["bayes_accuracy", "describe", "facts", "log_posteriors", "means", "read", "validate", "width"]


def validate(options: Any) -> None:
    """Raises UsageError for classes or priors that make no data set."""
    options.each("strength")
    if options.num_classes < 2:
        raise UsageError(f"synthetic: num_classes is 2 or more, got {options.num_classes}")
    if options.dim is not None and options.dim < options.num_classes:
        raise UsageError(f"synthetic: dim {options.dim} must hold {options.num_classes} orthogonal class means")
    prior = options.prior
    if prior and (len(prior) != options.num_classes or min(prior) <= 0 or abs(sum(prior) - 1) > 1e-9):
        raise UsageError(f"synthetic: prior needs {options.num_classes} positive numbers that sum to 1, got {prior}")


def width(options: Any) -> int:
    """Width of the vectors."""
    return options.dim or max(8, options.num_classes)


def facts(options: Any) -> dict[str, Any]:
    """The known answers: what is needed for the posteriors, and the Bayes accuracy of each modality and of all."""
    prior = tuple(options.prior) or (1 / options.num_classes,) * options.num_classes
    strength = dict(zip(options.names, options.each("strength")))
    return {
        "mode": "gaussian",
        "exact": True,
        "num_classes": options.num_classes,
        "prior": prior,
        "strength": strength,
        "seed": options.seed,
        "dim": width(options),
        "bayes_accuracy": bayes_accuracy(float(np.sqrt(sum(s**2 for s in strength.values()))), prior),
        "bayes_accuracy_alone": {name: bayes_accuracy(s, prior) for name, s in strength.items()},
    }


def describe(options: Any) -> str:
    """One sentence for the card."""
    return (
        f"{options.num_classes} classes; each modality is Gaussian with unit covariance given the class, and "
        f"modalities are independent given the class; class means are {options.strength} * sqrt(2) apart."
    )


def bayes_accuracy(strength: float, prior: tuple[float, ...]) -> float:
    """Accuracy of the best classifier of orthogonal means: sum_y p_y int phi(z) prod_k Phi(z + s + log(p_y/p_k)/s) dz.

    Integrated by the trapezoidal rule over [-10, 10], which is exact to rounding for such an integrand.
    """
    from scipy.special import ndtr

    if strength == 0:
        return max(prior)
    z = np.linspace(-10, 10, 4001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    log_prior, total = np.log(np.asarray(prior)), 0.0
    for y, probability in enumerate(prior):
        shifts = strength + (log_prior[y] - np.delete(log_prior, y)) / strength
        total += probability * np.sum(density * np.prod(ndtr(z[:, None] + shifts), axis=1)) * (z[1] - z[0])
    return float(total)


def means(answers: dict[str, Any]) -> dict[str, np.ndarray]:
    """Means of the classes ``[classes, dim]`` of each modality, in float64, from the facts of a data set."""
    return {
        name: strength * directions(answers["num_classes"], answers["dim"], (answers["seed"], 3, m))
        for m, (name, strength) in enumerate(sorted(answers["strength"].items()))
    }


def read(options: Any) -> Columns:
    """The examples."""
    answers = facts(options)
    random = np.random.RandomState((options.seed, 4))
    count = sum(options.sizes)
    target = random.choice(options.num_classes, size=count, p=answers["prior"])
    streams: dict[str, Any] = {}
    for name, mean in means(answers).items():
        if options.length == 1:
            streams[name] = (mean[target] + random.standard_normal((count, mean.shape[1]))).astype(np.float32)
            continue
        lengths = random_lengths(random, count, 1, options.length)
        streams[name] = [
            (mean[y] / np.sqrt(length) + random.standard_normal((length, mean.shape[1]))).astype(np.float32)
            for y, length in zip(target, lengths)
        ]
    return columns(options.sizes, streams, target)


def log_posteriors(dataset: Dataset, split: str = "test") -> dict[str, np.ndarray]:
    """Exact ``log p(class | x)`` in float64, ``[examples, classes]``, of each modality alone and of all (``joint``).

    Raises:
      UsageError: the data set is not of the Gaussian mode.
    """
    if dataset.facts.get("mode") != "gaussian":
        raise UsageError(f"{dataset.card.name} has no exact posterior: load('synthetic', mode='gaussian') has")
    log_prior = np.log(np.asarray(dataset.facts["prior"]))
    scores = {}
    for name, mean in means(dataset.facts).items():
        stream = dataset.splits[split].streams[name]
        length = stream.mask.sum(1, keepdims=True)
        total = (stream.values.astype(np.float64) * stream.mask[:, :, None]).sum(1)
        scores[name] = total @ mean.T / np.sqrt(length) - (mean**2).sum(1) / 2
    scores["joint"] = sum(scores.values())
    return {name: _log_softmax(score + log_prior) for name, score in scores.items()}


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
