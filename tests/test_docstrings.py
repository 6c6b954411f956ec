"""Every public class and function of these modules has an example in its docstring, and it runs."""

import doctest
import importlib
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import BagOfWords, LeNet
from mmjax.stream import Stream, masked_max, pooled

MODULES = (
    "mmjax.attention_decoder",
    "mmjax.buckets",
    "mmjax.caches",
    "mmjax.correlation",
    "mmjax.decoder",
    "mmjax.deep_cca",
    "mmjax.datasets.multi30k.vocabulary",
    "mmjax.datasets.multi30k.words",
    "mmjax.dialogue",
    "mmjax.dual_encoder",
    "mmjax.encoders.audio",
    "mmjax.encoders.features",
    "mmjax.encoders.image",
    "mmjax.encoders.normalisation",
    "mmjax.encoders.recurrent",
    "mmjax.encoders.spectrogram",
    "mmjax.encoders.text",
    "mmjax.encoders.video",
    "mmjax.evaluation.measures.alignment",
    "mmjax.evaluation.measures.retrieval",
    "mmjax.evaluation.scores.captions",
    "mmjax.freezing",
    "mmjax.fusion.attention",
    "mmjax.fusion.bottleneck",
    "mmjax.fusion.concat",
    "mmjax.fusion.decision",
    "mmjax.fusion.gated",
    "mmjax.fusion.joint",
    "mmjax.fusion.sets",
    "mmjax.fusion.tokens",
    "mmjax.generation",
    "mmjax.layers.attention",
    "mmjax.layers.dense",
    "mmjax.layers.embedding",
    "mmjax.layers.modalities",
    "mmjax.layers.pooling",
    "mmjax.layers.positions",
    "mmjax.layers.recurrent",
    "mmjax.losses.chunked",
    "mmjax.losses.contrastive",
    "mmjax.losses.correlation",
    "mmjax.losses.gram",
    "mmjax.losses.items",
    "mmjax.losses.pairs",
    "mmjax.losses.symile",
    "mmjax.paths",
    "mmjax.pretrained.adapters",
    "mmjax.pretrained.efficientnet",
    "mmjax.pretrained.features",
    "mmjax.pretrained.minilm",
    "mmjax.pretrained.speech",
    "mmjax.pretrained.tower",
    "mmjax.pretrained.weights",
    "mmjax.ranking",
    "mmjax.translation",
    "mmjax.trie",
)
NAMES = {
    "BagOfWords": BagOfWords,
    "LeNet": LeNet,
    "Stream": Stream,
    "jax": jax,
    "jnp": jnp,
    "masked_max": masked_max,
    "nn": nn,
    "np": np,
    "pooled": pooled,
}
"""What an example may use without importing it, beside what its module holds."""
INNER = {  # parts of a method that is shown
    "KernelProjection",
    "Projection",
    "Ties",
    "linear_kernel",
    "rbf_kernel",
    "DIRECTIONS",
    "KS",
    "Embedded",
    "Sides",
    "Cache",
    "Buckets",
    "Shared",
    "Kept",
    "Lineage",
    "Hypotheses",
    "LSTMCache",
    "LengthPenalty",
    "Activation",
    "DecoderBlock",
    "FROZEN",
    "Source",
    "all_there",
    "as_float32",
    "cross_entropy_among",
    "positive_pairs",
    "Stacking",
    "Widths",
    "CONV",
    "LINEAR",
    "cross_fit_stacking",
    "feature_sequence",
    "fit_stacking",
    "frame_mask",
    "load_tower",
    "log_mel_spectrogram",
    "mel_filterbank",
    "mel_spectrogram",
    "normalise_groups",
    "pixels",
    "SCORES",
}


@pytest.fixture(autouse=True)
def _compile_in_haste():
    """Examples run one operation at a time: what they cost is compiling."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    shown = set()
    for public in module.__all__:
        thing = inspect.unwrap(getattr(module, public))
        for test in doctest.DocTestFinder(recurse=False).find(thing, public, globs={**vars(module), **NAMES}):
            shown |= {public} if test.examples else set()
            report: list[str] = []
            runner.run(test, out=report.append)
            assert not report, "".join(report)
    assert shown >= set(module.__all__) - INNER, f"{name} lacks examples of {set(module.__all__) - INNER - shown}"
