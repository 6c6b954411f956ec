"""Data whose answers are known, for two or more modalities. Embedded: made from a seed.

*bits*: targets and modalities are made of independent fair bits, so that the redundancy, uniqueness and synergy in the
decomposition of Bertschinger, Rauh, Olbrich, Jost & Ay (Entropy 16, 2014, "BROJA") equal the numbers of bits of each
sort. *gaussian*: modalities are independent given the class, with exact posteriors and Bayes accuracy.
"""

import dataclasses
from typing import Any

from mmjax.datasets.base import Card
from mmjax.datasets.recipe import Recipe
from mmjax.datasets.synthetic import bits, gaussian
from mmjax.datasets.synthetic.gaussian import log_posteriors, means
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options", "log_posteriors", "means"]

CARD = Card(
    name="synthetic",
    description="Made from a seed, with known answers; see the options and the facts.",
    kinds={"a": "feature", "b": "feature"},
    num_classes=16,
    licence="none needed",
    source="mmjax",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
      mode: ``bits`` or ``gaussian``.
      modalities: how many; named a, b, c, ...
      dim: width of the vectors; default: as wide as needed (bits), number of classes (gaussian).
      length: 1 = static vectors; more = sequences of at most so many items, of random length.
      sizes: examples of train, validation and test.
      seed: of everything.
      redundancy: bits: bits of the target that every modality shows.
      unique: bits: bits of the target that one modality shows alone; a number for all or one for each.
      synergy: bits: bits of the target that are the parity (XOR) of one bit of each modality.
      nuisance: bits: bits of each modality that have nothing to do with the target.
      labels: bits: ``class`` (one class of all bits together) or ``bits`` (each bit is a label of its own: the shared
        ones first, then each modality's own, then the XORs).
      noise: bits: standard deviation of Gaussian noise on every value; above 0 it ends the exactness of the facts.
      num_classes: gaussian.
      strength: gaussian: distance between two class means, in standard deviations, divided by sqrt 2; a number for
        all modalities or one for each.
      prior: gaussian: probabilities of the classes; empty = equal.
    """

    mode: str = "bits"
    modalities: int = 2
    dim: int | None = None
    length: int = 1
    sizes: tuple[int, int, int] = (2048, 512, 1024)
    seed: int = 0
    redundancy: int = 1
    unique: int | tuple[int, ...] = 1
    synergy: int = 1
    nuisance: int = 0
    labels: str = "class"
    noise: float = 0.0
    num_classes: int = 4
    strength: float | tuple[float, ...] = 1.5
    prior: tuple[float, ...] = ()

    def __post_init__(self):
        if self.mode not in ("bits", "gaussian"):
            raise UsageError(f"synthetic: mode is 'bits' or 'gaussian', got {self.mode!r}")
        if self.labels not in ("class", "bits") or (self.labels == "bits" and self.mode != "bits"):
            raise UsageError(f"synthetic: labels is 'class' or, with mode 'bits', 'bits', got {self.labels!r}")
        if not 2 <= self.modalities <= 26:
            raise UsageError(f"synthetic: modalities is 2 to 26, got {self.modalities}")
        for field in ("sizes", "unique", "strength", "prior"):
            if isinstance(value := getattr(self, field), list):
                object.__setattr__(self, field, tuple(value))
        if len(self.sizes) != 3 or min(self.sizes) < 1 or self.length < 1:
            raise UsageError(f"synthetic: sizes are three numbers from 1 up and so is length, got {self.sizes}")
        self.part.validate(self)

    @property
    def part(self) -> Any:
        """The module that makes this mode."""
        return bits if self.mode == "bits" else gaussian

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities: a, b, c, ..."""
        return tuple("abcdefghijklmnopqrstuvwxyz"[: self.modalities])

    def each(self, field: str) -> tuple:
        """An option that is one number for all modalities, or one for each."""
        value = getattr(self, field)
        value = value if isinstance(value, tuple) else (value,) * self.modalities
        if len(value) != self.modalities or min(value) < 0:
            raise UsageError(f"synthetic: {field} is a number from 0 up, or one for each of {self.modalities}: {value}")
        return value


def _card(options: Options) -> Card:
    answers = options.part.facts(options)
    return dataclasses.replace(
        CARD,
        name="synthetic" if options == Options() else f"synthetic ({options.mode})",
        description=options.part.describe(options),
        kinds={name: "feature" for name in options.names},
        num_classes=len(answers["labels"]) if options.labels == "bits" else answers["num_classes"],
        class_names=answers["labels"] if options.labels == "bits" else (),
        primary_metric="labels_f1_micro" if options.labels == "bits" else "accuracy",
        noise={name: "standardised features + N(0, (2 severity)^2)" for name in options.names},
        caution="" if answers["exact"] else "Noise was added: the numbers of bits are no longer exact.",
    )


def _builder() -> type:
    from mmjax.datasets.synthetic.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"{options.mode}, {'/'.join(map(str, options.sizes))} examples, seed {options.seed}",
    read=lambda options, folder: options.part.read(options),
    builder=_builder,
    sequences=lambda options: dict.fromkeys(options.names, options.length) if options.length > 1 else {},
    facts=lambda options: options.part.facts(options),
)
