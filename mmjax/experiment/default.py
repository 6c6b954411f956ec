"""A table for any data set: an encoder per modality, single modalities, common fusions, and baselines.

Small models that train in minutes on a laptop, as a starting point.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import numpy as np

from mmjax import fusion
from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.datasets.statistics import has_sequences, statistics
from mmjax.encoders import BagOfWords, FeatureMLP, FrameVideo, LeNet, LogMel, SpectrogramEncoder, TemporalConv
from mmjax.errors import UsageError
from mmjax.experiment.baselines import decision_rows, logistic, matched_rows, ridge
from mmjax.experiment.table import Row, Table
from mmjax.heads import ClassificationHead, MultiRegressionHead, RegressionHead
from mmjax.models import ModalityDropout, Multimodal
from mmjax.tasks import Classification, MultiLabel, MultiRegression, Regression, Task
from mmjax.training import Train

__all__ = ["default_encoder", "default_table", "default_train"]

DIM = 64
DROPOUT = 0.2
STEPS = 1_500
"""Updates of a small model, in 5 to 200 epochs."""


def default_encoder(dataset: Dataset, name: str, dim: int = DIM) -> nn.Module:
    """The encoder for a modality's kind; its parameters grow with ``dim``.

    Text: a bag of words; images: a LeNet of up to three stages; waveforms and spectrograms: convolutions over time and
    frequency; vectors: an MLP; sequences of vectors: convolutions over time; videos: a LeNet per frame, then these.
    """
    stream, kind = dataset.splits["train"].streams[name], dataset.card.kinds[name]
    shape = stream.values.shape[stream.mask.ndim :]
    if kind == "text" and not shape:
        return BagOfWords(dim, _vocabulary(dataset, name), (dim,), unknown_id=0, dropout_rate=DROPOUT)
    if kind in ("image", "video") and len(shape) == 3:
        stages = max(min(3, int(math.log2(min(shape[:2]))) - 1), 0)
        image = LeNet(dim, (16, 32, 64)[:stages], (2 * dim,), dropout_rate=DROPOUT)
        return image if kind == "image" else FrameVideo(dim, image, TemporalConv(dim, dropout_rate=DROPOUT))
    if kind == "audio" and not shape:
        rate = dataset.sample_rates.get(name, 16_000)
        frontend = LogMel(rate, n_mels=32, n_fft=2 ** math.ceil(math.log2(0.032 * rate)))
        return SpectrogramEncoder(dim, frontend, dropout_rate=DROPOUT)
    if kind == "audio" and shape[0] >= 8:
        return SpectrogramEncoder(dim, dropout_rate=DROPOUT)
    if stream.mask.shape[1] > 1 and len(shape) == 1:
        return TemporalConv(dim, 5, dropout_rate=DROPOUT)
    return FeatureMLP(dim, (2 * dim,), dropout_rate=DROPOUT)


def _vocabulary(dataset: Dataset, name: str) -> int:
    if name in dataset.tokenizers:
        return dataset.tokenizers[name].get_vocab_size()
    return 1 + max(int(batch.streams[name].values.max()) for batch in dataset.splits.values())


def default_train(dataset: Dataset) -> Train:
    """About 1,500 updates in 5 to 200 epochs, gradients clipped at norm 1, the epoch selected by accuracy; of labels or
    a score by the loss, of several scores by the mean of their R², since their units differ.

    Chosen on halves of the validation splits of five small data sets (``benchmarks/recipes.md``): the number of updates
    and label smoothing of 0.1 (also in the default table) helped; clipping and selection by accuracy changed little; a
    cosine schedule lost a little, so the learning rate is constant.
    """
    steps = math.ceil(dataset.splits["train"].size / 32)
    epochs = min(max(math.ceil(STEPS / steps), 5), 200)
    select = "accuracy" if dataset.card.num_classes and not dataset.multi_label else "loss"
    select = "scores_r2" if _count_scores(dataset) else select
    return Train(epochs=epochs, batch_size=32, learning_rate=1e-3, clip_norm=1.0, select=select)


def default_table(
    dataset: Dataset, *, title: str = "", seeds: int = 5, trials: int = 5, train: Train | None = None
) -> Table:
    """A table of a data set of one's own: every modality alone, decision-level fusion, trained fusions, a linear model.

    Args:
      dataset: of ``from_table``, ``from_arrays`` or ``load``; an example has one label, one of 0 and 1 for each class,
        a score, or several scores.
      title: default: the data set's name.
      seeds: number of seeds.
      trials: number of settings of each row to choose from on validation.
      train: default: ``default_train``.

    Raises:
      UsageError: a label a step, or a target that is no array.
    """
    batch, labels = dataset.splits["train"], dataset.multi_label
    array = isinstance(batch.target, np.ndarray)
    if not array or batch.index.ndim > 1 or (batch.target.ndim > 1 and not labels and not _count_scores(dataset)):
        form = str(batch.target.shape) if array else f"of type {type(batch.target).__name__}"
        raise UsageError(
            f"{dataset.card.name} has targets {form}: the default table is for a class, labels of 0 and 1, or one or "
            "several scores an example"
        )
    names = dataset.streams
    row = functools.partial(_row, dataset)
    rows = [Row(name, model=row(fusion.Concat(DIM), (name,)), streams=(name,)) for name in names]
    if len(names) > 1:
        concat = fusion.Concat(DIM, hidden_dims=(DIM,))
        rows += matched_rows(functools.partial(_alone, dataset), names, like="concatenation")
        rows += decision_rows(names, scores=not dataset.card.num_classes)[: 1 if labels else None]
        rows += [
            Row("concatenation", model=row(concat, names), role="concatenation"),
            Row("additive attention", model=row(fusion.AdditiveAttention(DIM), names)),
            Row("gated (GMU)", model=row(fusion.GMU(DIM), names)),
            Row("joint transformer", model=row(fusion.JointTransformer(DIM), names), role="joint transformer"),
            Row("concatenation, modality dropout", model=row(ModalityDropout(concat), names)),
        ]
    if not has_sequences(dataset) and not labels:  # with_baselines adds such rows for sequences
        label, method = ("logistic regression", logistic) if dataset.card.num_classes else ("ridge regression", ridge)
        fit = functools.partial(method, C=0.01, refit=False)
        rows.append(Row(label, fit=fit, view=statistics, varies=False, baseline=False, role="linear"))
    return Table(
        title=title or dataset.card.name,
        dataset=dataset,
        task=_task(dataset),
        rows=rows,
        view=functools.partial(views.standardise, names=_plain(dataset)),
        train=train or default_train(dataset),
        seeds=seeds,
        trials=trials,
        note=dataset.card.description,
    )


def _plain(dataset: Dataset) -> tuple[str, ...]:
    """Modalities of vectors, which may have any units."""
    train = dataset.splits["train"].streams
    numbers = [n for n, kind in dataset.card.kinds.items() if kind == "feature" or train[n].values.ndim == 3]
    return tuple(sorted(name for name in numbers if train[name].values.dtype.kind == "f"))


def _count_scores(dataset: Dataset) -> int:
    """Scores of an example that has several, else 0."""
    batch = dataset.splits["train"]
    several = not dataset.card.num_classes and np.ndim(batch.target) == 2 and np.ndim(batch.index) == 1
    return np.shape(batch.target)[1] if several else 0


def _task(dataset: Dataset) -> Task:
    classes = dataset.card.num_classes
    if classes and dataset.multi_label:
        return MultiLabel(classes)
    if classes:
        return Classification(classes, label_smoothing=0.1)
    return MultiRegression() if _count_scores(dataset) else Regression()


def _head(dataset: Dataset) -> nn.Module:
    if dataset.card.num_classes:
        return ClassificationHead(dataset.card.num_classes)
    count = _count_scores(dataset)
    return MultiRegressionHead(count) if count else RegressionHead()


def _row(dataset: Dataset, method: nn.Module, names: Sequence[str]) -> Multimodal:
    return Multimodal({name: default_encoder(dataset, name) for name in names}, method, _head(dataset))


def _alone(dataset: Dataset, name: str, width: int) -> Multimodal:
    return Multimodal({name: default_encoder(dataset, name, width)}, fusion.Concat(width), _head(dataset))
