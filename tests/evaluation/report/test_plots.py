import io
import itertools
import json
import types

import matplotlib
import matplotlib.text
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from mmjax.evaluation.report.kinds import best_rows, kind_of
from mmjax.evaluation.report.plots import _figures as figures_of
from mmjax.evaluation.report.plots import (
    alternative,
    caption,
    cost_figure,
    critical_difference_figure,
    curves_figure,
    efficiency_figure,
    interaction_figure,
    pareto_front,
    reliability_figure,
    rows_figure,
    sweep_figure,
    write_plots,
)
from mmjax.evaluation.report.plots.cost import cost_points
from mmjax.evaluation.report.plots.lines import sweep_panels
from mmjax.evaluation.report.plots.style import KIND_COLORS, LATE, SINGLE, focus, in_scope, own_limits, sections
from mmjax.evaluation.store.records import RecordStore
from tests.evaluation.full import RESULTS, bare_summary, empty_summary, full_summary

KINDS = ("Missing modality", "Noise", "Interaction", "Reliability", "Data efficiency")
RANKS = {"concatenation": 3.2, "joint transformer (SimBaMM)": 2.1, "gated (GMU)": 2.6, "best single modality": 6.9,
         "mean of logits": 4.4, "prior-corrected product": 4.1, "FiLM of text": 5.0, "MMTM": 7.7}  # fmt: skip


@pytest.fixture(scope="module")
def summary():
    return full_summary("cmu_mosi")


@pytest.fixture(scope="module")
def figures(summary, tmp_path_factory):
    drawn = dict(figures_of(summary, RecordStore(tmp_path_factory.mktemp("empty"))))
    drawn = {title: figure for title, figure in drawn.items() if figure is not None}
    return {**drawn, "Critical difference": critical_difference_figure(RANKS, 2.35)}


def drawn_texts(figure):
    """Every text that is drawn, with its box in inches."""
    FigureCanvasAgg(figure).draw()  # lays out
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.texts if t.get_text()]
    for legend in figure.legends:
        texts += legend.get_texts()
    for axes in figure.axes:
        if axes.axison:
            texts += [axes.xaxis.label, axes.yaxis.label]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                texts += [t.label1 for t in ticks if low <= t.get_loc() <= high and t.label1.get_visible()]
        texts += [axes.title, *axes.texts]
    texts = [text for text in texts if text.get_text().strip() and text.get_visible()]
    return [(text, text.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted())) for text in texts]


def test_each_plot_is_there_for_each_section_with_its_caption(figures, summary):
    names = [name for name, _ in sections(summary["rows"])]
    expected = {f"{kind}: {name}" for kind in KINDS for name in names}
    assert set(figures) == expected | {"Rows", "Cost in flops", "Cost in params", "Critical difference"}
    assert all(len(caption(title)) > 100 for title in figures)
    assert caption("Somebody's own") == ""


def test_type_is_legible_inside_the_page_and_never_on_other_type(figures):
    for title, figure in figures.items():
        width, height = figure.get_size_inches()
        assert width == 3.4, title
        texts = drawn_texts(figure)
        assert len(texts) > 5, title
        for text, box in texts:
            assert text.get_fontsize() >= 7, (title, text.get_text())
            inside = box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
            assert inside, (title, text.get_text(), box)
        for (one, a), (other, b) in itertools.combinations(texts, 2):
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert wide < 0.02 or high < 0.035, (title, one.get_text(), other.get_text(), wide, high)


def test_numbers_without_names_get_units(figures):
    for title, figure in figures.items():
        words = " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
        unit = {"Interaction": "points", "Critical difference": "rank"}.get(title.split(":")[0], "accuracy (%)")
        assert unit in words, title


