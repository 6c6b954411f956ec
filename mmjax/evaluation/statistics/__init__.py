"""How sure a number is: intervals, paired tests, verdicts, ranks across data sets, and which row to use."""
