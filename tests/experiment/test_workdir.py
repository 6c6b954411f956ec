"""A work directory belongs to one table and one process, and what it links to belongs to neither."""

import pytest

from mmjax.errors import UsageError
from mmjax.experiment.workdir import claim

OWNER = {"table": "digits", "row": None}


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    others, workdir = tmp_path / "others.txt", tmp_path / "run"
    others.write_text("theirs")
    workdir.mkdir()
    (workdir / ".lock").symlink_to(others)
    with pytest.raises(UsageError, match=r"cannot write .*run': its \.lock is a symbolic link") as error:
        with claim(workdir, OWNER):
            pass
    assert "\n" not in str(error.value) and others.read_text() == "theirs"
    (workdir / ".lock").unlink()
    (workdir / ".lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"its \.lock is a symbolic link"):
        with claim(workdir, OWNER):
            pass
    assert not (tmp_path / "nowhere").exists()


def test_one_process_at_a_time_and_one_table(tmp_path):
    with claim(tmp_path, OWNER):
        with pytest.raises(UsageError, match="another process is at work"), claim(tmp_path, OWNER):
            pass
    (tmp_path / "config.json").write_text('{"table": "digits", "row": null}')
    with claim(tmp_path, OWNER):
        pass
    with pytest.raises(UsageError, match="table is 'digits' there and 'synthetic' here"):
        with claim(tmp_path, {**OWNER, "table": "synthetic"}):
            pass
