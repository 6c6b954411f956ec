"""Both clouds of a shared space before and after training, and how they lie to each other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluation.measures.alignment import alignment, modality_gap, uniformity
from mmjax.evaluation.report.cells import decimal
from mmjax.evaluation.report.plots import style
from mmjax.evaluation.store.records import RecordStore
from mmjax.typing import Float, Mapping

__all__ = ["Clouds", "clouds_figure", "clouds_of", "principal_plane"]

SIDES = (("first side", style.BLUE, "o"), ("second side", style.ORANGE, "^"))
PAIRS = 40  # joined by a line


class Clouds(NamedTuple):
    """Embeddings of test items, ``[items, 2, slots, dim]`` of both sides, of a network untrained and trained."""

    name: str
    sides: tuple[str, str]
    before: np.ndarray
    after: np.ndarray


def clouds_of(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], store: RecordStore) -> Clouds | None:
    """Those of the best network of these rows on validation, of its first seed; None where none was kept untrained."""
    sign = 1 if summary["higher_is_better"] else -1
    networks = [row for row in rows if row.get("kind") == "model" and row.get("role") != "shuffled control"]
    for row in sorted(networks, key=lambda row: -sign * row["validation"]):
        digest, arrays = store.analysis(row["name"]) or ({}, {})
        if "clouds/before" in arrays and digest["seeds"] == row["seeds"]:
            after = store.logits(row["name"], "test")[0][arrays["clouds/items"]]
            first, second = (str(name) for name in arrays["clouds/sides"])
            return Clouds(row["name"], (first, second), arrays["clouds/before"], np.asarray(after))
    return None


def principal_plane(values: Float[np.ndarray, "rows dim"]) -> tuple[Float[np.ndarray, "rows 2"], float]:
    """Coordinates along the two directions of greatest variance, and the share of it that they hold.

    Example:
      >>> plane, share = principal_plane(np.array([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
      >>> plane.shape, round(share, 6)
      ((3, 2), 1.0)
    """
    centred = np.asarray(values, np.float64) - np.mean(values, axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(centred), 2))
    plane[:, : min(2, len(s))] = (u * s)[:, :2]
    return plane, float((s[:2] ** 2).sum() / max((s**2).sum(), 1e-300))


@style.styled
def clouds_figure(clouds: Clouds | None) -> Any:
    """Two panels, untrained and trained; each has the principal plane of its own joint cloud. None without clouds."""
    if clouds is None:
        return None
    width = 0.5 * (style.WIDTH - 0.25)
    sheet = style.Sheet(width + 1.32)
    style_text = {"fontsize": 7, "linespacing": 1.3, "va": "top"}
    for place, (title, outputs) in enumerate((("before training", clouds.before), ("after", clouds.after))):
        left = 0.05 + place * (width + 0.15)
        axes = sheet.axes(left, 0.42, width, width)
        queries, partners = _sides(outputs)
        plane, share = principal_plane(np.concatenate([queries, partners]))
        ours, theirs = plane[: len(queries)], plane[len(queries) :]
        for a, b in list(zip(ours, theirs))[:: max(len(ours) // PAIRS, 1)]:
            axes.plot([a[0], b[0]], [a[1], b[1]], color=style.GREY, linewidth=0.3, zorder=1)
        for points, (_, color, marker) in zip((ours, theirs), SIDES):
            axes.plot(*points.T, linestyle="", marker=marker, markersize=1.6, color=color, alpha=0.7, zorder=2)
        axes.set_xticks([]), axes.set_yticks([])
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(title, fontsize=8, pad=3)
        lines = (
            f"modality gap {modality_gap(queries, partners):.2f}",
            f"alignment {alignment(queries, partners):.2f}",
            f"uniformity {decimal(uniformity(queries), 2)} and {decimal(uniformity(partners), 2)}",
            f"plane: {100 * share:.0f} % of the variance",
        )
        axes.text(0, -0.03, "\n".join(lines), transform=axes.transAxes, **style_text)
    sheet.figure.text(0.02, 1 - 0.05 / sheet.height, clouds.name, fontsize=8, va="top")
    handles = [style.point(marker, 4, color, name) for name, (_, color, marker) in zip(clouds.sides, SIDES)]
    sheet.legend(handles, ncols=2, bottom=0.02)
    return sheet.figure


def _sides(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Partners: the first item of each side of the examples that have both."""
    there = (outputs[:, :, 0] != 0).any(-1).all(1)
    return outputs[there, 0, 0], outputs[there, 1, 0]
