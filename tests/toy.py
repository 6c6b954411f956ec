"""A small problem for the tests of training: three classes, two modalities of vectors, one dense model."""

import numpy as np

from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.stream import Batch, Stream
from mmjax.tasks import Classification

WIDTHS = {"a": 8, "b": 4}
CLASSES = 4
MODEL = Multimodal({}, Concat(8), ClassificationHead(CLASSES, hidden_dims=(16,)))
DROPPED = MODEL.clone(head=ClassificationHead(CLASSES, dropout_rate=0.2))
TASK = Classification(CLASSES)


def make_batch(rows: int, seed: int = 0) -> Batch:
    """Vectors round the centre of their class; the centres are the same for every seed."""
    centres, rng = np.random.default_rng(99), np.random.default_rng(seed)
    target = rng.integers(0, CLASSES, rows).astype(np.int32)
    streams = {}
    for name, width in WIDTHS.items():
        values = centres.normal(size=(CLASSES, width))[target] + rng.normal(size=(rows, width))
        streams[name] = Stream(values[:, None].astype(np.float32), np.ones((rows, 1), bool))
    index = np.arange(rows, dtype=np.int32)
    return Batch(streams, target, np.ones(rows, np.float32), index, index.copy())


SPLITS = {"train": make_batch(40, 1), "validation": make_batch(20, 2), "test": make_batch(20, 3)}