def test_files_are_the_same_bytes_again_whatever_the_user_s_style(summary, tmp_path):
    summary = {**summary, "rows": [row for row in summary["rows"] if row["section"] == summary["rows"][-1]["section"]]}
    first = write_plots(tmp_path / "one", summary)
    assert {"Rows", *KINDS} <= set(first)  # one section: no name of it in the titles
    assert not any(":" in title for title in first)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 20}):
        assert write_plots(tmp_path / "two", summary) == first
    written = {path.stem for path in (tmp_path / "one" / "plots").iterdir()}
    assert written == {title.lower().replace(" ", "_") for title in first}
    for data in first.values():
        with Image.open(io.BytesIO(data)) as image:
            assert image.width == 1020
            assert not image.info.keys() & {"Software", "Creation Time"}


@pytest.mark.parametrize("make", [bare_summary, empty_summary])
@pytest.mark.parametrize("name", ["cmu_mosi", "synthetic", "avletters"])
def test_fields_that_are_null_or_not_there_draw_nothing(make, name, tmp_path):
    titles = {title for title, figure in figures_of(make(name), RecordStore(tmp_path)) if figure is not None}
    assert titles <= {"Rows", "Cost in flops", "Cost in params"}
    assert "Rows" in titles


def test_lines_are_the_best_single_the_mean_of_logits_and_three_trained_fusions_by_validation(summary):
    rows = dict(sections(summary["rows"]))["per utterance"]
    chosen = in_scope(summary, rows, "robustness")
    names = [row["name"] for row, _ in chosen]
    trained = [row for row in rows if len(row["streams"]) > 1 and row["kind"] == "model"]
    best = sorted(trained, key=lambda row: -row["validation"])[:3]
    single = next(row["name"] for row in rows if row["best_single"])
    assert names == [single, "mean of logits", *(row["name"] for row in best)]
    assert [look for _, look in chosen[:2]] == [SINGLE, LATE]
    assert len({(look.color, look.marker) for _, look in chosen}) == 5
    lower = {**summary, "higher_is_better": False}
    worst = sorted(trained, key=lambda row: row["validation"])[0]
    assert in_scope(lower, rows, "robustness")[2][0]["name"] == worst["name"]


def test_the_single_modality_of_a_plot_of_lines_is_the_best_that_was_measured():
    fields = {"status": "done", "role": "single", "single": True, "streams": ["audio"]}
    linear = {**fields, "name": "linear", "validation": 0.9, "robustness": None, "best_single": True}
    rows = [linear, *({**fields, "name": name, "validation": score, "robustness": {"noise": {}}, "best_single": False}
                      for name, score in (("first", 0.6), ("second", 0.7)))]  # fmt: skip
    assert [row["name"] for row, _ in in_scope({"higher_is_better": True}, rows, "robustness")] == ["second"]
    assert [row["name"] for row, _ in in_scope({"higher_is_better": False}, rows, "robustness")] == ["first"]


def test_sweeps_draw_the_curves_in_percent(summary):
    rows = dict(sections(summary["rows"]))["per utterance"]
    panels = sweep_panels(summary, rows, "noise")
    assert list(panels) == ["audio", "text", "video", "all"]
    assert "text" not in panels["audio"]["lines"]  # the single modality has no audio to lose
    figure = sweep_figure(panels, "accuracy (%)")
    row = next(row for row in rows if row["name"] == "mean of logits")
    for axes, target in zip(figure.axes, panels):
        black = next(line for line in axes.lines if line.get_color() == LATE.color)
        np.testing.assert_allclose(black.get_ydata(), 100 * np.array(row["robustness"]["noise"][target]["mean"]))
        drawn = np.concatenate([line.get_ydata() for line in axes.lines[: len(panels[target]["lines"])]])
        low, high = axes.get_ylim()
        assert low < drawn.min() and drawn.max() < high
    spans = np.array([np.ptp(axes.get_ylim()) for axes in figure.axes])  # its own axis, but no noise blown up
    assert len(set(spans)) > 1 and spans.min() >= spans.max() / 8


