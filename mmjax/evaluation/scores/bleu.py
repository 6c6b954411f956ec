"""BLEU and chrF of a text against its references, by the library sacreBLEU (Post 2018).

Outputs are hypotheses ``[items, n, 1 + bytes]`` (``mmjax.hypotheses.pack``), of which the first is scored; the target
is a ``Stream`` of bytes ``[items, references, bytes]`` (``mmjax.hypotheses.encode_texts``), or a dict with it as
``text``. The library counts n-grams and lengths of each item; these are additive, so that a score is recomputed
on any draw of items. Captioning papers report BLEU-1 to 4 of lower-cased words without punctuation; some count no
brevity penalty, and have names of their own.
"""

import functools
import importlib.metadata
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.evaluation.scores.score import Score
from mmjax.extras import extra
from mmjax.hypotheses import decode_texts, first_texts

__all__ = ["SCORES", "caption_words", "references"]

_ORDERS = 4
_CHARACTERS = 6


def references(target: Any) -> list[list[str]]:
    """The texts by which each item is measured."""
    return decode_texts(target["text"] if isinstance(target, Mapping) else target)


@functools.lru_cache(maxsize=100_000)
def caption_words(text: str) -> str:
    """The lower-case words of a caption (NFKC), runs of letters and digits, with a space between.

    Example:
      >>> caption_words("A man's T-shirt .")
      'a man s t shirt'
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(c if c.isalnum() else " " for c in text).split())


def _as_it_is(text: str) -> str:
    """A text whose words and marks stand between blanks."""
    return text


def _counts(outputs: Any, target: Any, *, words: Callable[[str], str] | None = None) -> np.ndarray:
    """Lengths of hypothesis and closest reference, n-grams that match, n-grams: ``[items, 2 + 2 * 4]``."""
    pairs = zip(first_texts(outputs), references(target), strict=True)
    return np.asarray([_counts_of(said, tuple(wanted), words) for said, wanted in pairs], np.float64)


@functools.lru_cache(maxsize=100_000)  # a report asks for the same sentences many times: of every part of it again
def _counts_of(said: str, wanted: tuple[str, ...], words: Callable[[str], str] | None) -> tuple[int, ...]:
    if words is not None:
        said, wanted = words(said), tuple(words(one) for one in wanted)
    found = _metric(None if words is None else "none").sentence_score(said, wanted)
    return (found.sys_len, found.ref_len, *found.counts, *found.totals)


@functools.cache
def _metric(tokenize: str | None) -> Any:
    with extra():
        from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize, effective_order=True)


def _bleu(sums: Any, *, orders: int = _ORDERS, penalty: bool = True, smooth: bool = False) -> np.ndarray:
    """BLEU (Papineni et al. 2002) of sums ``[..., 2 + 2 * 4]``; with ``smooth`` the k-th order without a match counts
    ``2^-k`` ("exp" of sacreBLEU), else 0.
    """
    sums = np.asarray(sums, np.float64)
    said, wanted, right = sums[..., 0], sums[..., 1], sums[..., 2 : 2 + orders]
    total = sums[..., 2 + _ORDERS : 2 + _ORDERS + orders]
    missed = right <= 0
    if smooth:
        right = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), right)
    defined = (sums[..., 2 : 2 + _ORDERS] > 0).any(-1) & (right > 0).all(-1) & (total > 0).all(-1)
    shares = np.where(defined[..., None], right / np.maximum(total, 1e-300), 1.0)
    short = np.where(penalty & (said < wanted), 1 - wanted / np.maximum(said, 1e-300), 0.0)
    return np.where(defined, np.exp(np.log(shares).mean(-1) + short), 0.0)


def _characters(outputs: Any, target: Any) -> np.ndarray:
    """n-grams of characters of the hypothesis, of its best reference, and in both: ``[items, 3 * 6]``."""
    with extra():
        from sacrebleu.metrics import CHRF

    wanted = references(target)
    most = max(map(len, wanted))
    padded = [[*some, *[None] * (most - len(some))] for some in wanted]
    rows = CHRF()._extract_corpus_statistics(first_texts(outputs), list(zip(*padded)))
    return np.asarray(rows, np.float64)


def _chrf(sums: Any, *, beta: float = 2.0) -> np.ndarray:
    """F-beta of the mean precision and recall over the orders that occur on both sides (Popović 2015)."""
    sums = np.asarray(sums, np.float64)
    said, wanted, right = np.moveaxis(sums.reshape(*sums.shape[:-1], _CHARACTERS, 3), -1, 0)
    there = (said > 0) & (wanted > 0)
    count = np.maximum(there.sum(-1), 1)
    precision, recall = (np.where(there, right / np.maximum(n, 1e-300), 0).sum(-1) / count for n in (said, wanted))
    below = beta**2 * precision + recall
    return np.where(below > 0, (1 + beta**2) * precision * recall / np.maximum(below, 1e-300), 0.0)


def _version() -> str:
    try:
        return importlib.metadata.version("sacrebleu")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


_share = functools.partial(Score.share, outputs="sentences")
_words = functools.partial(_counts, words=caption_words)
_CAPTIONS = "lower-cased words without punctuation, cumulative, closest reference length, no smoothing; corpus level"


def _of_captions(orders: int, penalty: bool) -> Score:
    name = f"bleu{orders}_captions" + ("" if penalty else "_nopenalty")
    without = "brevity penalty" if penalty else "no brevity penalty"
    label = f"BLEU-{orders}" + ("" if penalty else " without penalty")
    value = functools.partial(_bleu, orders=orders, penalty=penalty)
    return _share(name, f"BLEU-{orders} of {_CAPTIONS}; {without}", label, states=_words, value=value)


SCORES = (
    _share(
        "bleu",
        f"sacreBLEU, nrefs:all|case:mixed|eff:no|tok:13a|smooth:exp|version:{_version()}; corpus level",
        "BLEU",
        states=_counts,
        value=functools.partial(_bleu, smooth=True),
    ),
    _share(
        "bleu_tokens",
        f"sacreBLEU of text that is in tokens already, nrefs:all|case:mixed|eff:no|tok:none|smooth:exp|"
        f"version:{_version()}; corpus level; on lower-cased words with units joined it is multi-bleu's",
        "BLEU of tokens",
        states=functools.partial(_counts, words=_as_it_is),
        value=functools.partial(_bleu, smooth=True),
    ),
    _share(
        "chrf",
        f"chrF2 of sacreBLEU, nrefs:all|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{_version()}; corpus level",
        "chrF",
        states=_characters,
        value=_chrf,
    ),
    *(_of_captions(orders, penalty) for penalty in (True, False) for orders in range(1, _ORDERS + 1)),
)
