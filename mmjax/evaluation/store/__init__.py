"""What a work directory holds of a table: records, logits, analyses, and whether any of it was changed."""
