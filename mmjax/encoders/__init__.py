"""Encoders of one modality: ``(stream, *, train=False) -> Stream`` of items ``(dim,)``. A file per kind of input.

Their parts (cells, word vectors, attention) are in ``mmjax.layers``; ``LogMel`` makes frames of a waveform.
"""

from mmjax.encoders.audio import AudioTransformer as AudioTransformer
from mmjax.encoders.audio import SpectrogramEncoder as SpectrogramEncoder
from mmjax.encoders.features import FeatureMLP as FeatureMLP
from mmjax.encoders.features import FeatureTransformer as FeatureTransformer
from mmjax.encoders.features import TemporalConv as TemporalConv
from mmjax.encoders.image import LeNet as LeNet
from mmjax.encoders.image import ResNet as ResNet
from mmjax.encoders.image import ViT as ViT
from mmjax.encoders.recurrent import Recurrent as Recurrent
from mmjax.encoders.spectrogram import LogMel as LogMel
from mmjax.encoders.text import BagOfWords as BagOfWords
from mmjax.encoders.text import Categories as Categories
from mmjax.encoders.text import RecurrentText as RecurrentText
from mmjax.encoders.text import TransformerText as TransformerText
from mmjax.encoders.video import FrameVideo as FrameVideo
from mmjax.encoders.video import TubeletTransformer as TubeletTransformer
