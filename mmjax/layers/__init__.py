"""Shared building blocks of encoders, fusions and heads: they take arrays and masks, where an encoder takes a stream.

Every block takes ``dtype``: None computes in the type of the input, so bfloat16 in gives bfloat16 out; parameters,
softmax and the statistics of norms stay float32.
"""

from mmjax.layers.attention import MultiHeadAttention as MultiHeadAttention
from mmjax.layers.attention import TransformerBlock as TransformerBlock
from mmjax.layers.attention import attend as attend
from mmjax.layers.dense import MLP as MLP
from mmjax.layers.dense import Activation as Activation
from mmjax.layers.dense import Dense as Dense
from mmjax.layers.dense import LayerNorm as LayerNorm
from mmjax.layers.embedding import TokenEmbedding as TokenEmbedding
from mmjax.layers.modalities import pool_modalities as pool_modalities
from mmjax.layers.modalities import project_streams as project_streams
from mmjax.layers.modalities import project_target as project_target
from mmjax.layers.pooling import max_pool as max_pool
from mmjax.layers.positions import LearnedPositions as LearnedPositions
from mmjax.layers.positions import sinusoidal_positions as sinusoidal_positions
from mmjax.layers.recurrent import GRU as GRU
from mmjax.layers.recurrent import LSTM as LSTM
from mmjax.layers.recurrent import final_state as final_state
