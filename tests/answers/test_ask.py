"""``mmjax ask``: a tiny trained run answers from its work directory alone; mistakes are one line."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from mmjax import cli, datasets, tables
from mmjax.answers.pictures import read_picture
from mmjax.answers.trained import load_trained, of_each_example
from mmjax.datasets import views
from mmjax.datasets.easy_vqa.convert import convert
from mmjax.encoders import BagOfWords, LeNet
from mmjax.errors import UsageError
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.fusion import Concat, Product, StackedAttention
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal, PerItem
from mmjax.tasks import Classification
from mmjax.training import Train, predict
from tests.datasets import originals


@of_each_example
def bright(dataset):
    """Pixels as floats, inverted: a view that a person's picture must go through too."""
    return views.map_stream(dataset, "image", lambda s: s.replace(values=1 - s.values.astype(np.float32) / 255))


def table(view=bright):
    words = BagOfWords(8, vocab_size=40)

    def model(fusion, tokens=False):
        image = LeNet(8, channels=(4, 4, 4), kernel_size=3, hidden_dims=(), tokens=tokens)
        head = ClassificationHead(13, pool=None)
        return Multimodal({"image": image, "question": words}, PerItem(fusion, "question"), head)

    blind = Multimodal({"question": words}, PerItem(Concat(8), "question"), ClassificationHead(13, pool=None))
    rows = [
        Row("question only", model=blind, streams=("question",)),
        Row("product", model=model(Product(8))),
        Row("stacked attention", model=model(StackedAttention(8, target="image"), tokens=True)),
    ]
    train = Train(epochs=2, batch_size=4)
    return Table("tiny", "easy_vqa", Classification(13), rows, view=view, train=train, seeds=2)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ask")
    originals.easy_vqa(folder / "original")
    convert(folder / "original", folder / "data" / "easy_vqa")
    nothing = Measure(noise="none", interactions="none")
    folders = {"data_dir": folder / "data", "cache_dir": folder / "cache"}
    run_table(table(), name="tiny_questions", workdir=folder / "run", measure=nothing, say=lambda _: None, **folders)
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / "photo.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr(tables, "find", lambda name: table())


def ask(workdir, capsys, *more, question="what color is the shape?", image="photo.png", run="run"):
    status = cli.main(["ask", str(workdir / run), "--image", str(workdir / image), "--question", question, *more])
    return status, *capsys.readouterr()


def test_answers_are_those_of_the_network_on_the_data(workdir, capsys):
    dataset = datasets.load("easy_vqa", data_dir=workdir / "data", cache_dir=workdir / "cache")
    batch = bright(dataset).splits["test"]
    trained = load_trained(workdir / "run", lambda row, inputs: row.name == "product", "multiplies")
    picture = dataset.splits["test"].streams["image"].values[0, 0]
    Image.fromarray(picture).save(workdir / "test.png")
    lists = json.loads((workdir / "data" / "easy_vqa" / "questions_test.json").read_text())
    status, out, err = ask(workdir, capsys, "--row", "product", "--top", "13", question=lists[0][0], image="test.png")
    assert (status, err) == (0, "")
    logits = np.asarray(predict(trained.model, trained.variables, batch))[0, 0]
    shares = np.exp(logits) / np.exp(logits).sum()
    lines = out.splitlines()
    names = [line.split("%")[1].strip() for line in lines[:13]]
    assert names == [dataset.card.class_names[i] for i in np.argsort(-shares)]
    shown = [float(line.split("%")[0]) for line in lines[:13]]
    np.testing.assert_allclose(shown, 100 * np.sort(shares)[::-1], atol=0.06)
    assert lines[13].startswith(f"by 'product', seed {trained.seed}, of ")


def test_the_best_of_those_that_see_both_answers_and_shows_where_it_looked(workdir, capsys):
    for row, how in (("stacked attention", "attention of the network"), ("product", "sizes of the gradient")):
        path = workdir / f"{row}.png"
        status, out, _ = ask(workdir, capsys, "--explain", str(path), "--top", "2", "--row", row)
        assert status == 0 and how in out and len(out.splitlines()) == 4
        assert np.asarray(Image.open(path).convert("RGB")).std() > 10
    status, out, _ = ask(workdir, capsys)
    assert status == 0 and "'question only'" not in out


def test_what_the_run_never_met_is_said(workdir, capsys):
    status, out, _ = ask(workdir, capsys, question="what color is the Zeppelin?")
    assert status == 0 and "never met 'Zeppelin'" in out
    for question, message in (("zeppelin ?", "knows no word"), ("  ", "the question is empty")):
        status, out, err = ask(workdir, capsys, question=question)
        assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1


def test_mistakes_are_one_line(workdir, capsys):
    cases = [
        ({"image": "broken.png"}, (), "is no picture that can be read"),
        ({"image": "nothing.png"}, (), "there is no picture"),
        ({"run": "data"}, (), "is no work directory of a table"),
        ({}, ("--row", "question only"), "is no network that answers questions about a picture; these do: product"),
        ({}, ("--row", "sum"), "no row 'sum'"),
        ({}, ("--top", "0"), "--top is 1 or more"),
    ]
    for where, more, message in cases:
        status, out, err = ask(workdir, capsys, *more, **where)
        assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1, err


def test_a_table_that_changed_since_is_refused(workdir, capsys, monkeypatch):
    monkeypatch.setattr(tables, "find", lambda name: table(view=views.standardise))
    assert "fitted on its data" in ask(workdir, capsys)[2]
    changed = table()
    rows = [Row(row.name, model=Multimodal({}, Concat(8), ClassificationHead(13))) for row in changed.rows]
    monkeypatch.setattr(tables, "find", lambda name: Table("tiny", "easy_vqa", Classification(13), rows))
    assert "is another network by now" in ask(workdir, capsys)[2]
    with pytest.raises(UsageError, match="no network of it sings"):
        load_trained(workdir / "run", lambda row, inputs: False, "sings")


def test_a_picture_is_stretched_to_the_size_of_the_run(workdir):
    picture = read_picture(workdir / "photo.png", (6, 4, 3))
    assert picture.shape == (6, 4, 3) and (picture == 200).all()
    assert read_picture(pathlib.Path(workdir / "photo.png"), (6, 4, 1)).shape == (6, 4, 1)
