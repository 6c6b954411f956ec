"""Bits with known redundancy, uniqueness and synergy: which fusions can use which? (embedded data)

    python -m experiments table synthetic

Two modalities show one bit both, one bit each alone, and one bit that is the XOR of a bit of each: 16 classes. The best
accuracy of one modality is 25 %, of all 100 %. A model whose logits are a sum over modalities cannot compute the XOR:
it stays at 75 % or below on an XOR alone, and gets the other three bits here; expect the joint models to find the XOR.
"""

import functools

from mmjax import fusion
from mmjax.encoders import FeatureMLP
from mmjax.experiment import Row, Table
from mmjax.experiment.baselines import decision_rows, matched_rows
from mmjax.heads import ClassificationHead
from mmjax.models import ModalityDropout, Multimodal
from mmjax.tasks import Classification
from mmjax.training import Train

NAMES = ("a", "b")
DIM = 32


def classifier(method, streams=NAMES, classes=16, hidden_dims=()):
    """An MLP per modality, a fusion, a head that is linear unless it is told otherwise."""
    encoders = {name: FeatureMLP(dim=DIM, hidden_dims=(64,)) for name in streams}
    return Multimodal(encoders, method, ClassificationHead(classes, hidden_dims=hidden_dims))


def alone(name, width, classes):
    """One modality with a network of some width."""
    encoder = FeatureMLP(dim=width, hidden_dims=(2 * width,))
    return Multimodal({name: encoder}, fusion.Concat(width), ClassificationHead(classes))


def rows(names, classes, labels=False):
    """The rows of the synthetic tables; ``labels``: each logit is a label of its own."""
    yield from (Row(n, model=classifier(fusion.Concat(DIM), (n,), classes), streams=(n,)) for n in names)
    yield from matched_rows(functools.partial(alone, classes=classes), names, like="concatenation")
    yield from decision_rows(names)[: 1 if labels else None]  # of labels the mean of logits alone
    early = fusion.EarlyConcat(DIM, hidden_dims=(128, 64))
    yield Row("early", model=Multimodal({}, early, ClassificationHead(classes)))
    yield Row("additive (sum over modalities)", model=classifier(fusion.Concat(DIM), names, classes))
    joined = fusion.Concat(DIM, hidden_dims=(64,))
    yield Row("concatenation", model=classifier(joined, names, classes), role="concatenation")
    yield Row("concatenation, modality dropout", model=classifier(ModalityDropout(joined), names, classes))
    for name, method in {
        "additive attention": fusion.AdditiveAttention(DIM),
        "dot-product attention": fusion.DotProductAttention(DIM),
        "dot-product attention, conditional query": fusion.DotProductAttention(DIM, conditional=True),
        "gated (GMU)": fusion.GMU(DIM),
        "FiLM": fusion.FiLM(DIM),
    }.items():
        yield Row(name, model=classifier(method, names, classes))
    joint = classifier(fusion.JointTransformer(DIM), names, classes)
    yield Row("joint transformer", model=joint, role="joint transformer")


TABLE = Table(
    title="Synthetic bits: redundancy 1, uniqueness 1 + 1, synergy 1",
    dataset="synthetic",
    task=Classification(num_classes=16),
    train=Train(epochs=40, batch_size=128, learning_rate=3e-3),
    seeds=5,
    trials=5,
    rows=rows(NAMES, 16),
)
