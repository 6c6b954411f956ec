"""AVLetters: spoken letters from lips (video) and MFCC (audio) (Yang et al., CVPR 2017, tables 4 and 5).

    python -m experiments table avletters --data-dir DIR
    python -m experiments table avletters --data-dir DIR --rows "late, frames end to end"     # long

The published split: repetitions 1 and 2 train, 3 test; all speakers are in both. The number of epochs is chosen on
repetition 2 with repetition 1 as train; then each row is trained again on both and tested once. 260 test clips: one
standard error is about 3 points. Logistic regression on whitened clips measured 51 / 50 / 70 % (video, audio, both),
above all the published models but CorrRNN, whose 83.4 is unconfirmed.
"""

import functools

from mmjax import fusion
from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.encoders import FrameVideo, LeNet, Recurrent
from mmjax.experiment import Paper, Row, Table
from mmjax.experiment.baselines import decision_rows, logistic, matched_rows, statistics_rows
from mmjax.heads import ClassificationHead
from mmjax.models import ModalityDropout, Multimodal
from mmjax.tasks import Classification
from mmjax.training import Train

MODALITIES = ("audio", "video")
DIM = 64
FRAMES = 20  # per clip after resampling; the audio has two frames for each of the video
YANG, YANG_FEATURES = "Yang et al., CVPR 2017, Table 4", "Yang et al., CVPR 2017, Table 5"
FEATURES = functools.partial(Paper, checked=True, cannot_run="their features are not published")
METHOD = functools.partial(Paper, checked=True, cannot_run="the method is not built here")
REFERENCES = [
    ("raw features, linear SVM: video", FEATURES(38.08, YANG_FEATURES)),
    ("raw features, linear SVM: audio", FEATURES(57.31, YANG_FEATURES)),
    ("MDAE (Ngiam et al. 2011), both", METHOD(62.04, f"{YANG}, copied there")),
    ("MDBN, both", METHOD(63.2, f"{YANG}, copied there")),
    ("MDBM, both", METHOD(64.7, f"{YANG}, copied there")),
    ("RTMRBM (Hu et al. 2016), both", METHOD(66.04, f"{YANG}, copied there")),
    ("CRBM (Amer et al. 2014), both", METHOD(67.10, f"{YANG}, copied there")),
    ("CorrRNN, both (unconfirmed: no multiple of 1/260)", METHOD(83.40, YANG)),
]


def aligned(dataset: Dataset) -> Dataset:
    """Clips of one length, ``FRAMES`` of video and twice as many of audio."""
    dataset = views.resample(views.resample(dataset, "video", FRAMES), "audio", 2 * FRAMES)
    return views.standardise(dataset, ["audio"])


def whitened(dataset: Dataset) -> Dataset:
    """Frames PCA-whitened to 100, fitted on train."""
    return views.pca_whiten(dataset, "video", 100) if "video" in dataset.streams else dataset


def in_step(dataset: Dataset) -> Dataset:
    """As ``whitened``, with as many audio frames as video frames, so that the two can be joined step by step."""
    return views.resample(whitened(dataset), "audio", FRAMES)


def encoder():
    """A bidirectional LSTM over the frames."""
    return Recurrent(dim=DIM, bidirectional=True, dropout_rate=0.3)


def classifier(method, streams=MODALITIES, **encoders):
    """An LSTM per modality, a fusion of the means over time, a linear head."""
    encoders = {name: encoders.get(name) or encoder() for name in streams}
    return Multimodal(encoders, method, ClassificationHead(26, dropout_rate=0.3))


def alone(name, width):
    """One modality with an LSTM of some width."""
    wide = Recurrent(dim=2 * width, bidirectional=True, dropout_rate=0.3)
    return Multimodal({name: wide}, fusion.Concat(2 * width), ClassificationHead(26, dropout_rate=0.3))


def rows():
    """All rows; the end-to-end one takes longer than all others together and runs when named."""
    network = functools.partial(Row, view=whitened)
    for name in MODALITIES:
        yield network(name, model=classifier(fusion.Concat(DIM), (name,)), streams=(name,))
    yield from matched_rows(alone, MODALITIES, like="late", view=whitened)
    yield from decision_rows(MODALITIES)
    early = fusion.EarlyConcat(DIM, joint=encoder())
    yield Row("early", model=Multimodal({}, early, ClassificationHead(26, dropout_rate=0.3)), view=in_step)
    yield network("late", model=classifier(fusion.Concat(DIM)), role="concatenation")
    yield network("additive attention", model=classifier(fusion.AdditiveAttention(DIM)))
    yield network("dot-product attention", model=classifier(fusion.DotProductAttention(DIM)))
    yield network("gated (GMU)", model=classifier(fusion.GMU(DIM)))
    joint = classifier(fusion.JointTransformer(DIM, per_modality=True))
    yield network("joint transformer (SimBaMM)", model=joint, role="joint transformer")
    yield network("late, modality dropout", model=classifier(ModalityDropout(fusion.Concat(DIM))))
    yield from statistics_rows(MODALITIES, refit=True)
    for streams in (("video",), ("audio",), MODALITIES):
        fit = functools.partial(logistic, C=0.01, components={"video": 150, "audio": 100})
        yield Row(f"logistic {'+'.join(streams)}", fit=fit, streams=streams, varies=False, section="linear")
    frames = FrameVideo(DIM, frame_encoder=LeNet(DIM, hidden_dims=(64,)), temporal=encoder(), pool=None)
    model = classifier(fusion.Concat(DIM), video=frames)
    yield Row(
        "late, frames end to end", model=model, seeds=3, trials=1, notes="a CNN on the frames instead of PCA; one trial"
    )


TABLE = Table(
    title="AVLetters, spoken letters from lips and audio (repetitions 1, 2 train, 3 test)",
    dataset="avletters",
    view=aligned,
    task=Classification(num_classes=26),
    train=Train(epochs=60, batch_size=32, learning_rate=2e-3, refit=True),
    seeds=5,
    trials=5,
    rows=rows(),
    extra=("late, frames end to end",),
    references=REFERENCES,
)
