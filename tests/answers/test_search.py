"""``mmjax search``: a tiny trained run ranks pictures and sentences as its embeddings do; mistakes are one line."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mmjax import cli, datasets, tables
from mmjax.answers.trained import load_trained
from mmjax.datasets.flickr8k.convert import convert
from mmjax.encoders import BagOfWords, FeatureMLP
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.experiment.data import apply_view
from mmjax.models import DualEncoder
from mmjax.retrieval import Retrieval
from mmjax.training import Train, predict
from tests.datasets import originals


def small(dataset):
    """Mean colours less those of train: a view that is fitted, and gives the stream another name."""
    centre, splits = None, {}
    for split in ("train", "validation", "test"):
        batch = dataset.splits[split]
        image = batch.streams["image"]
        means = image.values.astype(np.float32).mean((2, 3)) / 255
        centre = means.mean(0) if centre is None else centre
        streams = {"colour": image.replace(values=means - centre), "text": batch.streams["text"]}
        splits[split] = batch.replace(streams=streams)
    card = dataclasses.replace(dataset.card, kinds={"colour": "feature", "text": "text"})
    return dataclasses.replace(dataset, splits=splits, card=card)


def table():
    encoders = {"colour": FeatureMLP(dim=8), "text": BagOfWords(dim=8, vocab_size=60)}
    model = DualEncoder(encoders, dim=4, several=("text",))
    rows = [Row("forward", model=model), Row("backward", model=model, task=Retrieval("text", "colour"))]
    train = Train(epochs=4, batch_size=4, learning_rate=1e-2)
    return Table("tiny", "flickr8k", Retrieval("colour", "text"), rows, view=small, train=train, seeds=1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    originals.flickr8k(folder / "original")
    convert(folder / "original", folder / "data" / "flickr8k")
    folders = {"data_dir": folder / "data", "cache_dir": folder / "cache"}
    nothing = Measure(noise="none", interactions="none")
    run_table(table(), name="tiny_search", workdir=folder / "run", measure=nothing, say=lambda _: None, **folders)
    dataset = datasets.load("flickr8k", **folders)
    (folder / "photos").mkdir()
    for place, picture in enumerate(dataset.splits["test"].streams["image"].values[:, 0]):
        Image.fromarray(picture).save(folder / "photos" / f"{place}.png")
    (folder / "photos" / "notes.txt").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "a.png").write_bytes(b"\x89PNG no picture")
    return folder, dataset


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr(tables, "find", lambda name: table())


def search(workdir, capsys, *arguments, run="run"):
    folder = workdir[0]
    where = ("--data-dir", str(folder / "data"), "--cache-dir", str(folder / "cache"))
    status = cli.main(["search", str(folder / run), *map(str, arguments), *where])
    return status, *capsys.readouterr()


@pytest.mark.parametrize("row", ["forward", "backward"])
def test_the_order_is_that_of_the_embeddings(workdir, capsys, row):
    folder, dataset = workdir
    texts = dataset.streams and dataset.splits["test"].streams["text"]
    caption = dataset.tokenizers["text"].decode(texts.values[2, 1][texts.mask[2, 1]].tolist())
    trained = load_trained(folder / "run", lambda one, inputs: one.name == row, "embeds")
    outputs = predict(trained.model, trained.variables, apply_view(table(), dataset).splits["test"]).embeddings
    cosines = np.asarray(outputs["colour"].values[:, 0] @ outputs["text"].values[2, 1])
    sheet = folder / f"{row}.png"
    status, out, err = search(workdir, capsys, caption, "--images", folder / "photos", "--row", row, "--out", sheet)
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()[:4]]
    np.testing.assert_allclose([float(score) for score, _ in lines], np.sort(cosines)[::-1], atol=6e-4)
    assert [int(name.partition(".")[0]) for _, name in lines] == np.argsort(-cosines, kind="stable").tolist()
    assert f"contact sheet: {sheet}" in out and np.asarray(Image.open(sheet).convert("RGB")).std() > 10
    assert f"by {row!r}, seed 0" in out
    # the same pair the other way round has the same cosine
    (folder / "captions.txt").write_text(f"a dog\n\n{caption}\n")
    asked = ("--image", folder / "photos" / "2.png", "--captions", folder / "captions.txt", "--row", row)
    status, out, _ = search(workdir, capsys, *asked)
    assert status == 0 and f"{cosines[2]:6.3f}  {caption}" in out.splitlines()[:2]


def test_mistakes_are_one_line(workdir, capsys):
    folder, _ = workdir
    photos, broken = folder / "photos", folder / "broken"
    (folder / "nothing.txt").write_text("\n \n")
    cases = [
        (("a dog",), 'either "a sentence" with --images DIR'),
        (("  ", "--images", photos), "the query is empty"),
        (("a dog", "--images", folder / "nowhere"), "there is no folder"),
        (("a dog", "--images", folder / "empty"), "no pictures in"),
        (("a dog", "--images", broken), "none of the 1 pictures"),
        (("--captions", folder / "nothing.txt"), "say which with --image"),
        (("--captions", folder / "nothing.txt", "--image", photos / "0.png"), "holds no sentence"),
        (("--captions", folder / "original" / "Flickr8k.token.txt", "--image", broken / "a.png"), "is no picture"),
        (("a dog", "--images", photos, "--top", "0"), "--top is 1 or more"),
        (("a dog", "--images", photos, "--row", "sum"), "no row 'sum'"),
    ]
    for arguments, message in cases:
        status, out, err = search(workdir, capsys, *arguments)
        assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1, (arguments, err)
    status, _, err = search(workdir, capsys, "a dog", "--images", photos, run="data")
    assert status == 2 and "is no work directory of a table" in err


def test_a_broken_picture_among_others_is_left_out_and_said(workdir, capsys):
    folder, _ = workdir
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    status, out, _ = search(workdir, capsys, "a dog", "--images", folder / "photos", "--out", folder / "sheet.png")
    (folder / "photos" / "broken.jpg").unlink()
    assert status == 0 and "note: left out:" in out and "broken.jpg" in out and len(out.splitlines()) == 7
