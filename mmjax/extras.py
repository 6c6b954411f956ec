"""Packages beyond the core (jax, flax, numpy, jaxtyping) come with the extras of ``pyproject.toml``."""

import contextlib
from collections.abc import Iterator

from mmjax.errors import UsageError

__all__ = ["MissingExtra", "extra"]


class MissingExtra(UsageError, ImportError):
    """A package that an extra brings is not installed."""


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of packages that an extra brings.

    Args:
      name: of the extra.

    Raises:
      MissingExtra: one line, a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "mmjax"):
            raise
        raise MissingExtra(f"this needs the package {package}: pip install 'mmjax[{name}]'") from None
