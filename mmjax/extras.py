"""Packages beyond the core (jax, flax, numpy, jaxtyping) come with the extras of ``pyproject.toml``."""

import contextlib
from collections.abc import Iterator

from mmjax.errors import UsageError

__all__ = ["EXTRAS", "MissingExtra", "extra"]

EXTRAS = {
    **dict.fromkeys(("optax", "orbax", "grain", "safetensors", "rich", "tensorboardX"), "train"),
    **dict.fromkeys(("PIL", "tokenizers", "soundfile"), "data"),
    **dict.fromkeys(("tensorflow_datasets", "array_record", "importlib_resources"), "tfds"),
    **dict.fromkeys(("jinja2", "matplotlib", "sklearn", "scipy"), "report"),
    "sacrebleu": "text",
}
"""The extra that brings a package; ``all`` brings all of them."""


class MissingExtra(UsageError, ImportError):
    """A package that an extra brings is not installed."""


@contextlib.contextmanager
def extra() -> Iterator[None]:
    """Around imports of what an extra brings.

    Raises:
      MissingExtra: one line that says which extra, where a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtra(
            f"this needs the package {package}: pip install 'mmjax[{EXTRAS[package]}]' (or 'mmjax[all]')"
        ) from None
