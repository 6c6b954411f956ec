"""From the records of a table to what people read: cells, markdown, LaTeX, the page, plots and plain words."""
