"""``mmjax chat``: a tiny trained run keeps the history, ends at an empty line, and says mistakes in one line."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import cli, tables
from mmjax.answers import chat
from mmjax.answers.trained import load_trained
from mmjax.datasets.base import Card, Dataset
from mmjax.datasets.raw.words import fit_tokenizer
from mmjax.datasets.visual_dialogue.examples import history_ids, question_ids
from mmjax.decoder import TextDecoder
from mmjax.dialogue import History, Replies, ReplyHead, TurnFusion
from mmjax.encoders import BagOfWords, LeNet
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.hypotheses import encode_texts, first_texts
from mmjax.models import Multimodal
from mmjax.stream import Batch, Stream
from mmjax.training import Train

REPLIES = ("it is dark .", "it is light .")
ASKED = ("is it dark ?", "say it again")


def draw(rows, first):
    """Dark or light pictures; the second turn repeats the reply to the first, which the history alone tells."""
    rng = np.random.default_rng(first)
    light = rng.integers(0, 2, rows)
    pixels = (40 + 170 * light[:, None, None, None] + rng.integers(0, 20, (rows, 8, 8, 3))).astype(np.uint8)
    said = [[REPLIES[one]] * 2 for one in light]
    return pixels, said


WORDS = fit_tokenizer([*REPLIES, *ASKED] * 2)


def batch(rows, first):
    pixels, said = draw(rows, first)
    tokens = np.zeros((rows, 2, 5), np.int32)
    for place in np.ndindex(rows, 2):
        tokens[(*place, slice(4))] = WORDS.encode(said[place[0]][place[1]]).ids
    text = encode_texts([[reply] for row in said for reply in row])
    text = Stream(*(x.reshape(rows, 2, *x.shape[1:]) for x in (text.values, text.mask)))
    streams = {
        "image": Stream(pixels[:, None], np.ones((rows, 1), bool)),
        "question": question_ids(WORDS, [list(ASKED)] * rows),
        "history": history_ids(WORDS, [list(zip(ASKED, row)) for row in said]),
    }
    number = np.arange(2 * rows, dtype=np.int32).reshape(rows, 2)
    target = {"tokens": Stream(tokens, np.ones(tokens.shape, bool)), "text": text}
    return Batch(streams, target, np.ones(rows, np.float32), number, first + number // 2)


def table():
    splits = {"train": batch(48, 0), "validation": batch(8, 100), "test": batch(8, 200)}
    kinds = {"image": "image", "question": "text", "history": "text"}
    card = Card("talk", "dark or light", kinds, None, primary_metric="sentence_exact", group="picture")
    data = Dataset(card, splits, "1", "0", "drawn", tokenizers={"question": WORDS, "history": WORDS})
    encoders = {
        "image": LeNet(8, channels=(4,), kernel_size=3, tokens=True),
        "question": BagOfWords(8, 20),
        "history": History(8, 20, word_dim=8),
    }
    head = ReplyHead(TextDecoder(8, 20))
    blind = Multimodal({"question": encoders["question"]}, TurnFusion(8), head)
    rows = [
        Row("question", model=blind, streams=("question",)),
        Row("all", model=Multimodal(encoders, TurnFusion(8), head), role="concatenation"),
    ]
    train = Train(epochs=30, batch_size=8, learning_rate=2e-2)
    return Table("tiny", data, Replies(max_length=5, beams=2, n_best=2), rows, train=train, seeds=1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        nothing = Measure(noise="none", interactions="none")
        run_table(table(), name="talk", workdir=folder / "run", measure=nothing, say=lambda _: None)
    for name, value in (("dark", 45), ("light", 220)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr(tables, "find", lambda name: table())


def talk(workdir, capsys, monkeypatch, *more, lines=ASKED, image="dark.png", run="run"):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    status = cli.main(["chat", str(workdir / run), "--image", str(workdir / image), *more])
    return status, *capsys.readouterr()


def test_the_history_is_kept_and_every_reply_is_that_of_the_network(workdir, capsys, monkeypatch):
    assert RecordStore(workdir / "run").records("all")[0]["metrics"]["sentence_exact"] == 1.0
    for image, right in zip(("dark.png", "light.png"), REPLIES):
        status, out, err = talk(workdir, capsys, monkeypatch, image=image)
        assert (status, err) == (0, "") and out.splitlines()[:2] == [right, right]
        assert out.splitlines()[2].startswith("by 'all', seed 0, of ")
    # a third turn is heard by the same network: what was said before is its history
    trained = load_trained(workdir / "run", chat._fits, chat.WHAT)
    conversation = chat.Conversation(trained, np.full((8, 8, 3), 45, np.uint8))
    for line in (*ASKED, ASKED[1]):
        conversation.ask(line)
    before = list(zip(ASKED, [reply for _, reply in conversation.said]))
    history = history_ids(WORDS, [[*before, ("x", "x")]])
    streams = {
        "image": Stream(np.full((1, 1, 8, 8, 3), 45, np.uint8), np.ones((1, 1), bool)),
        "question": question_ids(WORDS, [[ASKED[1]]]),
        "history": Stream(history.values[:, 2:], history.mask[:, 2:]),
    }
    number = np.zeros((1, 1), np.int32)
    asked = Batch(streams, None, np.ones(1), number, number)
    outputs = jax.jit(lambda b: trained.task.generate(trained.model, trained.variables, b))(asked)
    (expected,) = first_texts(trained.task.spell(jax.device_get(outputs), {"question": WORDS})[0])
    assert conversation.said[2] == (ASKED[1], expected)


def test_candidates_with_scores_and_where_it_looked(workdir, capsys, monkeypatch):
    path = workdir / "looks.png"
    status, out, _ = talk(workdir, capsys, monkeypatch, "--top", "2", "--explain", str(path), image="light.png")
    shares = [float(line.split("%")[0]) for line in out.splitlines()[:4]]
    assert status == 0 and shares[0] > 80 and shares[0] > shares[1] and f"to the picture: {path}" in out
    assert np.asarray(Image.open(path).convert("RGB")).std() > 10


def test_an_empty_line_ends_it(workdir, capsys, monkeypatch):
    status, out, _ = talk(workdir, capsys, monkeypatch, lines=[ASKED[0], "", ASKED[1]])
    assert status == 0 and len(out.splitlines()) == 2
    status, out, _ = talk(workdir, capsys, monkeypatch, "--explain", str(workdir / "none.png"), lines=[""])
    assert status == 0 and "nothing was said" in out and not (workdir / "none.png").exists()


def test_mistakes_are_one_line(workdir, capsys, monkeypatch):
    status, out, err = talk(workdir, capsys, monkeypatch, lines=["zeppelin", "is it a dark zeppelin ?"])
    assert status == 0 and len(err.splitlines()) == 1 and "knows no word" in err
    assert out.startswith(REPLIES[0]) and "never met 'a', 'zeppelin'" in out
    (workdir / "broken.png").write_bytes(b"\x89PNG no picture")
    for where, more, message in (
        ({"image": "broken.png"}, (), "is no picture that can be read"),
        ({"image": "nothing.png"}, (), "there is no picture"),
        ({"run": "nowhere"}, (), "nowhere"),
        ({}, ("--row", "question"), "is no network that holds a conversation about a picture; these do: all"),
        ({}, ("--top", "0"), "--top is 1 or more"),
        ({}, ("--top", "3"), "--top is at most 2"),
    ):
        status, out, err = talk(workdir, capsys, monkeypatch, *more, **where)
        assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1, err
