"""Sentences that a trained network says of one example: what ``caption`` and ``translate`` share."""

import argparse
import dataclasses
from typing import Any

import jax
import numpy as np

from mmjax.answers.trained import Trained
from mmjax.captioning import NO_HYPOTHESIS
from mmjax.errors import UsageError
from mmjax.hypotheses import unpack
from mmjax.stream import Batch, Stream
from mmjax.typing import Mapping

__all__ = ["check_search", "say_sentences", "sentence_lines"]


def check_search(args: argparse.Namespace) -> None:
    """Refuses a search that finds nothing.

    Raises:
      UsageError: ``--beams`` or ``--top`` below 1.
    """
    if args.beams < 1 or args.top < 1:
        raise UsageError(f"--beams and --top are 1 or more, got {args.beams} and {args.top}")


def say_sentences(
    trained: Trained, streams: Mapping[str, Stream], args: argparse.Namespace, **fields: Any
) -> tuple[Any, list[tuple[str, float]]]:
    """What beam search finds for one prepared example.

    Args:
      args: ``beams``, width of the search, and ``top``, how many sentences at most.
      **fields: of the task, changed.

    Returns:
      The task's outputs (ids, mask, scores), and the sentences with their log-probabilities in nats, best first.
    """
    task: Any = trained.task
    task = dataclasses.replace(task, beams=args.beams, n_best=min(args.top, args.beams), **fields)
    number = np.zeros(1, np.int32)
    batch = Batch(dict(streams), None, np.ones(1, np.float32), number, number)
    said = jax.device_get(jax.jit(lambda v, b: task.generate(trained.model, v, b))(trained.variables, batch))
    texts, scores = unpack(task.spell(said, trained.inputs.tokenizers))
    return said, [(text, score) for text, score in zip(texts[0], scores[0]) if score > 0.5 * NO_HYPOTHESIS]


def sentence_lines(found: list[tuple[str, float]]) -> list[str]:
    """A line for each sentence with its log-probability."""
    return [f"{score:8.2f}  {text or '(nothing)'}\n" for text, score in found]
