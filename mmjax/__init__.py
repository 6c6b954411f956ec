"""mmjax: multimodal learning in JAX and Flax. Start with ``mmjax.stream``."""

from mmjax.stream import Batch as Batch
from mmjax.stream import Stream as Stream

__version__ = "0.1.0"
