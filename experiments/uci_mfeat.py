"""UCI multiple features: handwritten digits in six views of features (van Breukelen et al. 1998).

    python -m experiments table uci_mfeat --data-dir DIR

No published split: a fixed stratified one of 1,200 / 200 / 600. Logistic regression on all six views measured 98.8 %
(trained on train and validation); the best single view, fac, 96.8 %. Expect every fusion within a point of that: the
views say much the same, and 600 test digits cannot tell 98.5 from 99.
"""

import functools

from mmjax import fusion
from mmjax.datasets import views
from mmjax.encoders import FeatureMLP
from mmjax.experiment import Row, Table
from mmjax.experiment.baselines import decision_rows, logistic, matched_rows
from mmjax.heads import ClassificationHead
from mmjax.models import ModalityDropout, Multimodal
from mmjax.tasks import Classification
from mmjax.training import Train

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")
DIM = 32


def classifier(method, streams=VIEWS):
    """An MLP per view, a fusion, a linear head."""
    encoders = {name: FeatureMLP(dim=DIM, hidden_dims=(64,), dropout_rate=0.2) for name in streams}
    return Multimodal(encoders, method, ClassificationHead(10, dropout_rate=0.2))


def alone(view, width):
    """One view with a network of some width."""
    encoder = FeatureMLP(dim=width, hidden_dims=(2 * width,), dropout_rate=0.2)
    return Multimodal({view: encoder}, fusion.Concat(width), ClassificationHead(10, dropout_rate=0.2))


TABLE = Table(
    title="UCI multiple features: digits in six views",
    dataset="uci_mfeat",
    view=views.standardise,
    task=Classification(num_classes=10),
    train=Train(epochs=40, batch_size=64),
    seeds=5,
    trials=5,
    rows=[
        *(Row(view, model=classifier(fusion.Concat(DIM), (view,)), streams=(view,)) for view in VIEWS),
        *matched_rows(alone, VIEWS, like="concatenation"),
        *decision_rows(VIEWS),
        Row("early", model=Multimodal({}, fusion.EarlyConcat(DIM, dropout_rate=0.2), ClassificationHead(10))),
        Row("concatenation", model=classifier(fusion.Concat(DIM, hidden_dims=(64,))), role="concatenation"),
        Row("additive attention", model=classifier(fusion.AdditiveAttention(DIM))),
        Row("dot-product attention", model=classifier(fusion.DotProductAttention(DIM))),
        Row("dot-product attention, conditional query", model=classifier(fusion.DotProductAttention(DIM, True))),
        Row("gated (GMU)", model=classifier(fusion.GMU(DIM))),
        Row("joint transformer", model=classifier(fusion.JointTransformer(DIM)), role="joint transformer"),
        Row(
            "concatenation, modality dropout", model=classifier(ModalityDropout(fusion.Concat(DIM, hidden_dims=(64,))))
        ),
        Row("logistic fac", fit=functools.partial(logistic, C=0.1), streams=("fac",), varies=False, section="linear"),
        Row("logistic all views", fit=functools.partial(logistic, C=0.1), varies=False, section="linear"),
    ],
)
