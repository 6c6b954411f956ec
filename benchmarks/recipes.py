"""Which defaults suit small data: schedule, clipping, label smoothing, number of updates, and what chooses the epoch.

    python -m benchmarks.recipes --data-dir DIR > benchmarks/recipes.md

The concatenation of the default table (``mmjax.experiment.default``) is trained on the train split of each data set
with eight recipes, three seeds each: a half fraction of a two-level design (Box, Hunter & Hunter 2005, chapter 6), in
which each choice is seen with both values of every other. Validation is cut in two halves: one chooses the epoch, the
other is measured, then the other way round, so that no choice is judged by what it was made on. Test is never read.
"""

import argparse
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax import datasets, fusion
from mmjax.cli import configure
from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.experiment.default import DIM, default_encoder
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.tasks import Classification
from mmjax.training import Train, warmup_cosine

BATCH, SEEDS = 32, (0, 1, 2)
SCHEDULES = {"constant": None, "cosine": warmup_cosine}
STEPS, CLIPS, SMOOTHINGS, SELECTS = (400, 1200), (None, 1.0), (0.0, 0.1), ("loss", "accuracy")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One setting of what is compared, the selection apart, which the same run serves."""

    schedule: str
    clip: float | None
    smoothing: float
    steps: int


# Clipping goes with an odd number of the other changes: main effects are free of effects of pairs.
RECIPES = [
    Recipe(schedule, CLIPS[((schedule == "cosine") + (smoothing > 0) + (steps > STEPS[0])) % 2], smoothing, steps)
    for schedule, smoothing, steps in itertools.product(SCHEDULES, SMOOTHINGS, STEPS)
]
BASE = Recipe("constant", None, 0.0, 400), "loss"


def sequences(items: int = 900, seed: int = 0) -> Dataset:
    """Three modalities of noisy sequences of ten classes, each told by level, spread or trend of its items."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 10, items)
    centres = rng.normal(size=(3, 10, 6))
    streams = {}
    for place, (name, longest) in enumerate((("face", 20), ("voice", 30), ("words", 12))):
        mask = np.arange(longest) < rng.integers(longest // 3, longest + 1, items)[:, None]
        code = centres[place][target][:, None]
        noise = rng.normal(size=(items, longest, 6))
        trend = np.linspace(-1, 1, longest)[:, None]
        values = {"face": 0.4 * code + noise, "voice": np.exp(0.25 * code) * noise, "words": 0.5 * code * trend + noise}
        streams[name] = (values[name], mask)
    return datasets.from_arrays(streams, target, split=np.repeat([0, 1, 2], [500, 300, 100]), name="sequences")


def tables(data_dir: str | None) -> Iterator[Dataset]:
    """The data sets, vectors first."""
    yield datasets.load("digits")
    yield datasets.load("synthetic", mode="gaussian", modalities=3)
    yield sequences()
    if data_dir:
        yield views.standardise(datasets.load("uci_mfeat", data_dir=data_dir))
        yield views.standardise(datasets.load("cmu_mosi", data_dir=data_dir))


def halves(dataset: Dataset) -> dict[str, Any]:
    """Train, and the two halves of validation under the names that ``fit`` knows."""
    order = np.random.default_rng(0).permutation(dataset.splits["validation"].size)
    parts = [views.subset(dataset, "validation", np.sort(order[start::2])).splits["validation"] for start in (0, 1)]
    return {"train": dataset.splits["train"], "validation": parts[0], "test": parts[1]}


def measure(dataset: Dataset, recipe: Recipe) -> dict[str, float]:
    """Accuracy in percent by what chooses the epoch: mean over seeds and the two ways of using the halves."""
    splits = halves(dataset)
    encoders = {name: default_encoder(dataset, name) for name in dataset.streams}
    classes = dataset.card.num_classes or 0
    model = Multimodal(encoders, fusion.Concat(DIM, hidden_dims=(DIM,)), ClassificationHead(classes))
    epochs = max(recipe.steps // math.ceil(splits["train"].size / BATCH), 2)
    train = Train(
        epochs=epochs, batch_size=BATCH, schedule=SCHEDULES[recipe.schedule], clip_norm=recipe.clip, select="accuracy"
    )
    history = fit(model, Classification(classes, label_smoothing=recipe.smoothing), train, splits, SEEDS).history
    found = {}
    for select in SELECTS:
        scores = []
        for chooser, judge in (("validation", "test"), ("test", "validation")):
            values = history[f"{chooser}/{select}"] * (1 if select == "loss" else -1)
            scores.append(history[f"{judge}/accuracy"][values.argmin(0), np.arange(len(SEEDS))])
        found[select] = 100 * float(np.mean(scores))
    return found


def effect(scores: dict[tuple[Recipe, str], float], name: str, value: Any) -> float:
    """Mean with a choice less the mean without it, over all settings of the others."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for (recipe, select), score in scores.items():
        found[(select if name == "select" else getattr(recipe, name)) == value].append(score)
    return float(np.mean(found[True]) - np.mean(found[False]))


CHANGES = {
    "cosine with warm-up instead of constant": ("schedule", "cosine"),
    "clipping at norm 1": ("clip", 1.0),
    "label smoothing 0.1": ("smoothing", 0.1),
    "epoch by accuracy instead of loss": ("select", "accuracy"),
    "1,200 updates instead of 400": ("steps", 1200),
}


def report(results: dict[str, dict[tuple[Recipe, str], float]]) -> str:
    """Markdown: what each choice changes, and the best recipes by their mean over the data sets."""
    names = list(results)
    lines = [f"| what changes, points | {' | '.join(names)} | mean |", f"|---|{'---:|' * (len(names) + 1)}"]
    for label, change in CHANGES.items():
        values = [effect(results[name], *change) for name in names]
        lines.append(f"| {label} | {' | '.join(f'{v:+.1f}' for v in (*values, np.mean(values)))} |")
    lines += ["", f"| recipe | {' | '.join(names)} | mean |", f"|---|{'---:|' * (len(names) + 1)}"]
    keys = [(recipe, select) for recipe in RECIPES for select in SELECTS]
    means = {key: float(np.mean([results[name][key] for name in names])) for key in keys}
    for key in sorted(keys, key=means.__getitem__, reverse=True):
        recipe, select = key
        said = f"{recipe.schedule}, clip {recipe.clip}, smoothing {recipe.smoothing:g}"
        said += f", {recipe.steps} updates, epoch by {select}"
        said = f"**{said}** (the base)" if key == BASE else said
        lines.append(f"| {said} | {' | '.join(f'{v:.1f}' for v in (*(results[n][key] for n in names), means[key]))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder of the source files; without it the embedded data alone")
    arguments = parser.parse_args()
    configure()
    results: dict[str, dict[tuple[Recipe, str], float]] = {}
    for dataset in tables(arguments.data_dir):
        clock = time.perf_counter()
        found = {recipe: measure(dataset, recipe) for recipe in RECIPES}
        results[dataset.card.name] = {(r, select): found[r][select] for r in RECIPES for select in SELECTS}
        print(f"{dataset.card.name}: {time.perf_counter() - clock:.0f} s", file=sys.stderr, flush=True)
        print(report(results), file=sys.stderr, flush=True)  # what there is, should it be stopped
    print(report(results), end="")


if __name__ == "__main__":
    main()
