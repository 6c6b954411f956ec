"""``mmjax translate``: a tiny trained run translates from its work directory alone; mistakes are one line."""

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import cli, datasets, tables
from mmjax.datasets.multi30k.vocabulary import END_ID
from mmjax.datasets.multi30k.words import readable
from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.encoders import LeNet, TransformerText
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.fusion import GatedTokens, JoinedTokens
from mmjax.hypotheses import unpack
from mmjax.layers import TokenEmbedding, TransformerBlock
from mmjax.models import Multimodal
from mmjax.training import Train
from mmjax.translation import Translation
from tests.datasets import multi30k_clones

TASK = Translation(END_ID, max_length=10, beams=2)


def table(**options):
    def model(fusion, **encoders):
        vectors = TokenEmbedding(8, 60, embedding_init=jax.nn.initializers.normal(0.3))
        text = TransformerText(8, 60, 1, TransformerBlock(num_heads=2, mlp_dim=8), vectors=vectors)
        head = TextDecoder(8, 60, block=DecoderBlock(num_heads=2, mlp_dim=8), vectors=vectors, tied=True)
        return Multimodal({"text": text, **encoders}, fusion, head)

    seeing = LeNet(8, channels=(4, 4, 4), kernel_size=3, hidden_dims=())
    rows = [
        Row("text only", model=model(JoinedTokens(8)), streams=("text",)),
        Row("gated", model=model(GatedTokens(8, target="text"), image=seeing)),
    ]
    train = Train(epochs=4, batch_size=4, learning_rate=1e-2)
    return Table("tiny", "multi30k_flickr8k", TASK, rows, options=options, train=train, seeds=1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translate")
    multi30k_clones.write_with_photographs(folder)
    nothing = Measure(noise="none", interactions="none")
    folders = {"data_dir": folder / "data", "cache_dir": folder / "cache"}
    run_table(table(), name="tiny_pairs", workdir=folder / "run", measure=nothing, say=lambda _: None, **folders)
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / "photo.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr(tables, "find", lambda name: table())


def translate(workdir, capsys, *more, text="A dog runs.", run="run"):
    status = cli.main(["translate", str(workdir / run), "--text", text, *more])
    return status, *capsys.readouterr()


def test_what_is_said_is_what_the_network_says_of_the_data(workdir, capsys):
    dataset = datasets.load("multi30k_flickr8k", data_dir=workdir / "data", cache_dir=workdir / "cache")
    texts, scores = unpack(RecordStore(workdir / "run").logits("text only", "test")[0])
    batch, tokenizer = dataset.splits["test"], dataset.tokenizers["text"]
    for row in range(batch.size):
        ids = batch.streams["text"].values[row][batch.streams["text"].mask[row]][:-1]
        sentence = tokenizer.decode(ids.tolist()).replace(" .", ".").capitalize()
        status, out, err = translate(workdir, capsys, "--beams", "2", "--top", "1", text=sentence)
        assert (status, err) == (0, "")
        score, said = out.splitlines()[0].split(maxsplit=1) if texts[row, 0] else (out.split()[0], "(nothing)")
        assert said.strip() == (readable(texts[row, 0]) or "(nothing)")
        np.testing.assert_allclose(float(score), scores[row, 0], atol=0.02)
        assert out.splitlines()[1].startswith("log-probabilities in nats, by 'text only', seed 0, of ")


def test_with_a_picture_a_row_that_sees_it_translates(workdir, capsys):
    status, out, err = translate(workdir, capsys, "--image", str(workdir / "photo.png"), "--top", "9", "--beams", "3")
    assert (status, err) == (0, "") and "by 'gated'" in out and len(out.splitlines()) == 4
    scores = [float(line.split()[0]) for line in out.splitlines()[:3]]
    assert scores == sorted(scores, reverse=True)


def test_mistakes_are_one_line(workdir, capsys):
    photo, broken = str(workdir / "photo.png"), str(workdir / "broken.png")
    cases = [
        ({}, ("--image", broken), "is no picture that can be read"),
        ({}, ("--image", str(workdir / "nothing.png")), "there is no picture"),
        ({"run": "data"}, (), "is no work directory of a table"),
        ({"text": "  "}, (), "the sentence is empty"),
        ({"text": "狗"}, (), "knows no word"),
        ({}, ("--row", "gated"), "is no network that translates a sentence alone (--image gives a picture)"),
        ({}, ("--row", "text only", "--image", photo), "with a picture (without --image it has none)"),
        ({}, ("--beams", "0"), "--beams and --top are 1 or more"),
    ]
    for where, more, message in cases:
        status, out, err = translate(workdir, capsys, *more, **where)
        assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1, err
