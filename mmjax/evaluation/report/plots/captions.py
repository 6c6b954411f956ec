"""What to see in each plot, and what each shows for who cannot see it."""

from typing import Any

from mmjax.evaluation.report.cells import value as printed
from mmjax.evaluation.report.kinds import best_rows, kind_of
from mmjax.evaluation.report.plots.style import label
from mmjax.typing import Mapping

__all__ = ["alternative", "caption"]

SCOPE = (
    " Grey: one modality; blue: several. Shown are the best single modality, the mean of logits and up to three "
    "fusions, the best by validation; the other rows stand in table.json."
)
COST = (
    "a row that combines others has theirs together. Rows on the orange staircase are not beaten by a {cheaper} row; a "
    "dotted line joins each to its letter, and the list below says name and score; thin lines are their 95 % intervals."
    " A triangle at the edge lies beyond the axis. A step much smaller than these is no reason to pay for it."
)
CAPTIONS = {
    "Rows": (
        "Each row's mean over seeds: grey of one modality (baseline), blue of several (fusion), purple a control. The"
        " thick bar is what another seed would change, the thin line what other seeds and other test data would. The "
        "yellow band marks the best mean of a section, controls aside; rows whose thin lines overlap widely are not "
        "told apart by this test set, and the verdict column tests it in pairs. An arrow at the edge: the row lies "
        "beyond the axis, at the number beside it."
    ),
    "Learning curves": (
        "The metric on validation while training, mean and standard deviation over seeds; a dot marks the epoch "
        "chosen for each seed. Each panel has its own vertical axis. Dots at the right edge: training stopped before "
        "it had settled. Dots at the left edge: the row overfits at once."
    ),
    "Missing modality": (
        "What is left as a growing share of the test items lose the modality. Only the right end is a measurement of "
        "its own: between the ends the mean falls on a straight line, unless several modalities go missing "
        "independently. Each panel has its own vertical axis. A fusion that ends below the best remaining single "
        "modality would be better off without it."
    )
    + SCOPE,
    "Noise": (
        "What is left as the noise on a modality grows to the strength named below each panel; bands are 95 % "
        "intervals, and each panel has its own vertical axis. A flat line: the row does not use that modality. A "
        "fusion that falls below the mean of logits depends on it more than averaging would."
    )
    + SCOPE,
    "Interaction": (
        "EMAP gap: what the row loses when it is replaced by the nearest sum of functions of one modality each; zero "
        "within its interval means that no interplay was shown (a dot alone: a gap of zero). Shapley value: how much "
        "of the score above that of no modality each one brings, and its share; black lines are 95 % intervals."
    ),
    "Reliability": (
        "Test items sorted by confidence into bins: below the dashed diagonal a row is surer than it is right. The "
        "orange lines are the gaps that the expected calibration error (ECE, in points) averages; in brackets its 95 "
        "% interval."
    )
    + SCOPE,
    "Data efficiency": (
        "The score after training on nested parts of the data. Where a fusion crosses the dotted line it has reached "
        "what the best single modality does on all of them."
    )
    + SCOPE,
    "Clouds": (
        "Embeddings of test items by the best network on validation, untrained and trained, on the plane in which both "
        "sides together vary most (each panel its own); thin lines join partners. Modality gap: distance of the two "
        "centres. Alignment: mean squared distance of partners. Uniformity: 0 where all coincide, the lower the more "
        "evenly a side fills the sphere. All are of the whole space, not of the plane."
    ),
    "Cost in flops": "Every row with counted operations; " + COST.format(cheaper="cheaper"),
    "Cost in params": "Every row with trained parameters; " + COST.format(cheaper="smaller"),
    "Critical difference": (
        "Average ranks over data sets, the best at the left. Methods joined by a bar differ by less than the critical"
        " difference: their ranks do not tell them apart."
    ),
}
SHOWN = {
    "Rows": "Mean {metric} of each row as a point with its 95 % intervals",
    "Learning curves": "Validation {metric} over the epochs, a panel for each trained row",
    "Missing modality": "{metric} against the share of test items that lack a modality, a panel for each modality",
    "Noise": "{metric} against the strength of noise, a panel for each modality",
    "Interaction": "Bars of the EMAP gap and of the Shapley value of each modality, for each row",
    "Reliability": "Accuracy against confidence in bins, a panel for each row",
    "Clouds": "Embeddings of both sides before and after training, two panels of points",
    "Data efficiency": "{metric} against the number of training examples, a line for each row",
    "Cost in flops": "{metric} against the FLOPs of a forward pass, a point for each row",
    "Cost in params": "{metric} against the number of trained parameters, a point for each row",
}


def caption(title: str) -> str:
    """What to see in the plot of this title (the part before a colon names the kind); empty for an unknown one."""
    return CAPTIONS.get(title.partition(":")[0], "")


def alternative(title: str, summary: Mapping[str, Any]) -> str:
    """What the plot of this title shows, in words, with the kinds of its rows and the best; the title if unknown."""
    name, _, section = title.partition(": ")
    if name not in SHOWN:
        return title
    wanted = "" if section == "methods" else section  # as the titles name a section without a name
    rows = [row for row in summary["rows"] if row["status"] == "done" and (not section or row["section"] == wanted)]
    counts = {kind: sum(kind_of(row) == kind for row in rows) for kind in ("baseline", "fusion", "control")}
    counted = ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count)
    best = best_rows(rows, summary["higher_is_better"])
    text = SHOWN[name].format(metric=label(summary)) + (f", in the section {section}" if section else "")
    text += f". Finished rows: {counted}."
    if best:
        value = next(row["mean"] for row in rows if row["name"] in best)
        text += f" Best on test: {'; '.join(sorted(best))} ({printed(summary, value)})."
    return text[0].upper() + text[1:]
