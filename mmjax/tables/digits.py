"""Handwritten digits cut in two halves: which way of putting them together again is best? (embedded data)

    python -m experiments table digits

Own table, no paper: scikit-learn's 1,797 real digits (8 x 8), the upper and the lower half as two modalities.
"""

import functools

from mmjax import fusion
from mmjax.encoders import FeatureMLP
from mmjax.experiment import Row, Table
from mmjax.experiment.baselines import decision_rows, logistic, matched_rows
from mmjax.heads import ClassificationHead
from mmjax.models import ModalityDropout, Multimodal
from mmjax.tasks import Classification
from mmjax.training import Train

HALVES = ("upper", "lower")
DIM = 32


def classifier(method, streams=HALVES, **encoder):
    """One deep encoder per half, a fusion, a linear head."""
    encoders = {name: FeatureMLP(dim=DIM, hidden_dims=(64,), **encoder) for name in streams}
    return Multimodal(encoders, method, ClassificationHead(num_classes=10))


def alone(half, width):
    """One half with a network of some width."""
    encoder = FeatureMLP(dim=width, hidden_dims=(2 * width,))
    return Multimodal({half: encoder}, fusion.Concat(width), ClassificationHead(10))


TABLE = Table(
    title="Handwritten digits from their halves (scikit-learn digits)",
    dataset="digits",
    task=Classification(num_classes=10),
    train=Train(epochs=40, batch_size=64, learning_rate=3e-3),
    seeds=5,
    trials=5,
    rows=[
        *(Row(half, model=classifier(fusion.Concat(DIM), (half,)), streams=(half,)) for half in HALVES),
        *matched_rows(alone, HALVES, like="concatenation"),
        *decision_rows(HALVES),
        Row("early", model=Multimodal({}, fusion.EarlyConcat(DIM, hidden_dims=(128,)), ClassificationHead(10))),
        Row("concatenation", model=classifier(fusion.Concat(DIM, hidden_dims=(64,))), role="concatenation"),
        Row("additive attention", model=classifier(fusion.AdditiveAttention(DIM))),
        Row("dot-product attention", model=classifier(fusion.DotProductAttention(DIM))),
        Row("deep sets", model=classifier(fusion.DeepSets(DIM))),
        Row("gated (GMU)", model=classifier(fusion.GMU(DIM))),
        Row("joint transformer", model=classifier(fusion.JointTransformer(DIM)), role="joint transformer"),
        Row(
            "concatenation, modality dropout", model=classifier(ModalityDropout(fusion.Concat(DIM, hidden_dims=(64,))))
        ),
        Row("logistic regression", fit=functools.partial(logistic, C=0.01), varies=False),
    ],
)
