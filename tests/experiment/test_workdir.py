"""A work directory belongs to one table and one process, and what it links to belongs to neither."""

import pytest

from mmjax.errors import UsageError
from mmjax.experiment.workdir import claim
from mmjax.files import replace_file

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


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path):
    """As ``replace_file`` names it; a part of a table beside it has a lock and perhaps a process of its own."""
    workdir, others = tmp_path / "run", tmp_path / "others"
    for folder in (workdir / "plots", workdir / "part", others):
        folder.mkdir(parents=True)
    (workdir / "part" / ".lock").touch()
    (workdir / "link").symlink_to(others)
    litter = [workdir / ".table.tex.fll0wnml.tmp", workdir / "plots" / ".rows.png.a_b1c2d3.tmp"]
    kept = [
        workdir / ".mine.tmp",
        workdir / "table.tex",
        workdir / "part" / ".a.12345678.tmp",
        others / ".a.12345678.tmp",
    ]
    for path in (*litter, *kept):
        path.touch()
    with claim(workdir, OWNER):
        assert [path.exists() for path in (*litter, *kept)] == [False] * 2 + [True] * 4


def test_a_killed_writer_leaves_what_the_next_owner_removes(tmp_path, monkeypatch):
    def die(*arguments):
        raise SystemError

    with monkeypatch.context() as patch:
        patch.setattr("mmjax.files.os.replace", die)
        patch.setattr("mmjax.files.os.unlink", lambda path: None)  # as SIGKILL leaves it
        with pytest.raises(SystemError):
            replace_file(tmp_path / "table.md", b"half")
    assert len(list(tmp_path.iterdir())) == 1
    with claim(tmp_path, OWNER):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
