"""``mmjax caption``: a tiny trained run says what is in a picture; mistakes are one line."""

import numpy as np
import pytest
from PIL import Image

from mmjax import cli, datasets, tables
from mmjax.captioning import Captioning, Items, PerCaption
from mmjax.datasets.flickr8k.convert import convert
from mmjax.decoder import TextDecoder
from mmjax.encoders import LeNet
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.hypotheses import unpack
from mmjax.models import Multimodal
from mmjax.training import Train
from tests.datasets import originals

END = 6  # after [UNK], a, ., dog, child, man


def table():
    image = LeNet(8, channels=(2, 4, 4), kernel_size=3, hidden_dims=(), tokens=True)
    model = Multimodal({"image": image}, Items(), PerCaption(TextDecoder(8, END + 1)))
    options = {"captions": True, "vocabulary": END, "max_words": 8}
    task = Captioning(END, max_length=8, beams=2, also=(1,), scores=("bleu1_captions", "cider_d"))
    train = Train(epochs=30, batch_size=4, learning_rate=1e-2)
    rows = [Row("decoder", model=model), Row("echo", fit=echo, varies=False)]
    return Table("tiny", "flickr8k", task, rows, options=options, train=train, seeds=2)


def echo(data, seed, members):
    """The same sentence of every photograph."""
    from mmjax.hypotheses import pack

    count = {split: data.splits[split].size for split in ("validation", "test")}
    return {split: pack([["a dog ."]] * n, np.zeros((n, 1))) for split, n in count.items()}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caption")
    originals.flickr8k(folder / "original")
    convert(folder / "original", folder / "data" / "flickr8k")
    nothing = Measure(noise="none", interactions="none")
    folders = {"data_dir": folder / "data", "cache_dir": folder / "cache"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        run_table(table(), name="tiny_captions", workdir=folder / "run", measure=nothing, say=lambda _: None, **folders)
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / "photo.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr(tables, "find", lambda name: table())


def caption(workdir, capsys, *more, image="photo.png", run="run"):
    status = cli.main(["caption", str(workdir / run), "--image", str(workdir / image), *more])
    return status, *capsys.readouterr()


def test_a_table_of_captions_keeps_text(workdir):
    store = RecordStore(workdir / "run")
    outputs = store.logits("decoder", "test")
    assert outputs.shape[:3] == (2, 4, 2)  # seeds, photographs, the beam's and the greedy hypothesis
    texts, _ = unpack(outputs)
    words = {word for text in texts.ravel() for word in text.split()}
    assert words and words <= {"a", ".", "dog", "child", "man"}
    scores = [record["metrics"] for record in store.records("decoder")]
    assert all({"bleu1_captions", "cider_d", "loss", "token_accuracy"} <= set(one) for one in scores)
    target, _ = store.targets("test")
    for name in ("bleu1_captions", "cider_d"):
        np.testing.assert_allclose([one[name] for one in scores], score(name).of(outputs, target), rtol=1e-6)
    assert max(one["bleu1_captions"] for one in scores) > 0.15


def test_what_is_said_of_a_photograph_is_what_the_table_keeps(workdir, capsys):
    dataset = datasets.load("flickr8k", data_dir=workdir / "data", cache_dir=workdir / "cache", **dict(table().options))
    Image.fromarray(dataset.splits["test"].streams["image"].values[0, 0]).save(workdir / "test.png")
    status, out, err = caption(workdir, capsys, "--beams", "2", "--top", "2", image="test.png")
    assert (status, err) == (0, "")
    *lines, last = out.splitlines()
    seed = int(last.split("seed ")[1].split(",")[0])
    texts, scores = unpack(RecordStore(workdir / "run").logits("decoder", "test")[seed, 0])
    assert lines[0].split(maxsplit=1)[1] == (texts[0] or "(nothing)") and len(lines) == 2
    np.testing.assert_allclose(float(lines[0].split()[0]), scores[0], atol=0.006)


def test_where_it_looked_is_drawn(workdir, capsys):
    path = workdir / "out.png"
    status, out, _ = caption(workdir, capsys, "--explain", str(path))
    assert status == 0 and str(path) in out
    assert np.asarray(Image.open(path).convert("RGB")).std() > 10


def test_mistakes_are_one_line(workdir, capsys):
    cases = [
        ({"image": "broken.png"}, (), "is no picture that can be read"),
        ({"image": "nothing.png"}, (), "there is no picture"),
        ({"run": "data"}, (), "is no work directory of a table"),
        ({}, ("--row", "echo"), "is no network that says what is in a picture; these do: decoder"),
        ({}, ("--beams", "0"), "--beams and --top are 1 or more"),
        ({}, ("--explain", str(workdir / "nowhere" / "out.png")), "cannot write"),
    ]
    for where, more, message in cases:
        status, out, err = caption(workdir, capsys, *more, **where)
        assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1, err