def test_reliability_draws_gaps_and_survives_empty_bins():
    diagram = {"confidence": [0.55, None, 0.9], "accuracy": [0.5, None, 0.6], "share": [0.5, 0.0, 0.5], "ece": 0.175}
    axes = reliability_figure({"one": diagram}).axes[0]
    gaps = [
        segment[:, 1] for segment in axes.collections[0].get_segments() if np.isfinite(segment).all() and len(segment)
    ]
    np.testing.assert_allclose(gaps, [[50, 55], [60, 90]])
    assert axes.get_title() == "one\nECE 17.5"  # where no point can lie on it


def test_interaction_bars_are_the_gap_and_the_values():
    cell = {"kind": "fusion", "emap": {"gap": 0.02, "interval": [0.01, 0.03]},
            "shapley": {"a": {"value": 0.3, "share": 0.75, "interval": None},
                        "b": {"value": -0.1, "share": -0.25, "interval": [-0.2, 0.0]}}}  # fmt: skip
    gaps, values = interaction_figure({"row": cell}).axes
    assert [bar.get_width() for bar in gaps.patches] == [2.0]
    np.testing.assert_allclose([bar.get_width() for bar in values.patches], [30, -10])
    assert [text.get_text() for text in values.texts] == ["75 %", "−25 %"]
    alone = interaction_figure({"row": {**cell, "shapley": {}}})
    assert len(alone.axes) == 1
    (values,) = interaction_figure({"row": {**cell, "emap": None}}).axes  # sentences have none
    np.testing.assert_allclose([bar.get_width() for bar in values.patches], [30, -10])
    both = interaction_figure({"row": cell, "other": {**cell, "emap": None}}).axes
    assert [text.get_text() for text in both[0].texts] == ["row", "other", "not measured"]
    assert interaction_figure({"row": {**cell, "emap": None, "shapley": {}}}) is None


def test_pareto_front_is_what_nobody_beats():
    assert pareto_front([1, 2, 3, 4], [5, 7, 6, 8]) == [0, 1, 3]
    assert pareto_front([1, 1, 2], [5, 6, 6]) == [1]  # as cheap and better; dearer and no better
    assert pareto_front([2, 2], [1, 1]) == [0]
    draw = np.random.default_rng(0)
    cost, score = draw.integers(0, 9, 40), draw.integers(0, 9, 40)
    beaten = {
        i for i in range(40) for j in range(40)
        if cost[j] <= cost[i] and score[j] >= score[i] and (cost[j] < cost[i] or score[j] > score[i])
    }  # fmt: skip
    front = pareto_front(cost, score)
    assert {(cost[i], score[i]) for i in front} == {(cost[i], score[i]) for i in set(range(40)) - beaten}
    assert list(cost[front]) == sorted(cost[front])


def test_cost_leaves_out_rows_without_a_count_and_knows_errors(summary):
    points = cost_points(summary, "flops")
    counted = {row["name"] for row in summary["rows"] if row["flops"]}
    combined = {row["name"] for row in summary["rows"] if row.get("members") and set(row["members"]) <= counted}
    kinds = {row["name"]: kind_of(row) for row in summary["rows"]}
    assert {point["name"]: point["kind"] for point in points} == {name: kinds[name] for name in counted | combined}
    assert cost_figure(points[:1], "flops", "accuracy (%)") is None
    errors = [{"name": n, "cost": c, "score": s, "interval": None, "kind": "fusion"}
              for n, c, s in (("cheap", 1, 0.9), ("bad", 2, 1.5), ("good", 3, 0.2))]  # fmt: skip
    figure = cost_figure(errors, "params", "mean absolute error", 1, higher_is_better=False)
    assert [line.split() for line in figure.texts[0].get_text().split("\n")] == [
        ["a", "cheap:", "0.900"],
        ["b", "good:", "0.200"],
    ]


