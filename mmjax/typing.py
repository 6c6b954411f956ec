"""Shapes in signatures; checked at run time only where ``MMJAX_CHECK_SHAPES=1`` (the test suite sets it)."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, jaxtyped

__all__ = ["Array", "Bool", "Dtype", "Float", "Int", "Key", "Mapping", "PyTree", "Shaped", "checked"]

# NumPy arrays pass the checks at run time; to the type checker all arrays are jax's.
if TYPE_CHECKING:
    from jax import Array
else:
    Array = jax.Array | np.ndarray
Dtype = Any
PyTree = Any
Key = jax.Array

_F = TypeVar("_F", bound=Callable)


def checked(function: _F) -> _F:
    """Checks the shapes and dtypes of ``function``'s signature under test; returns it untouched otherwise."""
    if os.environ.get("MMJAX_CHECK_SHAPES") != "1":
        return function
    from beartype import beartype

    return jaxtyped(function, typechecker=beartype)  # type: ignore[return-value]
