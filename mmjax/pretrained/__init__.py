"""Published weights in linen modules: a tower owns its preprocessing and gives a stream. A file per architecture."""

from mmjax.pretrained.adapters import Adapted as Adapted
from mmjax.pretrained.adapters import InputDropout as InputDropout
from mmjax.pretrained.adapters import Projector as Projector
from mmjax.pretrained.adapters import QFormer as QFormer
from mmjax.pretrained.adapters import Resampler as Resampler
from mmjax.pretrained.efficientnet import EfficientNetLite0 as EfficientNetLite0
from mmjax.pretrained.efficientnet import efficientnet_lite0 as efficientnet_lite0
from mmjax.pretrained.features import frozen_features as frozen_features
from mmjax.pretrained.features import sentence_features as sentence_features
from mmjax.pretrained.glove import WordVectors as WordVectors
from mmjax.pretrained.glove import glove as glove
from mmjax.pretrained.glove import read_word_vectors as read_word_vectors
from mmjax.pretrained.minilm import MiniLM as MiniLM
from mmjax.pretrained.minilm import minilm as minilm
from mmjax.pretrained.minilm import sentence_ids as sentence_ids
from mmjax.pretrained.speech import SpeechEmbedding as SpeechEmbedding
from mmjax.pretrained.speech import speech_embedding as speech_embedding
from mmjax.pretrained.tower import Tower as Tower
from mmjax.pretrained.tower import put_weights as put_weights