@pytest.mark.parametrize("costs", [(114.8e6, 115.5e6), (690e3, 977e3), (2e6, 5e6), (1e5, 9e7)])
def test_ticks_of_cost_are_several_and_apart_however_near_the_costs(costs):
    points = [{"name": str(n), "cost": cost, "score": 0.5 + 0.1 * n, "kind": "fusion", "interval": None}
              for n, cost in enumerate(costs)]  # fmt: skip
    figure = cost_figure(points, "flops", "accuracy (%)")
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    boxes = [label.get_window_extent() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels())
             if low <= tick <= high]  # fmt: skip
    assert 2 <= len(boxes) <= 7
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_row_that_combines_others_costs_what_they_do():
    def row(name, flops, members=(), role=None, streams=("a",)):
        return {"name": name, "flops": flops, "members": list(members), "role": role, "streams": list(streams),
                "status": "done", "mean": 0.5, "interval": None}  # fmt: skip

    rows = [row("a", 3), row("b", 5, streams=("b",)), row("unknown", None),
            row("vote", None, ("a", "b"), streams=("a", "b")), row("half known", None, ("a", "unknown")),
            row("two of a", None, ("a",), "ensemble control")]  # fmt: skip
    points = cost_points({"rows": rows, "streams": ["a", "b"]}, "flops")
    assert {point["name"]: point["cost"] for point in points} == {"a": 3, "b": 5, "vote": 8, "two of a": 6}


def test_critical_difference_joins_what_no_test_tells_apart():
    ranks = {"a": 1.0, "b": 1.9, "c": 3.1, "d": 4.0}
    joined = [
        tuple(line.get_xdata())
        for line in critical_difference_figure(ranks, 1.3).axes[0].lines
        if line.get_linewidth() > 2
    ]
    assert len(joined) == 3  # a-b, b-c, c-d
    assert len({end - start for start, end in joined}) == 3
    only = critical_difference_figure(ranks, 1.3, cliques=[["a", "b", "c"], ["d"]]).axes[0]
    assert sum(line.get_linewidth() > 2 for line in only.lines) == 1
    assert critical_difference_figure(ranks, 9.0) is not None  # longer than the axis
    few = critical_difference_figure(ranks, None).axes[0]  # too few data sets for a difference
    assert not any("critical" in text.get_text() for text in few.texts)
    assert not any(line.get_linewidth() > 2 for line in few.lines)


def test_data_efficiency_stands_on_the_numbers_of_examples():
    curve = {"n": [10, 100], "mean": [0.5, 0.7], "interval": [[0.4, 0.6], [0.6, 0.8]]}
    axes = efficiency_figure({"text": (curve, SINGLE)}, "accuracy (%)").axes[0]
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [50, 70])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [10, 100])
    assert list(axes.lines[1].get_ydata()) == [70, 70]  # what the single modality reaches on all data


def test_an_error_is_drawn_in_its_own_units(tmp_path):
    summary = full_summary("uci_mfeat") | {
        "primary": "mae",
        "metric_name": None,
        "score": None,  # of an older version: it names the metric
        "higher_is_better": False,
        "majority": None,
    }
    for row in summary["rows"]:
        row["calibration"] = None
        for curve in row["robustness"]["noise"].values():
            curve |= {"mean": [-value for value in curve["mean"]], "interval": [None] * len(curve["mean"])}
    words = {t.get_text() for t in rows_figure(summary).findobj(matplotlib.text.Text)}
    assert "mean absolute error" in words and "lowest of its section" in words
    assert "median of train: 3.000" in {
        t.get_text()
        for t in rows_figure({**summary, "known": [{"name": "median of train", "value": 3.0}]}).legends[0].get_texts()
    }
    drawn = {title.split(":")[0]: figure for title, figure in figures_of(summary, RecordStore(tmp_path)) if figure}
    assert "Reliability" not in drawn
    for axes in drawn["Noise"].axes:  # measured as scores, minus the error, and too few seeds for intervals
        assert axes.get_ylim()[0] > 0
        assert not axes.collections


def measured(name):
    return json.loads((RESULTS / name / "table.json").read_text())


