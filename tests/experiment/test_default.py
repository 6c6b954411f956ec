"""A table for any data set: every kind has an encoder that fits it, and a CSV file runs to its advice."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from mmjax import cli, encoders
from mmjax.datasets import from_arrays, from_table
from mmjax.errors import UsageError
from mmjax.experiment.checks import check_model
from mmjax.experiment.data import load_dataset, row_data
from mmjax.experiment.default import default_encoder, default_table, default_train
from mmjax.experiment.equal_parameters import resolve
from mmjax.tasks import MultiLabel
from tests.animals import write_animals

N = 60
RANDOM = np.random.RandomState(0)
FORMS = {
    "vector": (RANDOM.randn(N, 5), "feature", encoders.FeatureMLP),
    "sequence": (RANDOM.randn(N, 7, 5), "feature", encoders.TemporalConv),
    "words": ([np.arange(1 + i % 4) for i in range(N)], "text", encoders.BagOfWords),
    "picture": (np.zeros((N, 12, 16, 3), np.uint8), "image", encoders.LeNet),
    "icon": (np.zeros((N, 3, 16, 3), np.uint8), "image", encoders.LeNet),
    "film": (np.zeros((N, 3, 8, 8), np.uint8), "video", encoders.FrameVideo),
    "wave": ([RANDOM.uniform(-1, 1, 3_000 + i) for i in range(N)], "audio", encoders.SpectrogramEncoder),
    "frames": (RANDOM.randn(N, 9, 24), "audio", encoders.SpectrogramEncoder),
}


def checked(dataset):
    """Every network of the default table fits the data, by shapes alone."""
    table = default_table(dataset)
    data = load_dataset(table)
    for row in table.rows:
        if row.model is not None:
            row = resolve(row, table, data)
            check_model(row.network, row.task or table.task, table.train, row_data(data, row))
    return table


def test_every_kind_has_an_encoder_that_fits():
    streams = {name: values for name, (values, _, _) in FORMS.items()}
    kinds = {name: kind for name, (_, kind, _) in FORMS.items()}
    dataset = from_arrays(streams, np.arange(N) % 3, kinds=kinds)
    for name, (_, _, encoder) in FORMS.items():
        assert type(default_encoder(dataset, name)) is encoder, name
    table = checked(dataset)
    assert {"concatenation", "joint transformer", "matched"} <= {row.role for row in table.rows}
    moved = load_dataset(table).splits["train"].streams["vector"].values
    np.testing.assert_allclose(moved.mean(0), 0, atol=1e-5)  # any units


@pytest.mark.parametrize(("examples", "updates"), [(500, 1500), (40, 400), (100_000, 15_625)])
def test_epochs_follow_from_the_number_of_updates(examples, updates):
    """About 1,500 updates, in 5 to 200 passes."""
    target = np.arange(examples + 20) % 2
    split = np.repeat([0, 1, 2], [examples, 10, 10])
    train = default_train(from_arrays({"vector": np.ones((examples + 20, 1))}, target, split=split))
    made = train.epochs * -(-examples // train.batch_size)
    assert made == pytest.approx(updates, rel=0.02) and train.clip_norm == 1.0 and train.schedule is None


@pytest.mark.parametrize("target", [np.linspace(0, 9, N), np.arange(N) % 2])
def test_scores_and_single_modalities_have_a_table(target):
    table = checked(from_arrays({"vector": FORMS["vector"][0], "sequence": FORMS["sequence"][0]}, target))
    scores = target.dtype.kind == "f"
    assert ("mean of scores" in {row.name for row in table.rows}) == ("mae" in table.task.lower_is_better) == scores
    alone = checked(from_arrays({"vector": FORMS["vector"][0]}, target))
    assert [row.name for row in alone.rows] == ["vector", "ridge regression" if scores else "logistic regression"]


def test_several_labels_have_a_table_and_a_label_per_step_none():
    labels = np.stack([np.arange(N) % 2, np.arange(N) % 3 == 0], 1).astype(int)
    table = checked(from_arrays({"vector": FORMS["vector"][0], "sequence": FORMS["sequence"][0]}, labels))
    assert isinstance(table.task, MultiLabel) and table.dataset.card.primary_metric == "labels_f1_macro"
    assert [row.name for row in table.rows if row.members] == ["mean of logits"]
    data = from_arrays({"vector": FORMS["vector"][0]}, labels)
    train = data.splits["train"]
    steps = {**data.splits, "train": train.replace(index=np.arange(72).reshape(36, 2))}
    with pytest.raises(UsageError, match=r"targets \(36, 2\): the default table is for a class, labels of 0 and 1, or"):
        default_table(dataclasses.replace(data, splits=steps))


@pytest.fixture
def main(monkeypatch, tmp_path, capsys):
    """The command line in an empty folder, without plots."""
    monkeypatch.setattr(cli, "configure", lambda: None)
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        status = cli.main(argv)
        return status, *capsys.readouterr()

    return run


def test_a_command_goes_from_a_csv_file_to_scores(main, tmp_path):
    path = write_animals(tmp_path / "animals")
    columns = ("--text", "caption", "--image", "photo", "--label", "kind", "--group", "owner", "--size", "8")
    rows = ("--rows", "photo,concatenation", "--noise", "none", "--interactions", "none")
    quick = ("--seeds", "2", "--trials", "1", "--set", "train.epochs=2")
    status, printed, _ = main("table", str(path), *columns, *rows, *quick)
    assert status == 0 and all(f"| {name} " in printed for name in ("photo", "concatenation", "chance"))
    assert "Classes: cat (100), dog (100), owl (100)." in printed and "photo: pictures, 8 by 8, colour" in printed
    summary = json.loads(pathlib.Path("runs/animals/table.json").read_bytes())
    assert (
        summary["items"] == {"validation": 60, "test": 60} and summary["group"] == "owner" and summary["groups"] == 15
    )


def test_a_whole_table_is_followed_by_its_advice(main, tmp_path, monkeypatch):
    calls = {}
    monkeypatch.setattr(
        "mmjax.experiment.commands.table", lambda table, **fields: calls.update(fields) or "the table\n"
    )
    monkeypatch.setattr("mmjax.experiment.commands.advise", lambda workdir: f"advice on {workdir}\n")
    path = write_animals(tmp_path / "my animals").rename(tmp_path / "my animals" / "my animals.csv")
    columns = ("--text", "caption", "--features", "weight", "--label", "kind")
    assert main("table", str(path), *columns)[:2] == (0, "the table\n\nadvice on runs/my-animals\n")
    assert calls["name"] == "my-animals" and calls["rows"] is None
    assert main("table", str(path), *columns, "--rows", "caption")[:2] == (0, "the table\n")
    assert main("table", str(path), *columns, "--smoke", "--workdir", "out")[1] == "the table\n\nadvice on out\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("nowhere.csv --label kind", ["no file 'nowhere.csv'"]),
        ("digits --text caption", ["--text is for a CSV file", "'digits'"]),
        ("animals/animals.csv --text caption", ["--label", "caption, photo, weight, kind, owner"]),
        ("animals/animals.csv --text said --label kind", ["no column 'said'"]),
        ("animals/animals.csv --label kind", ["no modality"]),
        ("animals/animals.csv --text caption --label kind --rows photo", ["'photo'", "caption"]),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(main, tmp_path, argv, words):
    write_animals(tmp_path / "animals", rows=60)
    status, printed, said = main("table", *argv.split())
    assert (status, printed) == (2, "") and said.count("\n") == 1 and all(word in said for word in words), said


def test_ten_lines_of_code_do_the_same(tmp_path):
    data = from_table(write_animals(tmp_path / "animals"), text="caption", image="photo", label="kind", group="owner")
    assert [row.name for row in checked(data).rows][:2] == ["caption", "photo"]
