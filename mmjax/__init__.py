"""mmjax: multimodal learning in JAX and Flax. Start with ``mmjax.stream``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmjax.stream import Batch as Batch
    from mmjax.stream import Stream as Stream

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``Batch`` and ``Stream`` on first use: the command line answers ``list`` and ``--help`` without importing jax."""
    if name in ("Batch", "Stream"):
        from mmjax import stream

        return getattr(stream, name)
    raise AttributeError(f"module 'mmjax' has no attribute {name!r}")