def points_of(axes):
    """Marker, colour and place of each single point."""
    return [(line.get_marker(), line.get_color(), float(line.get_xdata()[0]), float(line.get_ydata()[0]))
            for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() not in ("|", "D")]  # fmt: skip


@pytest.mark.parametrize("name", ["digits", "cmu_mosi", "uci_mfeat", "avletters"])
def test_rows_have_the_colour_of_their_kind_and_the_best_stands_out(name):
    summary = measured(name)
    done = [row for row in summary["rows"] if row["status"] == "done"]
    figure = rows_figure(summary)
    axes = figure.axes[0]
    ordered = [row for _, rows in sections(done) for row in rows]
    points = points_of(axes)[: len(ordered)]
    low, high = axes.get_xlim()
    for row, (marker, color, x, _) in zip(ordered, points, strict=True):
        assert color == KIND_COLORS[kind_of(row)], row["name"]
        if low <= 100 * row["mean"] <= high:
            assert x == pytest.approx(100 * row["mean"])
        else:
            assert (marker, x) == ("<", low)
    texts = [text.get_text() for text in axes.texts]
    for row in ordered:  # what the axis does not hold says its number
        if not low <= 100 * row["mean"] <= high:
            assert any(text.split(",")[0] == f"{100 * row['mean']:.1f}" for text in texts), row["name"]
    best = set().union(*(best_rows(rows) for _, rows in sections(done)))
    reference = {row["name"] for row in done if row["best_single"]}
    assert best and not best & reference
    methods = [row for row in done if kind_of(row) != "control"]
    assert max(methods, key=lambda row: row["mean"])["name"] in best
    headings = {section for section, _ in sections(done)} | {"published, not run here"}
    bold = {" ".join(t.get_text().split()) for t in axes.texts if t.get_weight() == "bold"} - headings
    assert len(bold) == len({name.removesuffix(" in context") for name in best})
    assert all(any(name.startswith(text) for name in best) for text in bold)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"baseline", "fusion", "highest of its section"} <= labels


def test_kinds_follow_from_roles_and_modalities():
    rows = {row["name"]: row for row in measured("digits")["rows"]}
    expected = {"upper": "baseline", "upper, as many parameters": "baseline", "mean of logits": "fusion",
                "concatenation": "fusion", "concatenation: upper shuffled": "control",
                "2 models of lower": "control"}  # fmt: skip
    assert {name: kind_of(rows[name]) for name in expected} == expected
    done = [{"name": n, "mean": m, "status": "done", "streams": s, "role": r} for n, m, s, r in (
        ("a", 0.5, ["a"], "single"), ("f", 0.7, ["a", "b"], None), ("g", 0.7, ["a", "b"], None),
        ("c", 0.9, ["a"], "ensemble control"))]  # fmt: skip
    assert best_rows(done) == {"f", "g"} and best_rows(done, False) == {"a"}
    assert best_rows(done[:1]) == set()  # nothing to be better than


def test_an_axis_shows_where_rows_differ():
    low, high = focus([50, 51, 90, 91, 92, 93, 94, 95, 96, 97], [[]] * 2 + [[88, 92]] + [[]] * 7)
    assert 87 < low < 88 and 97 < high < 98  # an interval of a row that is shown is shown
    low, high = focus([50, 60, 70, 80, 90], [[]] * 5)
    assert low < 50 and high > 90
    low, high = focus([1.0, 1.1, 1.15, 1.2, 9.0], [[]] * 5, higher_is_better=False)
    assert low < 1 and 1.2 < high < 1.3
    assert focus([7, 7], [[], []])[0] < 7
    (low, high), (start, end) = own_limits([(10, 90), (98.5, 99)], 100)
    assert low < 10 and high > 90
    assert end < 102 and end - start > 10


