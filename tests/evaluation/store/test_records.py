import json
import os

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation import RecordStore, make_record
from tests.evaluation.table import SEEDS, targets, toy, write_toy_row


def contents(workdir):
    """Bytes of every file but the one of clocks and what a kill left unfinished."""
    files = [p for p in workdir.rglob("*") if p.is_file() and p.name != "timing.json" and p.suffix != ".tmp"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def test_round_trip(tmp_path):
    store = toy(tmp_path, names=())
    records, logits = write_toy_row(store, "text")
    again = RecordStore(tmp_path)
    stored = again.records("text")
    assert [r["seed"] for r in stored] == again.seeds("text") == list(SEEDS)
    for record, given in zip(stored, records):
        kept = dict.fromkeys(("logits_path", "logits_sha256", "targets_sha256", "files"))
        assert {**given, **kept} == {**record, **kept}
    for split in logits:
        np.testing.assert_array_equal(again.logits("text", split), logits[split])
        path, name = stored[0]["logits_path"][split].split(":")
        np.testing.assert_array_equal(np.load(tmp_path / path)[name], logits[split])
        np.testing.assert_array_equal(again.targets(split)[0], targets()[split]["target"])
    assert again.history("text")["validation/accuracy"].shape == (3, len(SEEDS))
    assert again.history("audio") is None
    assert again.records("audio") == []
    with pytest.raises(UsageError, match=r"no logits/audio-.*row 'audio'"):
        again.logits("audio", "test")


def test_done_asks_for_configuration_seeds_and_whole_logits(tmp_path):
    store = toy(tmp_path, names=("text",))
    assert store.done("text", "hash of text", SEEDS)
    assert store.done("text", "hash of text", SEEDS[:2])
    assert not store.done("text", "another hash", SEEDS)
    assert not store.done("text", "hash of text", [*SEEDS, 5])
    assert not store.done("audio", "hash of audio", SEEDS)
    path = next((tmp_path / "logits").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert not store.done("text", "hash of text", SEEDS)
    path.unlink()
    assert not store.done("text", "hash of text", SEEDS)
    path.write_bytes(whole)
    assert store.done("text", "hash of text", SEEDS)


def test_rows_run_in_any_order_leave_the_same_bytes(tmp_path):
    toy(tmp_path / "a", names=("text", "both", "audio"))
    store = toy(tmp_path / "b", names=("both", "audio"))
    write_toy_row(store, "text", config_hash="an older one", timing=5.0)
    write_toy_row(store, "text", timing=3.0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    lines = (tmp_path / "b" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines[:: len(SEEDS)]] == ["text", "audio", "both"]
    assert json.loads((tmp_path / "b" / "timing.json").read_text())["text"] == {"total_seconds": 3.0}


class Killed(Exception):
    pass


def test_killed_at_any_write_no_row_is_half_there(tmp_path, monkeypatch):
    toy(tmp_path / "whole", names=("audio", "text"))
    real, survived = os.replace, 0
    for moment in range(8):  # a row takes four writes; half of the times the kill comes before, half after one
        folder = tmp_path / str(moment)
        store = toy(folder, names=("audio",))
        write_toy_row(store, "text", config_hash="an older one", seeds=SEEDS[:2])
        calls = []

        def dying(source, target, moment=moment, calls=calls):
            calls.append(target)
            if len(calls) > moment // 2:
                if moment % 2:
                    real(source, target)
                raise Killed
            real(source, target)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", dying)
            write_toy_row(store, "text")
        fresh = RecordStore(folder)
        survived += (done := fresh.done("text", "hash of text", SEEDS))
        assert len(fresh.records("text")) == (len(SEEDS) if done else 2)
        assert fresh.done("audio", "hash of audio", SEEDS)
        write_toy_row(fresh, "text")
        assert contents(folder) == contents(tmp_path / "whole")
    assert survived == 1  # only the kill after the last write found the row finished


def test_truncated_lines_are_dropped(tmp_path):
    store = toy(tmp_path, names=("text", "audio"))
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        for name in ("text", "audio"):
            lines = [line for line in whole[:length].splitlines() if line.endswith(b"}") and name.encode() in line]
            assert store.done(name, f"hash of {name}", SEEDS) == (
                len([l for l in lines if json.loads(l)["row"] == name]) == len(SEEDS)
            )
    path.write_bytes(b'{"row": "text"}\n[]\nnull\n' + whole)
    assert store.done("text", "hash of text", SEEDS)


MEASURED = {"config_hash": "hash of text", "seeds": [0, 1], "parts": {"noise/text": {"levels": 2, "draws": 1}}}
ARRAYS = {"pattern/": np.zeros((2, 3, 2), np.float32), "noise/text": np.arange(6.0).reshape(3, 1, 2),
          "shapley/rule": np.asarray("permutation")}  # fmt: skip


def test_an_analysis_comes_back_as_it_was_and_is_known_by_its_digest(tmp_path):
    store = RecordStore(tmp_path)
    assert store.analysis("text") is None
    store.write_analysis("text", MEASURED, ARRAYS)
    digest, arrays = RecordStore(tmp_path).analysis("text")
    assert digest == MEASURED and set(arrays) == set(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], values)
        assert arrays[name].dtype == values.dtype
    assert store.analysis("Text") is None and store.analysis("audio") is None


def test_an_analysis_written_twice_has_the_same_bytes_and_takes_the_place_of_the_first(tmp_path):
    for folder in ("a", "b"):
        RecordStore(tmp_path / folder).write_analysis("text", MEASURED, ARRAYS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    RecordStore(tmp_path / "b").write_analysis("text", {**MEASURED, "seeds": [0]}, {"pattern/": np.ones(1)})
    digest, arrays = RecordStore(tmp_path / "b").analysis("text")
    assert digest["seeds"] == [0] and set(arrays) == {"pattern/"} and len(contents(tmp_path / "b")) == 1


def test_records_are_annotated_in_their_order_and_nothing_else_changes(tmp_path):
    store = toy(tmp_path, names=("text", "audio"))
    before = store.records("text") + store.records("audio")
    store.annotate({"audio": [{"per_mask": {"audio": seed / 4}} for seed in range(len(SEEDS))]})
    after = RecordStore(tmp_path).records("text") + RecordStore(tmp_path).records("audio")
    assert [record.pop("per_mask") for record in after[len(SEEDS) :]] == [{"audio": s / 4} for s in range(len(SEEDS))]
    assert after == before and store.done("audio", "hash of audio", SEEDS)
    path = tmp_path / "records.jsonl"
    written = path.stat().st_mtime_ns
    store.annotate({"audio": [{"per_mask": {"audio": seed / 4}} for seed in range(len(SEEDS))]})
    assert path.stat().st_mtime_ns == written  # no news, no new file


def test_a_damaged_analysis_counts_as_none(tmp_path):
    """Cut off anywhere, or with any byte turned over: never an error, never other numbers."""
    store = RecordStore(tmp_path)
    store.write_analysis("text", MEASURED, ARRAYS)
    path = next((tmp_path / "analysis").iterdir())
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert store.analysis("text") is None
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        found = store.analysis("text")
        if found is not None:  # the byte was one of the archive's dates, comments or modes
            assert found[0] == MEASURED and all((found[1][name] == ARRAYS[name]).all() for name in found[1])
    path.write_bytes(b"not an archive")
    assert store.analysis("text") is None
    path.unlink()
    path.mkdir()
    assert store.analysis("text") is None


def test_file_names_are_safe_and_differ(tmp_path):
    names = ["a/b", "a b", "A b", "../../x", "x" * 300, "ü", "ö", ""]
    store = RecordStore(tmp_path / "outer" / "workdir")
    store.write_config({"rows": [{"name": name} for name in names]})
    store.write_targets(targets())
    for name in names:
        write_toy_row(store, name)
    assert len({p.name.lower() for p in (store.workdir / "logits").iterdir()}) == len(names)
    assert [path.name for path in (tmp_path / "outer").iterdir()] == ["workdir"]


def test_wrong_arguments_say_what_would_be_right(tmp_path):
    store = toy(tmp_path, names=("text",))
    records, logits = store.records("text"), {k: store.logits("text", k) for k in ("validation", "test")}
    with pytest.raises(UsageError, match="5 records; its logits need as many seeds"):
        store.write_row("text", records, {**logits, "test": logits["test"][:2]}, {})
    with pytest.raises(UsageError, match="needs a record per seed, all its own"):
        store.write_row("audio", records, logits, {})
    wrong = targets()
    wrong["test"]["group"] = np.zeros(3)
    with pytest.raises(UsageError, match=r"group of test must be \[items\]"):
        store.write_targets(wrong)
    arguments = {
        key: records[0][key] for key in make_record.__kwdefaults__ | make_record.__annotations__ if key in records[0]
    }
    assert make_record(**arguments)["row"] == "text"
    with pytest.raises(UsageError, match="config_hash"):
        make_record(**{**arguments, "method": {}})
    with pytest.raises(UsageError, match="'bleu' of row 'text' is not among"):
        make_record(**{**arguments, "primary": "bleu"})
    with pytest.raises(UsageError, match=r"has no config\.json"):
        RecordStore(tmp_path / "nowhere").config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        store.config()
