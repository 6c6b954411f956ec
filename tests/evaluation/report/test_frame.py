import fnmatch
import tomllib

import pytest

from mmjax.evaluation.report.frame import make_frame
from mmjax.evaluation.report.templating import TEMPLATES
from tests.evaluation.full import bare_summary, full_summary
from tests.test_extras import ROOT


@pytest.fixture(scope="module")
def summary():
    summary = full_summary("cmu_mosi")
    summary["rows"][0] |= {"notes": "of both", "conforming": False}
    summary["rows"][1] |= {"notes": "of both", "seeds": [0, 1]}
    summary["rows"][2] |= {"status": "not run", "extra": True}
    summary["references"].append(
        {"name": "theirs", "value": 97.25, "source": "a book", "checked": True, "cannot_run": "its data is closed"}
    )
    return summary


@pytest.fixture(scope="module")
def frame(summary):
    return make_frame(summary, {summary["rows"][0]["name"]: {"step_ms": 1.234}})


def lines_of(frame):
    return {line.name: line for _, lines in frame.blocks for line in lines}


def test_every_row_known_value_and_published_number_has_a_line(frame, summary):
    assert [frame.blocks[0][0], frame.blocks[-1][0]] == ["Known without training", "Published, not run here"]
    places = [line.place for _, lines in frame.blocks for line in lines if line.place is not None]
    assert sorted(places) == list(range(len(summary["rows"])))
    assert [line.name for line in frame.blocks[-1][1]] == [one["name"] for one in summary["references"]]


def test_marks_stand_behind_the_name(frame, summary):
    lines, (first, second) = lines_of(frame), [row["name"] for row in summary["rows"][:2]]
    number = frame.notes.index("of both") + 1
    assert lines[first].label == f"{first} [{number}] (non-conforming)"
    assert lines[second].label == f"{second} [{number}] (2 seeds)"


def test_what_has_not_run_says_why_in_short_and_at_length(frame, summary):
    columns = {column.key: column for column in frame.columns}
    ours = lines_of(frame)[summary["rows"][2]["name"]].cell(columns["ours"])
    assert (ours.text, ours.note) == ("not run", "not run: name it with --rows")
    target = lines_of(frame)["theirs"].cell(columns["target"])
    assert (target.text, target.note) == ("cannot run", "its data is closed")
    assert lines_of(frame)["theirs"].cell(columns["paper"]).text == "97.25"
    assert lines_of(frame)["theirs"].cell(columns["ece"]).text == "–"


def test_clocks_are_columns_of_their_own(frame, summary):
    assert [column.key for column in frame.clocks] == ["step_ms"]
    assert lines_of(frame)[summary["rows"][0]["name"]].cell(frame.clocks[0]).text == "1.23"
    assert "step_ms" not in {column.key for column in frame.columns}
    assert not make_frame(summary).clocks


def test_a_table_without_runs_has_its_lines():
    summary = bare_summary("uci_mfeat")
    summary["rows"] = [row | {"status": "not run"} for row in summary["rows"]]
    frame = make_frame(summary)
    assert {line.cells["ours"].text for _, lines in frame.blocks[1:] for line in lines} == {"not run"}
    assert [column.key for column in frame.columns] == ["ours"]


def test_the_wheel_holds_every_template():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["mmjax"]
    for path in TEMPLATES.iterdir():
        name = path.relative_to(ROOT / "mmjax").as_posix()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
