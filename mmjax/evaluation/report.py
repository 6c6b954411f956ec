"""The report of a work directory: ``table.json``, ``table.md`` and the plots."""
