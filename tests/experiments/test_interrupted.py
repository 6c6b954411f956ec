"""The check of killed runs: what continues is found the same, what begins anew or leaves something else is not."""

import sys

import pytest

from experiments._interrupted import check, differences, main

# Writes eight files slowly, each only if it is not there yet; the way of it may leave a trace of having been killed.
WRITER = """
import pathlib, sys, time
folder, trace = pathlib.Path(sys.argv[1]), sys.argv[2] == "trace"
folder.mkdir(parents=True, exist_ok=True)
again = len(list(folder.iterdir()))
(folder / "timing.json").write_text(str(time.time()))
for number in range(8):
    if not (folder / str(number)).exists():
        time.sleep(0.15)
        part = folder.parent / "part"
        part.write_text(f"{number} {again * trace}")
        part.replace(folder / str(number))
"""


def command(how):
    return lambda workdir: [sys.executable, "-c", WRITER, str(workdir), how]


def test_a_run_that_continues_leaves_the_same(tmp_path):
    lines, well = check(command("none"), tmp_path, delay=0.05)
    assert well and lines[0].startswith("killed 2 times, after [") and lines[0].endswith("of 8 files; 0 differ")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [*"01234567", "timing.json"]


def test_a_trace_of_the_death_is_found(tmp_path):
    lines, well = check(command("trace"), tmp_path, seed=1, delay=0.05)
    assert not well and any(line.endswith(": differs") for line in lines)


def test_files_of_one_run_alone_are_named(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, names in ((one, "ab"), (other, "ac")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    assert list(differences(one, other)) == ["b: only in one", "c: only in other"]


def test_a_failed_run_is_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"whole ended with status 3, see .*log\.txt"):
        check(lambda workdir: [sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_it_begins_in_an_empty_folder(tmp_path, capsys):
    (tmp_path / "killed").mkdir()
    with pytest.raises(SystemExit):
        main(["digits", "--workdir", str(tmp_path)])
    assert "is there already: this begins anew" in capsys.readouterr().err
