"""The work directory of a table: records, logits, analyses, and whether any of it was changed."""
