"""CMU-MOSI as regression: the mean of the annotators' scores in [-3, 3] from text, audio and video.

    python -m experiments table cmu_mosi_score --data-dir DIR --seeds 10

Own table: features and split of ``cmu_mosi``, the score as the target, mean absolute error with Pearson's r beside it.
Expect 0.93 of text, 0.91 to 0.97 of fusions, 1.36 of the mean of train; no fusion is shown to be better than text. Six
minutes of processor time (``experiments/results/cmu_mosi_score``).
"""

import functools

from mmjax import fusion
from mmjax.datasets import views
from mmjax.encoders import FeatureMLP
from mmjax.experiment import Row, Table
from mmjax.experiment.baselines import decision_rows, matched_rows, ridge
from mmjax.heads import RegressionHead
from mmjax.layers import TransformerBlock
from mmjax.models import ModalityDropout, Multimodal
from mmjax.tasks import Regression
from mmjax.training import Train

MODALITIES = ("text", "audio", "video")
DIM = 64


def utterance(method, streams=MODALITIES, dim=DIM):
    """An MLP per modality, a fusion, an MLP."""
    encoders = {name: FeatureMLP(dim=dim, hidden_dims=(dim,), dropout_rate=0.3) for name in streams}
    return Multimodal(encoders, method, RegressionHead(hidden_dims=(dim,), dropout_rate=0.5))


def alone(name, width):
    """One modality with an MLP of some width."""
    return utterance(fusion.Concat(width), (name,), width)


def rows():
    """All rows."""
    yield from (Row(name, model=utterance(fusion.Concat(DIM), (name,)), streams=(name,)) for name in MODALITIES)
    yield from matched_rows(alone, MODALITIES, like="concatenation")
    yield from decision_rows(MODALITIES, scores=True)
    yield Row("concatenation", model=utterance(fusion.Concat(DIM)), role="concatenation")
    yield Row("concatenation, modality dropout", model=utterance(ModalityDropout(fusion.Concat(DIM))))
    yield Row("additive attention", model=utterance(fusion.AdditiveAttention(DIM)))
    yield Row("gated (GMU)", model=utterance(fusion.GMU(DIM)))
    yield Row("FiLM of text", model=utterance(fusion.FiLM(DIM, target="text")))
    joint = fusion.JointTransformer(DIM, block=TransformerBlock(dropout_rate=0.3), per_modality=True)
    yield Row("joint transformer (SimBaMM)", model=utterance(joint), role="joint transformer")
    fit = functools.partial(ridge, C=1e-3, refit=False)
    yield Row("ridge regression", fit=fit, varies=False, baseline=False, role="linear")


TABLE = Table(
    title="CMU-MOSI, sentiment score, split of bc-LSTM (62 / 31 videos)",
    dataset="cmu_mosi",
    options={"target": "score"},
    view=views.standardise,
    task=Regression(absolute=True),
    train=Train(epochs=20, batch_size=32, select="mae"),
    seeds=10,
    trials=5,
    rows=rows(),
)
