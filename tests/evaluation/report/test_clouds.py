"""The picture of a shared space: of which network, what is drawn, and the numbers in it."""

import dataclasses

import numpy as np
import pytest

from mmjax import datasets
from mmjax.encoders import FeatureMLP
from mmjax.evaluation import RecordStore
from mmjax.evaluation.measures.alignment import modality_gap
from mmjax.evaluation.report.plots.clouds import Clouds, clouds_figure, clouds_of, principal_plane
from mmjax.evaluation.report.summary import summarise
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.models import DualEncoder
from mmjax.retrieval import Retrieval
from mmjax.training import Train


def units(draw, *shape):
    x = draw.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A table of two networks of one shared signal, one of which hardly learns, and what its report makes of it."""
    draw = np.random.default_rng(0)
    signal = draw.normal(size=(90, 4))
    streams = {name: signal @ draw.normal(size=(4, 6)) + 0.1 * draw.normal(size=(90, 6)) for name in ("image", "text")}
    data = datasets.from_arrays(streams, np.arange(90) % 3, split=np.repeat([0, 1, 2], 30), name="pairs")
    model = DualEncoder({name: FeatureMLP(dim=8) for name in streams}, dim=4, scale=10.0)
    task = Retrieval("image", "text", scores=("recall@1_forward", "recall@5_forward"))
    rows = [Row("learns", model=model), Row("hardly", model=model, train=Train(epochs=1, learning_rate=1e-6))]
    table = Table("Pairs", data, task, rows, train=Train(epochs=30, batch_size=30, learning_rate=3e-2), seeds=1,
                  also=("recall@5_forward",))  # fmt: skip
    card = dataclasses.replace(data.card, primary_metric="", num_classes=None, class_names=())
    table = dataclasses.replace(table, dataset=dataclasses.replace(data, card=card))
    folder = tmp_path_factory.mktemp("clouds")
    measure = Measure(noise="none", interactions="none")
    text = run_table(table, workdir=folder, measure=measure, say=lambda line: None)
    return folder, text


def test_the_clouds_are_those_of_the_best_network_untrained_and_trained(finished):
    folder, _ = finished
    store, summary = RecordStore(folder), summarise(folder)
    clouds = clouds_of(summary, summary["rows"], store)
    assert (clouds.name, clouds.sides) == ("learns", ("image", "text"))
    np.testing.assert_array_equal(clouds.after, store.logits("learns", "test")[0])
    assert clouds.before.shape == clouds.after.shape and not np.allclose(clouds.before, clouds.after)
    near = [(sides[:, 0, 0] * sides[:, 1, 0]).sum(-1).mean() for sides in (clouds.before, clouds.after)]
    assert near[1] > near[0] + 0.2  # partners have come nearer
    assert (folder / "plots" / "clouds.png").read_bytes()[:4] == b"\x89PNG"
    hardly = [row for row in summary["rows"] if row["name"] == "hardly"]
    assert clouds_of(summary, hardly, store).name == "hardly" and clouds_of(summary, [], store) is None


def test_a_retrieval_table_conforms_with_its_control_and_says_chance(finished):
    folder, text = finished
    summary = summarise(folder)
    assert summary["conforming"] and "learns: text shuffled" in {row["name"] for row in summary["rows"]}
    assert summary["chance"] == pytest.approx(1 / 30, abs=0.03) and "Non-conforming" not in text
    assert "recall@5_forward %" in text and "kept, missing" not in text
    assert not (folder / "plots" / "missing_modality.png").exists()


def test_the_plane_is_that_of_greatest_variance():
    draw = np.random.default_rng(0)
    turn, _ = np.linalg.qr(draw.normal(size=(5, 5)))
    flat = draw.normal(size=(50, 5)) * [5, 3, 0.1, 0.1, 0.1]
    plane, share = principal_plane(flat @ turn + 7)
    assert share > 0.99
    np.testing.assert_allclose(plane.var(0), np.sort(np.linalg.eigvalsh(np.cov(flat.T, ddof=0)))[::-1][:2], rtol=1e-6)
    assert principal_plane(np.ones((4, 3)))[0].tolist() == [[0, 0]] * 4


def test_the_numbers_in_the_figure_are_those_of_partners_alone():
    draw = np.random.default_rng(0)
    before, after = units(draw, 12, 2, 2, 4), units(draw, 12, 2, 2, 4)
    after[3, 1] = 0  # has no partner
    figure = clouds_figure(Clouds("row", ("image", "text"), before, after))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    there = np.arange(12) != 3
    gap = modality_gap(after[there, 0, 0], after[there, 1, 0])
    assert f"modality gap {gap:.2f}" in texts[1] and f"modality gap {gap:.2f}" not in texts[0]
    assert [len(line.get_xdata()) for line in figure.axes[1].lines[-2:]] == [11, 11]
    assert clouds_figure(None) is None
