import re
import shutil
import subprocess

import pytest

from mmjax.evaluation.report.frame import make_frame
from mmjax.evaluation.report.latex import COLUMNS, escape_latex, format_latex
from tests.evaluation.full import bare_summary, empty_summary, full_summary

HOSTILE = r'[a]_b & 50 % {x} \cmd $y$ #1 ~^ "q" `t` <i> |'


@pytest.fixture(scope="module")
def summary():
    summary = full_summary("cmu_mosi")
    summary["rows"][0] |= {"mean": 0.757, "half_width": 0.004}
    summary["rows"][1] |= {"name": HOSTILE, "notes": "a note_of & it"}
    next(row["gain"] for row in summary["rows"] if row["gain"]).update(mean=-0.218, lower=-0.267, upper=-0.172)
    return summary


def lines_of(text):
    return [
        line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r"\\") and " & " in line
    ]


def test_every_line_has_a_cell_a_column(summary):
    text = format_latex(make_frame(summary))
    frame = make_frame(summary)
    shown = [column for column in frame.columns if column.key in COLUMNS]
    lines = lines_of(text)
    assert {len(line) for line in lines} == {len(shown) + 1}
    assert r"\begin{tabular}{@{}l" + "r" * len(shown) + "@{}}" in text
    assert lines[0] == ["row", *(escape_latex(column.title) for column in shown)]
    expected = [
        [escape_latex(line.label), *(escape_latex(line.cell(column).text) for column in shown)]
        for _, block in frame.blocks
        for line in block
    ]
    assert lines[1:] == expected
    assert r"$-$21.8 {[}$-$26.7, $-$17.2{]}" in text
    assert r"75.7 $\pm$ 0.4" in text
    for title in (title for title, _ in frame.blocks):
        assert rf"\textit{{{title}}}" in text


def test_environments_and_braces_are_balanced_and_specials_escaped(summary):
    text = format_latex(make_frame(summary))
    assert text.count(r"\begin{") == text.count(r"\end{")
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert text.isascii()
    assert escape_latex("a & b_c % # $ {}") == r"a \& b\_c \% \# \$ \{\}"
    assert escape_latex("\\~^<>\n|") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{} \textbar{}"
    )
    assert escape_latex(HOSTILE) in text
    assert HOSTILE not in text


def test_caption_and_notes_say_what_a_reader_needs(summary):
    text = format_latex(make_frame(summary))
    caption = re.search(r"\\caption\{(.*)\}\n", text).group(1)
    assert "752 test items in 31 groups (video)" in caption
    assert "Non-conforming: it lacks shuffled control, ensemble of the best single modality." in caption
    assert r"{[}1{]} a note\_of \& it" in text
    assert r"\textbf{verdict}: \texttt{better}: than every single modality, each time with a 95 \% interval" in text
    assert "Non-conforming" not in format_latex(make_frame(empty_summary()))


@pytest.mark.parametrize("make", [bare_summary, empty_summary])
def test_fields_that_are_null_or_not_there_leave_their_columns_out(make):
    heads = lines_of(format_latex(make_frame(make("uci_mfeat"))))[0]
    assert heads == ["row", "ours", r"95 \% interval", "gain over best single", "p", "verdict", "ECE", "ECE scaled",
                     "params", "FLOPs"]  # fmt: skip


def test_only_the_columns_asked_for(summary):
    assert lines_of(format_latex(make_frame(summary), ["ours", "verdict"]))[0] == ["row", "ours", "verdict"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: apt-get install texlive-latex-recommended")
def test_latex_accepts_it(summary, tmp_path):
    summary = {**summary, "rows": summary["rows"][:12]}
    page = (
        r"\documentclass{article}\usepackage{booktabs}\begin{document}"
        + format_latex(make_frame(summary))
        + r"\end{document}"
    )
    (tmp_path / "table.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
