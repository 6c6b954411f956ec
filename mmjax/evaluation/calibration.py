"""Whether a probability means what it says: calibration errors, proper scores, and temperature scaling.

Plain functions of logits ``[items, classes]`` and targets ``[items]``, in float64.
"""

from typing import Any

import numpy as np

from mmjax.typing import Float, Int

__all__ = ["brier", "calibration_error", "fit_temperature", "log_probabilities", "measure", "nll"]

_FLOOR = 1e4  # nats: a log-probability may be -inf (a product of experts), a mean of them may not
_BOUNDS = (1e-2, 1e2)


def log_probabilities(logits: Any, temperature: float = 1.0) -> Float[np.ndarray, "items classes"]:
    """Log-softmax of ``logits / temperature``."""
    logits = np.asarray(logits, np.float64).T  # classes first: NumPy reduces a short last axis slowly
    logits = np.maximum(logits - logits.max(0), -_FLOOR) / temperature
    return (logits - np.log(np.exp(logits).sum(0))).T


def measure(logits: Any, target: Int[np.ndarray, " items"], temperature: float = 1.0) -> dict[str, float]:
    """All quantities of this file: ``ece`` (15 bins of equal mass), ``ece_equal_width``, ``nll``, ``brier``."""
    logp = log_probabilities(logits, temperature)
    return {
        "ece": _calibration_error(logp, target, 15, True),
        "ece_equal_width": _calibration_error(logp, target, 15, False),
        "nll": _nll(logp, target),
        "brier": _brier(logp, target),
    }


def nll(logits: Any, target: Int[np.ndarray, " items"], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, nats."""
    return _nll(log_probabilities(logits, temperature), target)


def brier(logits: Any, target: Int[np.ndarray, " items"], temperature: float = 1.0) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2 (Brier 1950)."""
    return _brier(log_probabilities(logits, temperature), target)


def calibration_error(
    logits: Any, target: Int[np.ndarray, " items"], temperature: float = 1.0, *, bins: int = 15, equal_mass: bool = True
) -> float:
    """Expected calibration error: mean over bins of |accuracy - confidence|, weighted by their items (Guo et al. 2017).

    Args:
      equal_mass: bins with the same number of items (Nixon et al. 2019; equal confidences share a bin), not of the same
        width. On few items the error is biased upwards: by 2 to 4 points on 752.
    """
    return _calibration_error(log_probabilities(logits, temperature), target, bins, equal_mass)


def fit_temperature(logits: Any, target: Int[np.ndarray, " items"]) -> float:
    """The temperature of least negative log-likelihood, between 0.01 and 100 (Guo et al. 2017).

    Fit it on validation; it changes no argmax.
    """
    from scipy.optimize import minimize_scalar

    logits = log_probabilities(logits).T
    logits = logits - logits.max(0)
    truth = np.take_along_axis(logits, np.asarray(target)[None], 0).mean()

    def objective(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return np.log(np.exp(logits * scale).sum(0)).mean() - truth * scale

    bounds = tuple(np.log(_BOUNDS))
    return float(np.exp(minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x))


def _nll(logp: np.ndarray, target: np.ndarray) -> float:
    return float(-np.take_along_axis(logp, np.asarray(target)[:, None], 1).mean())


def _brier(logp: np.ndarray, target: np.ndarray) -> float:
    truth = np.eye(logp.shape[1])[np.asarray(target)]
    return float(((np.exp(logp) - truth) ** 2).sum() / len(logp))


def _calibration_error(logp: np.ndarray, target: np.ndarray, bins: int, equal_mass: bool) -> float:
    confidence, right = np.exp(logp.T.max(0)), logp.argmax(1) == np.asarray(target)
    fractions = np.arange(1, bins) / bins
    edges = np.quantile(confidence, fractions) if equal_mass else fractions
    excess = np.bincount(np.searchsorted(edges, confidence), right - confidence)  # n_bin (accuracy - confidence)
    return float(np.abs(excess).sum() / len(confidence))
