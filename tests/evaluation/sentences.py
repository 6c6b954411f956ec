"""Sentences made at random: hypotheses that share n-grams with their references."""

import numpy as np

from mmjax.hypotheses import encode_texts, pack

__all__ = ["sentences", "texts"]

WORDS = "a the man dog girl runs sits jumps on in grass water red T-shirt woman's two . ,".split()


def texts(items, seed=0):
    """Hypotheses ``[2 seeds][items][2]`` and one to three references of each item; the second is read by no score."""
    rng = np.random.default_rng(seed)

    def text(like=None):
        words = rng.choice(WORDS, rng.integers(6, 14)) if like is None else np.array(like.split())
        return " ".join(np.where(rng.random(len(words)) < 0.15, rng.choice(WORDS, len(words)), words))

    wanted = []
    for item in range(items):
        first = text()
        wanted.append([first, *(text(first) for _ in range(item % 3))])
    said = [[[text(some[-1])[: rng.integers(20, 80)].strip(), "a"] for some in wanted] for _ in range(2)]
    return said, wanted


def sentences(items, seed=0):
    """Outputs ``[2, items, 2, 1 + bytes]`` and target."""
    said, wanted = texts(items, seed)
    return pack(said, np.zeros((2, items, 2))), encode_texts(wanted)
