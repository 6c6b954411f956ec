"""Plots that a paper could use, at the width of a column; each function takes plain data and returns a Figure."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mmjax.evaluation.report.plots.captions import alternative, caption
from mmjax.evaluation.report.plots.clouds import clouds_figure, clouds_of
from mmjax.evaluation.report.plots.cost import cost_figure, cost_points, pareto_front
from mmjax.evaluation.report.plots.curves import curves_figure
from mmjax.evaluation.report.plots.interaction import interaction_bars, interaction_figure
from mmjax.evaluation.report.plots.lines import efficiency_figure, efficiency_lines, sweep_figure, sweep_panels
from mmjax.evaluation.report.plots.ranks import critical_difference_figure
from mmjax.evaluation.report.plots.reliability import reliability_diagrams, reliability_figure
from mmjax.evaluation.report.plots.rows import rows_figure
from mmjax.evaluation.report.plots.style import label, png, scale, sections
from mmjax.evaluation.store.records import RecordStore
from mmjax.extras import extra
from mmjax.files import replace_file
from mmjax.typing import Mapping

__all__ = ["alternative", "caption", "clouds_figure", "cost_figure", "critical_difference_figure", "curves_figure",
           "efficiency_figure", "interaction_figure", "pareto_front", "png", "reliability_figure", "rows_figure",
           "sweep_figure", "write_plots"]  # fmt: skip


def write_plots(workdir: pathlib.Path, summary: Mapping[str, Any]) -> dict[str, bytes]:
    """Writes ``plots/*.png``, as far as there is something to show; the same bytes for the same numbers.

    Returns:
      The PNG files by title, in the order in which a report shows them; ``caption`` says what to see in each.
    """
    with extra():
        import matplotlib  # noqa: F401
    files = {}
    for title, figure in _figures(summary, RecordStore(workdir)):
        if figure is not None:
            files[title] = png(figure)
            replace_file(workdir / "plots" / f"{_stem(title)}.png", files[title])
    return files


def _figures(summary: Mapping[str, Any], store: RecordStore) -> Iterator[tuple[str, Any]]:
    """Titles and figures; what a section needs a plot of its own for has the section behind a colon."""
    done = [row for row in summary["rows"] if row["status"] == "done"]
    if done:
        yield "Rows", rows_figure(summary)
    yield "Learning curves", curves_figure(summary, store)
    metric, factor = label(summary), scale(summary)
    score = factor if summary["higher_is_better"] else -factor  # robustness is measured in scores: minus the error
    makers = {
        "Missing modality": lambda rows: sweep_figure(sweep_panels(summary, rows, "missing"), metric, score),
        "Noise": lambda rows: sweep_figure(sweep_panels(summary, rows, "noise"), metric, score),
        "Interaction": lambda rows: interaction_figure(interaction_bars(rows), factor),
        "Reliability": lambda rows: reliability_figure(reliability_diagrams(summary, rows)),
        "Clouds": lambda rows: clouds_figure(clouds_of(summary, rows, store)),
        "Data efficiency": lambda rows: efficiency_figure(efficiency_lines(summary, rows), metric, factor),
    }
    for title, make in makers.items():
        made = [(section, figure) for section, rows in sections(done) if (figure := make(rows)) is not None]
        for section, figure in made:
            yield title if len(made) == 1 else f"{title}: {section or 'methods'}", figure
    for kind in ("flops", "params"):
        points = cost_points(summary, kind)
        yield f"Cost in {kind}", cost_figure(points, kind, metric, factor, summary["higher_is_better"])


def _stem(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
