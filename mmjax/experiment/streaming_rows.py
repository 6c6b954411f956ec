"""Rows of a table on the streaming feed: seed by seed, each over all devices, with the results of the resident feed.

For networks or data that do not fit on a device with all seeds at once.
"""

import io
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.measures.mixing import Probe, equal_parts
from mmjax.evaluation.store.schema import HELD_OUT
from mmjax.hypotheses import concatenate
from mmjax.progress import read_metrics
from mmjax.streaming import fit_streaming
from mmjax.tasks import Task, generates
from mmjax.training import Train
from mmjax.typing import PyTree

__all__ = ["StreamedRow", "check_streamable", "fit_seeds"]


class StreamedRow(NamedTuple):
    """The trained seeds of a row.

    Attributes:
      variables: of the chosen epochs, with a leading axis of seeds.
      logits: ``[seeds, items, ...]`` by split, ``validation`` and ``test``.
      epoch: the chosen epoch of each seed, counted from 0.
      history: ``{"train/loss": [epochs, seeds], "validation/accuracy": ..., "test/...": ...}``; means of train are over
        the logged updates, on the resident feed over all.
      seconds: of training, compiling included.
    """

    variables: PyTree
    logits: dict[str, np.ndarray]
    epoch: np.ndarray
    history: dict[str, np.ndarray]
    seconds: float


def check_streamable(train: Train, trials: int) -> None:
    """Passes if the streaming feed can train a row.

    Raises:
      UsageError: a refit, a search over settings, or several processes.
    """
    if train.refit:
        raise UsageError("feed='streaming' has no refit: say train.refit=False, or feed='resident'")
    if trials > 1:
        raise UsageError(f"feed='streaming' searches no setting: say trials=1, not {trials}, or feed='resident'")
    if jax.process_count() > 1:
        raise UsageError(f"a table runs in one process, there are {jax.process_count()}: see mmjax.streaming")


def fit_seeds(
    model: nn.Module,
    task: Task,
    train: Train,
    data: Dataset,
    seeds: Sequence[int],
    *,
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> StreamedRow:
    """Trains a model per seed; the same call resumes a killed run without training finished seeds again.

    Args:
      folder: of a work directory for each seed.
      say: takes a line per seed.

    Raises:
      UsageError: as ``mmjax.streaming.fit_streaming``, with the seed.
    """
    clock = time.perf_counter()
    per_epoch = -(-data.splits["train"].size // train.update_size)
    variables, epochs, curves = [], [], []
    logits: dict[str, list[np.ndarray]] = {split: [] for split in HELD_OUT}
    for seed in seeds:
        workdir = folder / f"seed-{seed}"
        options: dict[str, Any] = {"seed": seed, "follow": ("test",), "log_every": min(10, per_epoch)}
        try:
            fit = fit_streaming(model, task, train, data.splits, workdir=workdir, terminal=io.StringIO(), **options)
        except UsageError as error:
            raise UsageError(f"seed {seed}: {error}") from error
        whole = jax.tree.map(lambda x: np.asarray(x)[None], jax.device_get(fit.variables))
        for split in HELD_OUT:
            chunk = min(train.batch_size, equal_parts(data.splits[split].size))
            probe = Probe(model, task, whole, chunk=chunk, tokenizers=data.tokenizers)
            logits[split].append(probe.outputs(data.splits[split]))
        variables.append(whole)
        epochs.append(fit.epoch)
        curves.append(_curves(read_metrics(workdir), per_epoch, train.epochs))
        say(f"seed {seed}: validation {train.select} {fit.metrics[f'validation/{train.select}']:.4f}")
    return StreamedRow(
        jax.tree.map(lambda *parts: np.concatenate(parts), *variables),
        {split: (concatenate if generates(task) else np.concatenate)(parts, axis=0) for split, parts in logits.items()},
        np.asarray(epochs),
        {name: np.stack([one[name] for one in curves], axis=1) for name in curves[0]},
        time.perf_counter() - clock,
    )


def _curves(lines: Sequence[dict[str, Any]], per_epoch: int, epochs: int) -> dict[str, np.ndarray]:
    """Mean of each metric over the lines of each epoch, ``[epochs]``; NaN without numbers."""
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    totals = {name: np.zeros((2, epochs)) for name in names}
    for line in lines:
        for name, value in line.items():
            if name != "step" and value is not None:
                totals[name][:, (line["step"] - 1) // per_epoch] += value, 1
    with np.errstate(invalid="ignore"):
        return {name: (total / count).astype(np.float32) for name, (total, count) in totals.items()}
