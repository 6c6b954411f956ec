"""Uncertainty of scores: intervals, paired tests, verdicts, ranks across data sets, published numbers as targets."""
