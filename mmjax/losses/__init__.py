"""Losses: plain functions. Those of labelled items give a value per item and reduce nothing; those of embeddings look
at the whole batch, leave out rows that are not there, and give a value per row. Weights are applied once, in the train
step.
"""

from mmjax.losses.chunked import chunked_info_nce as chunked_info_nce
from mmjax.losses.chunked import chunked_sigmoid_contrastive as chunked_sigmoid_contrastive
from mmjax.losses.contrastive import info_nce as info_nce
from mmjax.losses.contrastive import sigmoid_contrastive as sigmoid_contrastive
from mmjax.losses.contrastive import supervised_contrastive as supervised_contrastive
from mmjax.losses.contrastive import triplet as triplet
from mmjax.losses.correlation import total_correlation as total_correlation
from mmjax.losses.gram import gram as gram
from mmjax.losses.gram import volume as volume
from mmjax.losses.items import absolute_error as absolute_error
from mmjax.losses.items import binary_cross_entropy as binary_cross_entropy
from mmjax.losses.items import cross_entropy as cross_entropy
from mmjax.losses.items import squared_error as squared_error
from mmjax.losses.pairs import normalise as normalise
from mmjax.losses.pairs import pairwise as pairwise
from mmjax.losses.symile import symile as symile

__all__ = [
    "absolute_error",
    "binary_cross_entropy",
    "chunked_info_nce",
    "chunked_sigmoid_contrastive",
    "cross_entropy",
    "gram",
    "info_nce",
    "normalise",
    "pairwise",
    "sigmoid_contrastive",
    "squared_error",
    "supervised_contrastive",
    "symile",
    "total_correlation",
    "triplet",
    "volume",
]
