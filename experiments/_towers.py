"""What the tables on frozen towers share: where weights stand and features are kept, pictures as maps, their texts."""

import dataclasses

import numpy as np

from mmjax.answers.trained import of_each_example
from mmjax.datasets.sources import cache_folder, data_folder
from mmjax.errors import UsageError
from mmjax.evaluation.measures.noise import default_noises
from mmjax.pretrained import efficientnet_lite0, frozen_features, minilm, sentence_features

__all__ = ["as_features", "features_folder", "image_maps", "sentence_vectors", "texts_of", "weights", "with_maps"]


def weights(dataset, name):
    """The file of a tower in the data folder.

    Raises:
      UsageError: there is no data folder.
    """
    root = dataset.data_dir or data_folder(None)
    if root is None:
        raise UsageError(f"{dataset.card.name} needs pretrained/{name}: set --data-dir or MMJAX_DATA_DIR")
    return root / "pretrained" / name


def features_folder(dataset, split):
    """Where the features of a split are kept: beside the prepared data; None = it is met once."""
    return None if split in dataset.transient else (dataset.cache_dir or cache_folder(None)) / "features"


def image_maps(dataset):
    """By split the map that EfficientNet-Lite0 gives of each picture: 49 places 1,280 wide, in half precision."""
    tower = efficientnet_lite0(weights(dataset, "efficientnet_lite0.safetensors"), tokens=True)
    kept = {}
    for split, batch in dataset.splits.items():
        if id(batch) not in kept:  # of a person's picture all splits are one
            folder = features_folder(dataset, split)
            kept[id(batch)] = frozen_features(tower, batch.streams["image"], cache_dir=folder, dtype=np.float16)
    return {split: kept[id(batch)] for split, batch in dataset.splits.items()}


def sentence_vectors(dataset, texts):
    """By split MiniLM's vector of each sentence of nested ids ``texts``, by split too."""
    tower = minilm()
    return {
        split: sentence_features(tower, ids, cache_dir=features_folder(dataset, split)) for split, ids in texts.items()
    }


@of_each_example
def with_maps(dataset):
    """The data with the stream ``image`` as the map of each picture, see ``image_maps``."""
    splits = {
        split: dataset.splits[split].replace(streams={**dataset.splits[split].streams, "image": maps})
        for split, maps in image_maps(dataset).items()
    }
    return as_features(dataset, splits, ["image"])


def as_features(dataset, splits, names):
    """The data with these splits, some streams of which have become features."""
    kinds = {name: kind for name, kind in dataset.card.kinds.items() if name in splits["train"].streams}
    kinds |= dict.fromkeys(names, "feature")
    noise = {name: noise for name, noise in dataset.card.noise.items() if name in kinds}
    noise |= {name: default_noises({name: "feature"})[name].scale for name in names}
    return dataclasses.replace(dataset, splits=splits, card=dataclasses.replace(dataset.card, kinds=kinds, noise=noise))


def texts_of(tokenizer, stream):
    """The texts ``[rows, most]`` of nested ids, an empty one where there is none."""
    ids, there = (np.asarray(x).reshape(-1, x.shape[-1]) for x in (stream.values, stream.mask))
    flat = [some[real].tolist() for some, real in zip(ids, there)]
    return np.asarray(tokenizer.decode_batch(flat, skip_special_tokens=True), object).reshape(stream.mask.shape[:2])
