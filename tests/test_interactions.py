"""What trained models can and cannot do on data whose answer is known: XOR of one bit of each modality."""

import functools

import numpy as np
import pytest

from mmjax import datasets, fusion
from mmjax.encoders import FeatureMLP
from mmjax.heads import ClassificationHead, Logits
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.tasks import Classification
from mmjax.training import Train


@functools.cache
def xor():
    """Balanced: every combination of the two bits stands as often as every other, in every split."""
    options = {"redundancy": 0, "unique": 0, "synergy": 1, "sizes": (512, 64, 256)}
    return datasets.load("synthetic", mode="bits", **options)


def accuracies(model):
    """Of two seeds, on test, in the last epoch and at best over all epochs."""
    found = fit(model, Classification(2), Train(epochs=30, batch_size=32, learning_rate=1e-2), xor().splits, (0, 1))
    history = found.history["test/accuracy"]
    return history[-1], history.max(0)


def test_a_joint_transformer_solves_xor():
    model = Multimodal({}, fusion.JointTransformer(8, num_layers=1), ClassificationHead(2))
    last, _ = accuracies(model)
    np.testing.assert_array_less(0.99, last)


@pytest.mark.parametrize("kind", ["features", "logits"])
def test_a_sum_over_modalities_never_passes_three_quarters(kind):
    deep = {name: FeatureMLP(2 if kind == "logits" else 8, hidden_dims=(16,)) for name in ("a", "b")}
    if kind == "logits":
        model = Multimodal(deep, fusion.WeightedSum(2), Logits())
    else:
        model = Multimodal(deep, fusion.Concat(8), ClassificationHead(2))  # linear after the encoders
    _, best = accuracies(model)
    np.testing.assert_array_less(best, 0.75 + 1e-6)
