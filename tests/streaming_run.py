"""A run of its own process, for tests that kill it: ``python -m tests.streaming_run WORKDIR``."""

import sys
import time

import jax
import optax
from jax.sharding import Mesh

from mmjax.sharding import make_mesh
from mmjax.streaming import StreamingFit, fit_streaming
from mmjax.training import Train
from tests.toy import DROPPED, SPLITS, TASK

TRAIN = Train(epochs=4, batch_size=8, learning_rate=1e-2, optimizer=optax.adam)


def one_device() -> Mesh:
    """A program for eight devices takes far longer to compile."""
    return make_mesh(devices=jax.devices()[:1])


def run(workdir, **arguments) -> StreamingFit:
    """20 steps with dropout and Adam, a checkpoint every fourth one."""
    arguments = {"mesh": one_device(), "checkpoint_every": 4, "log_every": 1, **arguments}
    return fit_streaming(DROPPED, TASK, TRAIN, SPLITS, workdir=workdir, **arguments)


def slowly(batch, rng):
    """So that a signal finds the run in its middle."""
    time.sleep(0.1)
    return batch


if __name__ == "__main__":
    run(sys.argv[1], transforms=(slowly,))
