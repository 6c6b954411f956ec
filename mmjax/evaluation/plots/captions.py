"""What to see in each plot."""

__all__ = ["caption"]

SCOPE = (
    " Shown are the best single modality, the mean of logits and up to three fusions, the best by validation; the"
    " other rows stand in table.json."
)
CAPTIONS = {
    "Rows": (
        "Each row's mean over seeds. The thick bar is what another seed would change, the thin line what other "
        "seeds and other test data would. Rows whose thin lines overlap widely are not told apart by this test "
        "set; the verdict column tests it in pairs."
    ),
    "Learning curves": (
        "The metric on validation while training, mean and standard deviation over seeds; a dot marks the epoch "
        "chosen for each seed. Dots at the right edge: training stopped before it had settled. Dots at the left "
        "edge: the row overfits at once."
    ),
    "Missing modality": (
        "What is left as a growing share of the test items lose the modality. Only the right end is a measurement"
        " of its own: between the ends the mean falls on a straight line, unless several modalities go missing "
        "independently. A fusion that ends below the best remaining single modality would be better off without "
        "it."
    )
    + SCOPE,
    "Noise": (
        "What is left as the noise on a modality grows to the strength named below each panel; bands are 95 % "
        "intervals. A flat line: the row does not use that modality. A fusion that falls below the mean of logits"
        " depends on it more than averaging would."
    )
    + SCOPE,
    "Interaction": (
        "EMAP gap: what the row loses when it is replaced by the nearest sum of functions of one modality each; "
        "zero within its interval means that no interplay was shown. Shapley value: how much of the score above "
        "that of no modality each one brings, and its share; black lines are 95 % intervals."
    ),
    "Reliability": (
        "Test items sorted by confidence into bins: below the dashed diagonal a row is surer than it is right. "
        "The orange lines are the gaps that the expected calibration error (ECE, in points) averages; in brackets"
        " its 95 % interval."
    )
    + SCOPE,
    "Data efficiency": (
        "The score after training on nested parts of the data. Where a fusion crosses the dotted line it has "
        "reached what the best single modality does on all of them."
    )
    + SCOPE,
    "Cost in flops": (
        "Every row with counted operations; a row that combines others has theirs together. Rows on the "
        "orange staircase are not beaten by a cheaper row; letters"
        " name them, thin lines are their 95 % intervals. A step much smaller than these is no reason to pay for "
        "it."
    ),
    "Cost in params": (
        "Every row with trained parameters; a row that combines others has theirs together. Rows on the "
        "orange staircase are not beaten by a smaller row; letters"
        " name them, thin lines are their 95 % intervals. A step much smaller than these is no reason to pay for "
        "it."
    ),
    "Critical difference": (
        "Average ranks over data sets, the best at the left. Methods joined by a bar differ by less than the "
        "critical difference: their ranks do not tell them apart."
    ),
}


def caption(title: str) -> str:
    """What to see in the plot of this title (the part before a colon names the kind); empty for an unknown one."""
    return CAPTIONS.get(title.partition(":")[0], "")
