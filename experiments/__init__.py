"""One file per table; ``python -m experiments list``."""