@pytest.mark.parametrize("kind", ["flops", "params"])
@pytest.mark.parametrize("name", ["digits", "cmu_mosi", "uci_mfeat", "fsdd_digits"])
def test_a_letter_is_joined_to_its_point_and_no_two_can_be_swapped(name, kind):
    summary = measured(name)
    points = cost_points(summary, kind)
    figure = cost_figure(points, kind, "accuracy (%)")
    axes = figure.axes[0]
    FigureCanvasAgg(figure).draw()
    letters = [text for text in axes.texts if len(text.get_text()) == 1]
    joins = [line for line in axes.lines if len(line.get_xdata()) == 3 and not line.get_clip_on()]
    front = pareto_front([p["cost"] for p in points], [p["score"] for p in points])
    assert len(letters) == len(joins) == len(front)
    low, high = axes.get_ylim()
    for letter, join, place in zip(letters, joins, front):
        start = axes.transData.inverted().transform(join.get_transform().transform(join.get_xydata()[0]))
        assert start[0] == pytest.approx(points[place]["cost"], rel=1e-3)
        assert start[1] == pytest.approx(np.clip(100 * points[place]["score"], low, high))
        assert join.get_xdata()[2] == letter.xy[0]  # the line ends at the letter
    for one, other in itertools.pairwise(joins):  # in the same order below and above: none crosses another
        assert one.get_xdata()[0] <= other.get_xdata()[0] and one.get_xdata()[2] < other.get_xdata()[2]
    boxes = [letter.get_window_extent() for letter in letters]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    listed = [" ".join(line.split()) for line in figure.texts[0].get_text().split("\n")]
    expected = [f"{letter.get_text()} {points[i]['name']}: {100 * points[i]['score']:.1f}"
                for letter, i in zip(letters, front)]  # fmt: skip
    assert listed == expected


def test_learning_curves_have_the_colour_of_their_kind_and_an_axis_of_their_own(tmp_path):
    summary = measured("cmu_mosi")
    trained = [row for row in summary["rows"] if row["kind"] == "model"]
    level = {row["name"]: 0.5 + 0.4 * (len(row["streams"]) > 1) for row in trained}
    history = {name: {"validation/accuracy": value + np.linspace(0, 0.05, 20)[:, None] * [1, 0.9]}
               for name, value in level.items()}  # fmt: skip
    figure = curves_figure(summary, types.SimpleNamespace(history=history.get))
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert len(figure.axes) == len(trained)  # every row of a long table; the height grows
    assert figure.get_figheight() > 0.6 * len(trained) / 3
    assert panels["text"].lines[0].get_color() == KIND_COLORS["baseline"]
    assert panels["early"].lines[0].get_color() == KIND_COLORS["fusion"]
    assert panels["text+audio+video:\naudio and video\nshuffled"].lines[0].get_color() == KIND_COLORS["control"]
    assert panels["text"].get_ylim()[1] < 60 and panels["early"].get_ylim()[0] > 85
    for (one, a), (other, b) in itertools.combinations(drawn_texts(figure), 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 0.02 or high < 0.035, (one.get_text(), other.get_text())


def test_the_words_for_a_plot_say_what_it_shows():
    summary = measured("cmu_mosi")
    text = alternative("Rows", summary)
    best = max((row for row in summary["rows"] if kind_of(row) != "control"), key=lambda row: row["mean"])
    assert text.startswith("Mean acc2_has0 (%) of each row") and f"{best['name']} ({100 * best['mean']:.1f})" in text
    one = alternative("Noise: per utterance", summary)
    assert "in the section per utterance" in one and best["name"] not in one and "3 controls" in one
    assert alternative("Somebody's own", summary) == "Somebody's own"


def test_the_constant_to_beat_is_the_best_one_and_no_ceiling(summary):
    known = [{"name": "Bayes accuracy, all modalities", "value": 1.0},
             {"name": "share of each label of train", "value": 0.0}, {"name": "every label", "value": 0.7}]  # fmt: skip
    legend = rows_figure({**summary, "majority": None, "known": known}).legends[0].get_texts()
    texts = {text.get_text() for text in legend}
    assert any(text.startswith("every label") for text in texts)
    assert not any(text.startswith(("Bayes", "share of each label")) for text in texts)
