"""Encoders in stages, so that what they make of an input can be seen, and changed, before they are through.

An encoder with stages has their number as ``num_stages`` and takes ``stages``, a slice of those to run. Between two
stages a stream holds feature maps: items ``(h, w, c)`` of images and frames, ``(bands, c)`` of spectrograms,
``(tokens, dim)`` of an image's patches; a sequence keeps its items ``(dim,)``. ``mmjax.models.Interleaved`` runs
encoders stage by stage with exchanges between them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mmjax.stream import Stream

__all__ = ["ALL", "Step", "count_stages", "run_stages"]

ALL = slice(None)

Step = Callable[[Stream], Stream]


def run_stages(steps: Sequence[Step], stream: Stream, stages: slice) -> Stream:
    """The stream after the chosen ones of an encoder's steps, one after the other."""
    for step in steps[stages]:
        stream = step(stream)
    return stream


def count_stages(encoder: Any) -> int:
    """How many stages an encoder has; 0 if it cannot be run in parts."""
    return getattr(encoder, "num_stages", 0)
