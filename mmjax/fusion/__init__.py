"""Ways of combining modalities: ``(streams, *, train=False) -> Stream``. One file per family, one line per method."""

from mmjax.fusion.attention import AdditiveAttention as AdditiveAttention
from mmjax.fusion.attention import DotProductAttention as DotProductAttention
from mmjax.fusion.concat import Concat as Concat
