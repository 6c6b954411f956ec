"""Tables of the reports over folds and fractions, in Markdown that reads as plain text too."""

from collections.abc import Sequence

__all__ = ["markdown_table"]


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first, of names, to the left, the others to the right."""
    lines = [[line[0].replace("|", "\\|"), *line[1:]] for line in body]
    widths = [max(map(len, column)) for column in zip(head, *lines)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    top = [cell.ljust(width) for cell, width in zip(head, widths)]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [top, rule, *lines])
