"""Tables of arrays, tiny: one whose rows need no compilation, and one of every part that the protocol asks for."""

import dataclasses
import functools

import numpy as np

from mmjax import datasets, fusion
from mmjax.experiment import Row, Table
from mmjax.experiment.baselines import decide, decision_rows, logistic, matched_rows
from mmjax.fusion import decision
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.tasks import Classification
from mmjax.training import Train


def arrays(seed=0, items=60):
    """Two modalities of a class each shows a part of."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, items)
    centres = rng.normal(size=(2, 3, 4))
    left, right = (rng.normal(centres[i][target], 0.8) for i in range(2))
    split = np.repeat([0, 1, 2], items // 3)
    return datasets.from_arrays({"left": left, "right": right}, target, split=split, name="small")


def model(dim=4, **fields):
    return Multimodal({}, fusion.Concat(dim, **fields), ClassificationHead(3))


def alone(name, width):
    """A modality by itself, of some hidden width."""
    return model(hidden_dims=(width,))


def doubled(dataset):
    """A view: twice the values."""
    splits = {
        split: batch.replace(streams={k: s.replace(values=2 * s.values) for k, s in batch.streams.items()})
        for split, batch in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def guess(data, seed, members):
    """A method whose scores come from its seed alone."""
    rng = np.random.default_rng(seed)
    return {split: rng.normal(size=(data.splits[split].size, 3)) for split in ("validation", "test")}


def table(*, dataset=None, rows=None, **arguments):
    linear = functools.partial(Row, fit=functools.partial(logistic, C=1.0), varies=False)
    vote = functools.partial(decide, rule=decision.mean_of_logits)
    rows = rows or [
        linear("left", streams=("left",)),
        linear("right", streams=("right",)),
        Row("vote", fit=vote, members=("left", "right")),
        Row("guess", fit=guess),
    ]
    given = {"task": Classification(3), "seeds": 2, "train": Train(epochs=3, batch_size=8), **arguments}
    return Table(title="Small", dataset=dataset or arrays(), rows=rows, **given)


def conforming(**arguments):
    """Every baseline by the smallest network that can stand for it; the controls follow from the scores.

    What is compiled is little: a modality, one with as many parameters, and both of them.
    """
    names, both = ("left", "right"), model(hidden_dims=(8,))
    rows = [
        *(Row(name, model=model(), streams=(name,)) for name in names),
        *matched_rows(alone, names, like="joined"),
        *decision_rows(names),
        Row("joined", model=both, role="concatenation"),
        Row("doubled", model=both, view=doubled, role="joint transformer"),
    ]
    return table(rows=rows, **arguments)
