"""Fair bits: shared, private and XOR, so that the partial information decomposition is what the caller set."""

from typing import Any

import numpy as np

from mmjax.datasets.recipe import Columns
from mmjax.datasets.synthetic.common import columns, directions, random_lengths
from mmjax.errors import UsageError

__all__ = ["describe", "facts", "read", "validate", "width"]


def validate(options: Any) -> None:
    """Raises UsageError for numbers of bits that make no data set."""
    unique, counts = options.each("unique"), (options.redundancy, options.synergy, options.nuisance)
    if not all(isinstance(n, int) and n >= 0 for n in (*unique, *counts)):
        raise UsageError(f"synthetic: numbers of bits are integers from 0 up, got {counts} and unique {unique}")
    total = options.redundancy + sum(unique) + options.synergy
    if not 1 <= total <= 12:
        raise UsageError(f"synthetic: the target is made of 1 to 12 bits, got {total}")
    for name, bits in zip(options.names, _widths(options)):
        if bits == 0:
            raise UsageError(f"synthetic: modality {name!r} has no bit to show; give it nuisance or unique bits")
        if options.dim is not None and options.dim < bits:
            raise UsageError(f"synthetic: dim {options.dim} is too narrow for the {bits} bits of modality {name!r}")
        if 1 < options.length < bits:
            raise UsageError(f"synthetic: length {options.length} is too short for the {bits} bits of {name!r}")
    if options.noise < 0:
        raise UsageError(f"synthetic: noise is a standard deviation from 0 up, got {options.noise}")


def _widths(options: Any) -> tuple[int, ...]:
    """How many bits each modality shows."""
    shared = options.redundancy + options.synergy + options.nuisance
    return tuple(shared + unique for unique in options.each("unique"))


def width(options: Any) -> int:
    """Width of the vectors."""
    return options.dim or max(8, *_widths(options))


def facts(options: Any) -> dict[str, Any]:
    """The known answers, in bits and in accuracy; exact only without noise."""
    unique = dict(zip(options.names, options.each("unique")))
    total = options.redundancy + sum(unique.values()) + options.synergy
    alone = {name: options.redundancy + count for name, count in unique.items()}
    exact = options.noise == 0
    answers = {
        "mode": "bits",
        "exact": exact,
        "num_classes": 2**total,
        "redundancy": options.redundancy,
        "unique": unique,
        "synergy": options.synergy,
        "information": alone | {"joint": total},
        "bayes_accuracy": 1.0 if exact else None,
        "bayes_accuracy_alone": {name: 2.0 ** (bits - total) if exact else None for name, bits in alone.items()},
    }
    if options.labels == "bits":  # each a label: what is known of the class is not known of them
        sorts = [("shared", options.redundancy), *((f"only in {name}", count) for name, count in unique.items())]
        sorts += [("XOR", options.synergy)]
        named = tuple(f"{what} {i + 1}" if count > 1 else what for what, count in sorts for i in range(count))
        answers |= {"labels": named, "bayes_accuracy": None, "bayes_accuracy_alone": {}}
    return answers


def describe(options: Any) -> str:
    """One sentence for the card."""
    answers, several = facts(options), options.labels == "bits"
    made, classes = (
        ("The labels are", "") if several else ("The class is made of", f"{answers['num_classes']} classes. ")
    )
    return (
        f"{made} independent fair bits: {options.redundancy} that every modality shows, "
        f"{answers['unique']} that one shows alone, {options.synergy} that are the XOR of a bit of each"
        f"{'. ' if several else '; '}{classes}Each modality is an invertible code of its bits"
        + (f" with Gaussian noise of s.d. {options.noise}." if options.noise else ".")
    )


def _draw(random: np.random.RandomState, count: int, bits: int) -> np.ndarray:
    """``[count, bits]`` fair bits. Every pattern stands as often as every other where ``count`` allows it."""
    if bits > 20 or 2**bits > count:
        return random.randint(0, 2, size=(count, bits))
    whole, rest = divmod(count, 2**bits)
    numbers = np.concatenate([np.tile(np.arange(2**bits), whole), random.permutation(2**bits)[:rest]])
    return random.permutation(numbers)[:, None] >> np.arange(bits) & 1


def read(options: Any) -> Columns:
    """The examples. Every split is balanced by itself, so that its empirical information is exact where its size is a
    multiple of the number of patterns."""
    unique, modalities = options.each("unique"), options.modalities
    random = np.random.RandomState((options.seed, 1))
    widths = (options.redundancy, *unique, *(options.synergy,) * modalities, *(options.nuisance,) * modalities)
    bits = np.concatenate([_draw(random, size, sum(widths)) for size in options.sizes])
    parts = np.split(bits, np.cumsum(widths)[:-1], axis=1)
    shared, private = parts[0], parts[1 : 1 + modalities]
    mixed, nuisance = parts[1 + modalities : 1 + 2 * modalities], parts[1 + 2 * modalities :]
    answer = np.concatenate([shared, *private, sum(mixed) % 2], axis=1)
    dim = width(options)
    streams: dict[str, Any] = {}
    for m, name in enumerate(options.names):
        shown = np.concatenate([shared, private[m], mixed[m], nuisance[m]], axis=1)
        code = directions(shown.shape[1], dim, (options.seed, 2, m)) * np.sqrt(dim / shown.shape[1])
        items = (2.0 * shown - 1)[:, :, None] * code  # [examples, bits, dim]
        if options.length == 1:
            # bit by bit: the same bits give the same vector to the last digit, which a matrix product does not promise
            values = sum(items[:, bit] for bit in range(items.shape[1]))
            streams[name] = _observed(random, values, options.noise)
        else:
            streams[name] = [_observed(random, row, options.noise) for row in _scatter(random, items, options.length)]
    target = answer if options.labels == "bits" else answer @ (1 << np.arange(answer.shape[1]))
    return columns(options.sizes, streams, target)


def _observed(random: np.random.RandomState, values: np.ndarray, noise: float) -> np.ndarray:
    if noise:
        values = values + noise * random.standard_normal(values.shape)
    return values.astype(np.float32)


def _scatter(random: np.random.RandomState, items: np.ndarray, longest: int) -> list[np.ndarray]:
    """Every bit at a random step of a sequence of random length, zeros at the other steps; their sum is the code."""
    sequences = []
    for row, length in zip(items, random_lengths(random, len(items), items.shape[1], longest)):
        sequence = np.zeros((length, items.shape[2]))
        sequence[random.permutation(length)[: len(row)]] = row
        sequences.append(sequence)
    return sequences
