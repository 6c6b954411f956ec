"""What a user has before there are arrays: a table of strings, numbers and files, a column a modality."""

from mmjax.datasets.raw.columns import Columns, read_columns
from mmjax.datasets.raw.numbers import Vectors, to_numbers
from mmjax.datasets.raw.pictures import read_pictures
from mmjax.datasets.raw.sounds import read_sounds
from mmjax.datasets.raw.videos import read_videos
from mmjax.datasets.raw.words import encode, fit_tokenizer

__all__ = [
    "Columns",
    "Vectors",
    "encode",
    "fit_tokenizer",
    "read_columns",
    "read_pictures",
    "read_sounds",
    "read_videos",
    "to_numbers",
]
