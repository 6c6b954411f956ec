"""The interpretation run from end to end, in small and without training; the chirps are what they are said to be."""

import json

import jax
import numpy as np
import pytest

from mmjax.evaluation.interpretation import reinitialise, scores
from mmjax.experiment import interpret as module
from mmjax.experiment.interpret import chirping_digits, interpret


@pytest.fixture
def untrained(monkeypatch):
    """Models as initialised: compiling their training would take most of the time."""

    def train(model, data, train, seed):
        first = jax.tree.map(lambda x: x[:10], data.splits["train"])
        return reinitialise(model, first.streams), 0.1

    monkeypatch.setattr(module, "_train", train)
    monkeypatch.setattr(scores, "compile_effort", lambda level: {"xla_backend_optimization_level": 0})


def test_a_smoke_run_writes_pictures_and_numbers(tmp_path, monkeypatch, untrained, capsys):
    monkeypatch.delenv("MMJAX_DATA_DIR", raising=False)
    monkeypatch.setattr(module, "SMOKE", 10)
    monkeypatch.setattr(module, "SHOWN", 1)
    text = interpret(workdir=tmp_path, smoke=True)
    found = json.loads((tmp_path / "interpretation.json").read_text())
    assert found["smoke"] and {"moving_digits", "digits with chirps"} <= set(found)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    parts = {"moving_digits": "video_0 text text_attention modalities removal".split()}
    parts["digits_with_chirps"] = "image_0 audio_0 modalities removal".split()
    assert names == {f"{name}_{part}.png" for name in parts for part in parts[name]}
    assert all((tmp_path / "pictures" / name).stat().st_size > 5_000 for name in names)
    moving = found["moving_digits"]
    assert moving["examples"] == 10 and moving["completeness_gap"] >= 0
    assert (
        moving["evidence"]["digit"]["chance"] == pytest.approx(0.25) and 0 < moving["evidence"]["word"]["chance"] < 0.25
    )
    assert set(moving["areas"]) == {"deletion", "insertion", "random"}
    assert set(moving["rank_correlation_after_randomising"]["signed"]) == {"head", "fusion", "all"}
    assert "on the digit:" in text and "25 % by chance" in text and str(tmp_path / "pictures") in text
    assert "gates over picture and sound" in capsys.readouterr().err


def test_chirps_rise_for_odd_digits_and_fall_for_even_ones():
    batch = chirping_digits().splits["test"]
    sounds = batch.streams["audio"].values[:40]
    windows = sounds[:, : 25 * 160].reshape(40, 25, 160)
    loud = (windows**2).mean(-1) > 0.02
    pitch = np.abs(np.fft.rfft(windows, axis=-1)).argmax(-1) * 50  # Hz
    for label, heard, rows in zip(batch.target[:40], pitch, loud):
        slope = np.polyfit(np.arange(rows.sum()), heard[rows], 1)[0]
        assert 8 <= rows.sum() <= 11 and (slope > 0) == label % 2
        assert 400 <= heard[rows].min() and heard[rows].max() <= 2600
