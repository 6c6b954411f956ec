"""Dialogue about a drawing: five questions that refer to what was said before; replies are generated word for word.

    python -m experiments table visual_dialogue --data-dir DIR

The dialogues are made by a procedure whose ceilings are computed from it exactly (``datasets/visual_dialogue``): the
best rule says 25.6 % of the replies right by the question alone, 63.5 % with the picture, 74.8 % with the history, all
of them with both. A row of a part that came near its ceiling has learned what there is; a row of all that passes 74.8 %
uses history and picture together.

Expect, 3 seeds: question 26.5, question and history 73.8, question and picture 57.5 (one seed 52, two 60), all three
95.2, above every ceiling of a part; with history and picture of other dialogues in training 27.0. By the gate 50 points
rest on the history and 42 on the picture.
"""

import functools

from mmjax.datasets import views
from mmjax.datasets.visual_dialogue.examples import END_ID
from mmjax.decoder import TextDecoder
from mmjax.dialogue import History, Replies, ReplyHead, TurnFusion
from mmjax.encoders import LeNet, RecurrentText
from mmjax.experiment import Row, Table
from mmjax.layers import GRU, final_state
from mmjax.models import Multimodal
from mmjax.training import Train, warmup_cosine

DIM, VOCABULARY = 64, 52
ENCODERS = {
    "image": LeNet(DIM, channels=(8, 16, 32, 32), kernel_size=3, tokens=True),
    "question": RecurrentText(DIM, VOCABULARY, cell=GRU, bidirectional=True, pool=final_state),
    "history": History(DIM, VOCABULARY, word_dim=DIM),
}


def network(streams):
    """A vector per turn of what is asked and what was said before, which looks at the picture; a decoder."""
    encoders = {name: ENCODERS[name] for name in streams}
    return Multimodal(encoders, TurnFusion(DIM), ReplyHead(TextDecoder(DIM, VOCABULARY)))


def rows():
    """What each part tells."""
    for name, streams in (
        ("question", ("question",)),
        ("question and history", ("history", "question")),
        ("question and image", ("image", "question")),
        ("question, history and image", ("history", "image", "question")),
    ):
        role = "concatenation" if len(streams) == 3 else ""
        yield Row(name, model=network(streams), streams=streams, role=role)


TABLE = Table(
    title="Dialogue about a drawing, replies generated, exact match",
    dataset="visual_dialogue",
    task=Replies(end_id=END_ID),
    train=Train(epochs=16, batch_size=32, learning_rate=3e-3, schedule=warmup_cosine, clip_norm=1.0),
    seeds=3,
    rows=rows(),
    apart=functools.partial(views.take_apart, nested=("history", "question")),
)
