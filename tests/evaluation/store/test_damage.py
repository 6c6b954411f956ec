"""What was changed in a work directory is named, and no number of it is printed."""

import json

import numpy as np
import pytest

from mmjax.evaluation import RecordStore, write_report
from mmjax.evaluation.store.damage import check_undamaged
from mmjax.files import DamagedFile, read_json, read_npz, replace_file
from tests.evaluation.table import SEEDS, config, targets, toy, write_toy_row

NAMES = ("text", "audio", "both")


@pytest.fixture
def store(tmp_path):
    store = toy(tmp_path, names=NAMES)
    for name in NAMES:
        digest = {"config_hash": f"hash of {name}", "seeds": list(SEEDS), "parts": {}}
        store.write_analysis(name, digest, {"pattern/": store.logits(name, "test")})
    check_undamaged(store)
    return store


def change_array(path, name, change):
    """One array of an archive, written as NumPy would."""
    arrays = dict(np.load(path))
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)


def edit_record(store, number, change):
    path = store.workdir / "records.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[number])
    change(record)
    lines[number] = json.dumps(record, sort_keys=True)
    path.write_text("\n".join(lines) + "\n")


def lose_line(store):
    path = store.workdir / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2] + path.read_text().splitlines(True)[3:]))


def add_line(store):
    path = store.workdir / "records.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])


def edit_config(store, **changes):
    path = store.workdir / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def file_of(store, folder):
    return next(iter(sorted((store.workdir / folder).iterdir())))


DAMAGES = {
    "a label": (lambda s: change_array(s.workdir / "targets.npz", "test/target", lambda a: 1 - a), "targets.npz"),
    "a group": (lambda s: change_array(s.workdir / "targets.npz", "test/group", lambda a: a % 3), "targets.npz"),
    "a metric": (lambda s: edit_record(s, 1, lambda r: r["metrics"].update(accuracy=0.999)), "records.jsonl"),
    "the best on test": (lambda s: edit_record(s, 1, lambda r: r.update(test_selected=0.999)), "records.jsonl"),
    "a line twice": (add_line, "records.jsonl"),
    "a lost seed": (lose_line, "records.jsonl"),
    "half a line": (lambda s: edit_record(s, 0, lambda r: r.pop("metrics")), "records.jsonl"),
    "the majority": (lambda s: edit_config(s, majority=0.1), "config.json"),
    "logits": (lambda s: change_array(file_of(s, "logits"), "test", lambda a: a[::-1]), "logits/"),
    "no logits": (lambda s: file_of(s, "logits").unlink(), "logits/"),
    "an analysis": (lambda s: change_array(file_of(s, "analysis"), "pattern/", lambda a: a * 2), "analysis/"),
    "half an analysis": (lambda s: file_of(s, "analysis").write_bytes(b"PK"), "analysis/"),
    "the history": (lambda s: change_array(file_of(s, "history"), "validation/accuracy", lambda a: a / 2), "history/"),
    "half a history": (lambda s: file_of(s, "history").write_bytes(b""), "history/"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_by_the_name_of_the_file(store, damage):
    make, file = DAMAGES[damage]
    make(store)
    with pytest.raises(DamagedFile, match=r"^damaged: ") as error:
        write_report(store.workdir)
    assert file in str(error.value) and "\n" not in str(error.value)
    assert not (store.workdir / "table.md").exists()


def test_a_flipped_bit_of_parameters_is_seen_and_removed_ones_are_no_damage(tmp_path):
    store = toy(tmp_path, names=())
    params = tmp_path / "checkpoints" / "text.safetensors"
    replace_file(params, bytes(1000))
    records, logits = write_toy_row(store, "text")
    store.write_row("text", records, logits, {}, None, ["checkpoints/text.safetensors"])
    check_undamaged(store)
    params.write_bytes(bytes(500) + b"\1" + bytes(499))
    assert not store.done("text", "hash of text", SEEDS)
    with pytest.raises(DamagedFile, match=r"checkpoints/text\.safetensors \(it was changed\)"):
        check_undamaged(store)
    params.unlink()
    check_undamaged(store)
    assert store.done("text", "hash of text", SEEDS)


def test_a_lost_seed_makes_the_table_incomplete(tmp_path):
    """Records and logits that agree on fewer seeds are no damage; the table says what it lacks."""
    store = toy(tmp_path, names=("audio",))
    write_toy_row(store, "text", seeds=SEEDS[:3])
    assert "seeds 3, 4 of row 'text'" in write_report(tmp_path)
    write_toy_row(store, "text")
    assert "of row 'text'" not in write_report(tmp_path)


def test_without_digests_scores_are_compared_with_their_logits_and_it_is_said(store):
    """As older versions left it: labels that were changed show in the scores, other things cannot be seen."""
    path = store.workdir / "records.jsonl"
    old = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        old.append(json.dumps({k: v for k, v in record.items() if k not in ("sha256", "targets_sha256", "files")}))
    path.write_text("\n".join(old) + "\n")
    assert "**Not verified**" in write_report(store.workdir)
    edit_record(store, 3, lambda record: record["metrics"].update(accuracy=0.999))
    with pytest.raises(DamagedFile, match=r"row 'text', seed 3: test accuracy is 0.999, by its logits"):
        write_report(store.workdir)


def test_rows_of_another_configuration_are_not_looked_at(store):
    store.write_config(config(rows=[{**row, "config_hash": "a new one"} for row in config()["rows"]]))
    file_of(store, "logits").unlink()
    assert "not run" in write_report(store.workdir)


def test_records_of_rows_that_the_table_no_longer_has_are_named(store):
    assert "also hold" not in write_report(store.workdir)
    store.write_config(config(rows=[row for row in config()["rows"] if row["name"] != "audio"]))
    assert "Its records also hold rows that are not in this table: audio." in write_report(store.workdir)


def test_what_is_no_file_of_its_kind_is_damage_in_one_line(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    (tmp_path / "a.npz").write_bytes(b"PK\3\4" + bytes(100))
    np.save(tmp_path / "b.npz", np.zeros(3))
    (tmp_path / "b.npz.npy").rename(tmp_path / "b.npz")
    for read, name in ((read_json, "a.json"), (read_npz, "a.npz"), (read_npz, "b.npz")):
        with pytest.raises(DamagedFile, match=rf"^damaged: .*{name} \(.+\)$"):
            read(tmp_path / name)


def test_a_store_of_nothing_is_whole(tmp_path):
    store = RecordStore(tmp_path)
    store.write_config(config())
    store.write_targets(targets())
    check_undamaged(store)
