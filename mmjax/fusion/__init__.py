"""Ways of combining modalities: ``(streams, *, train=False) -> Stream``. One file per family, one line per method."""

from mmjax.fusion.attention import AdditiveAttention as AdditiveAttention
from mmjax.fusion.attention import DotProductAttention as DotProductAttention
from mmjax.fusion.attention import WeightedSum as WeightedSum
from mmjax.fusion.bottleneck import BottleneckFusion as BottleneckFusion
from mmjax.fusion.concat import Concat as Concat
from mmjax.fusion.concat import EarlyConcat as EarlyConcat
from mmjax.fusion.gated import GMU as GMU
from mmjax.fusion.gated import MMTM as MMTM
from mmjax.fusion.gated import FiLM as FiLM
from mmjax.fusion.guided import FiLMBlocks as FiLMBlocks
from mmjax.fusion.guided import GuidedAttention as GuidedAttention
from mmjax.fusion.guided import StackedAttention as StackedAttention
from mmjax.fusion.joint import JointTransformer as JointTransformer
from mmjax.fusion.product import Product as Product
from mmjax.fusion.sets import DeepSets as DeepSets
from mmjax.fusion.tokens import GatedTokens as GatedTokens
from mmjax.fusion.tokens import JoinedTokens as JoinedTokens
