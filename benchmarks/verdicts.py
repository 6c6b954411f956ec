"""How often intervals hold the truth and verdicts err, in simulated tables whose true gains are given.

    python -m benchmarks.verdicts                # writes verdicts.md beside this file; about five minutes on one core

A run is right about an item if the sum of a skill, the item's difficulty (shared by all rows) and four kinds of luck is
positive: of the row's seed, of the row with the group of items, of the row with the item, and of the run with the item.
All are normal, so the true accuracy of a row is known. Intervals and verdicts are those of
``mmjax.evaluation.statistics.significance``, nothing is copied. Exit status 1 if a bound of the protocol is broken.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import ndtri

from mmjax.evaluation.statistics.crossed import crossed_estimate, logit_bounds, t_bounds
from mmjax.evaluation.statistics.significance import detectable_gain, holm, paired_gain, smallest_gain, verdict

ACCURACY, MARGIN, DIFFICULTY = 0.75, 0.01, 0.8
HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Luck:
    """Standard deviations of what varies, in units of the latent score; one unit is about 30 points of accuracy."""

    seed: float = 0.0
    group: float = 0.0
    item: float = 0.0
    run: float = 0.3

    @property
    def total(self) -> float:
        """Standard deviation of the latent score."""
        return float(np.sqrt(DIFFICULTY**2 + self.seed**2 + self.group**2 + self.item**2 + self.run**2))


@dataclasses.dataclass(frozen=True)
class Units:
    """Test items in groups of unequal size; as many groups as items: each item is its own."""

    groups: int
    items: int

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Sizes of the groups."""
        if self.groups == self.items:
            return np.ones(self.items, np.int64)
        share = random.lognormal(0, 0.8, self.groups)
        return np.maximum(1, np.round(self.items * share / share.sum())).astype(np.int64)

    def __str__(self) -> str:
        return f"{self.items} items" + ("" if self.groups == self.items else f" in {self.groups} groups")


LUCK = {
    "seeds": Luck(seed=0.3, item=0.2),
    "test items": Luck(seed=0.02, item=0.8),
    "groups": Luck(seed=0.02, group=0.5, item=0.2),
    "both alike": Luck(seed=0.12, group=0.2, item=0.4),
    "single runs": Luck(run=0.8),
}
UNITS = (Units(400, 400), Units(40, 400), Units(12, 300))


def draw_scores(
    accuracy: Sequence[float], luck: Luck, seeds: int, sizes: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """Right or wrong, ``[count, rows, seeds, items]``, of rows with these true accuracies."""
    rows, items = len(accuracy), int(sizes.sum())
    group = np.repeat(np.arange(len(sizes)), sizes)
    skill = luck.total * ndtri(np.asarray(accuracy))[:, None, None]

    def normal(deviation: float, *shape: int) -> np.ndarray:
        """In single precision: only the sign of the sum counts."""
        drawn = random.standard_normal((count, *shape), np.float32) if deviation else np.zeros((1, 1, 1, 1), np.float32)
        return np.float32(deviation) * drawn

    latent = skill.astype(np.float32) + normal(DIFFICULTY, 1, 1, items) + normal(luck.seed, rows, seeds, 1)
    if luck.group:
        latent = latent + normal(luck.group, rows, 1, len(sizes))[..., group]
    latent = latent + normal(luck.item, rows, 1, items)
    return latent + normal(luck.run, rows, seeds, items) > 0


def draw_many(
    accuracy: Sequence[float], luck: Luck, seeds: int, units: Units, runs: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of scores and the sizes of their groups, ``runs`` in all."""
    done, most = 0, max(1, 2_000_000 // (seeds * units.items * len(accuracy)))
    while done < runs:
        count = min(most, max(1, runs // 20), runs - done)  # at least twenty sets of sizes
        sizes = units.draw(random)
        yield draw_scores(accuracy, luck, seeds, sizes, count, random), sizes
        done += count


def sum_groups(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sums over the items of each group."""
    return np.add.reduceat(scores.astype(np.float64), np.r_[0, np.cumsum(sizes)[:-1]], axis=-1)


def coverage(luck: Luck, seeds: int, units: Units, runs: int, seed: int = 0) -> tuple[float, float]:
    """Share of 95 % intervals that hold the truth: of a row's accuracy, and of a gain of 2 points."""
    random = np.random.default_rng(seed)
    accuracy = (ACCURACY + 0.02, ACCURACY)
    rows, gains = [], []
    for scores, sizes in draw_many(accuracy, luck, seeds, units, runs, random):
        sums = sum_groups(scores, sizes)
        low, high = logit_bounds(crossed_estimate(sums[:, 0], sizes), len(sizes))
        rows.append((low <= accuracy[0]) & (accuracy[0] <= high))
        low, high = t_bounds(crossed_estimate(sums[:, 0] - sums[:, 1], sizes))
        gains.append((low <= 0.02) & (high >= 0.02))
    return float(np.concatenate(rows).mean()), float(np.concatenate(gains).mean())


def equivalent_at_margin(luck: Luck, seeds: int, units: Units, runs: int, seed: int = 0) -> float:
    """Share of gains of exactly the margin that are called equivalent."""
    random = np.random.default_rng(seed)
    said = []
    for scores, sizes in draw_many((ACCURACY + MARGIN, ACCURACY), luck, seeds, units, runs, random):
        sums = sum_groups(scores, sizes)
        low, high = t_bounds(crossed_estimate(sums[:, 0] - sums[:, 1], sizes), 0.9)
        said.append((low >= -MARGIN) & (high <= MARGIN))
    return float(np.concatenate(said).mean())


def judge_table(scores: np.ndarray, singles: int, groups: np.ndarray, flips: int) -> tuple[list[str | None], float]:
    """Verdicts on the fused rows, as the summary makes them, and the gain that the table could have detected."""
    seeds = scores.shape[1]
    gains = [[paired_gain(row, one, groups, flips=flips) for one in scores[:singles]] for row in scores[singles:]]
    smallest = [smallest_gain(each) for each in gains]
    corrected = holm([one.p for one in smallest])
    said = [verdict(one, float(p), seeds, MARGIN).name for one, p in zip(smallest, corrected)]
    return said, float(np.median([detectable_gain(each, len(gains)) for each in gains]))


def table_verdicts(
    accuracy: Sequence[float], singles: int, luck: Luck, seeds: int, units: Units, tables: int, *, seed: int = 0,
    flips: int = 999,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Verdicts ``[tables, fused rows]``, and the median detectable gain."""
    random = np.random.default_rng(seed)
    said, detectable = [], []
    for scores, sizes in draw_many(accuracy, luck, seeds, units, tables, random):
        groups = np.repeat(np.arange(len(sizes)), sizes)
        for table in scores:
            names, gain = judge_table(table, singles, groups, flips)
            said.append([name or "" for name in names])
            detectable.append(gain)
    return np.array(said), float(np.median(detectable))


SINGLES, FUSED = 3, 5
EQUAL = (ACCURACY,) * SINGLES
ONE_AHEAD = (ACCURACY, ACCURACY - 0.1, ACCURACY - 0.15)
SMALL = {
    "seeds": Luck(seed=0.012, run=0.1),
    "test items": Luck(seed=0.001, item=0.15, run=0.1),
    "groups": Luck(seed=0.001, group=0.05, run=0.1),
}
MANY = (Units(4000, 4000), Units(100, 4000))
USUAL = {
    "seeds": (Luck(seed=0.06, item=0.2), Units(40, 800)),
    "test items": (Luck(seed=0.01, item=0.4), Units(800, 800)),
    "groups": (Luck(seed=0.01, group=0.15, item=0.2), Units(40, 800)),
    "both alike": (Luck(seed=0.04, group=0.1, item=0.2), Units(40, 800)),
}
"""Luck of a size that tables have: 2 points of accuracy over seeds, say."""


def report(runs: int, tables: int) -> tuple[str, list[str]]:
    """The text, and the bounds that are broken."""
    broken: list[str] = []

    def percent(share: float, low: float = 0.0, high: float = 1.0, what: str = "") -> str:
        if what and not low <= share <= high:
            broken.append(f"{what}: {100 * share:.1f} %, not {100 * low:g} to {100 * high:g}")
        return f"{100 * share:.1f}"

    parts = [
        "# How often intervals hold the truth, and verdicts err",
        "Made by `python -m benchmarks.verdicts`: do not edit. " + " ".join((__doc__ or "").split("\n\n")[2].split()),
        f"## 95 % intervals that hold the truth, %\n\nOf {runs:,} simulated pairs of rows each. *Row*: the accuracy of "
        "a row; *gain*: of one row over another. Between 93 and 97 at 5 and 10 seeds, where seeds, test items or "
        "groups dominate, is the bound; with 3 seeds nothing is promised, and no verdict is given. Where neither seeds "
        "nor items have luck of their own (*single runs*) the interval of a gain is too wide.",
    ]
    rows = []
    for name, luck in LUCK.items():
        for units in UNITS:
            cells = [name, str(units)]
            for seeds in (3, 5, 10):
                row, gain = coverage(luck, seeds, units, runs)
                bound = seeds > 3 and name != "single runs"
                what = f"{name}, {units}, {seeds} seeds" if bound else ""
                cells += [percent(row, 0.93, 0.97, what and what + ", row"),
                          percent(gain, 0.93, 0.97, what and what + ", gain")]  # fmt: skip
            rows.append(cells)
    head = ["luck is in", "test data", *(f"{n} seeds, {what}" for n in (3, 5, 10) for what in ("row", "gain"))]
    parts.append(_table(head, rows))

    parts.append(
        f"## `equivalent` where the true gain is exactly the margin, %\n\nOf {runs:,} pairs each whose true gain is 1 "
        "point, with so little luck that the interval is a fraction of it. At most 6 is the bound (5 is the level)."
    )
    rows = []
    for name, luck in SMALL.items():
        for units in MANY:
            shares = [equivalent_at_margin(luck, seeds, units, runs) for seeds in (5, 10)]
            rows.append([name, str(units), *(percent(s, 0, 0.06, f"equivalent, {name}, {units}") for s in shares)])
    parts.append(_table(["luck is in", "test data", "5 seeds", "10 seeds"], rows))

    parts.append(
        f"## Tables with a false verdict, %\n\n{tables:,} tables each, of {SINGLES} single modalities and {FUSED} "
        "fused rows, none of which is truly better than the best single modality. *Equal*: all rows are equally good; "
        "*one ahead*: as good as one single modality, the others are 10 and 15 points behind. At most 5 is the bound "
        "of either verdict, for the table and not for the row."
    )
    rows = []
    for title, alone in (("equal", EQUAL), ("one ahead", ONE_AHEAD)):
        for name in ("seeds", "test items", "groups", "both alike"):
            for units in UNITS[:1] if name == "test items" else UNITS[1:]:
                cells = [title, name, str(units)]
                for seeds in (5, 10):
                    said, _ = table_verdicts((*alone, *EQUAL[:1] * FUSED), SINGLES, LUCK[name], seeds, units, tables)
                    for wrong in ("better", "worse"):
                        what = f"false {wrong}, {title}, {name}, {units}, {seeds} seeds"
                        cells.append(percent(float((said == wrong).any(1).mean()), 0, 0.05, what))
                rows.append(cells)
    head = ["single modalities", "luck is in", "test data"]
    head += [f"{seeds} seeds, {wrong}" for seeds in (5, 10) for wrong in ("better", "worse")]
    parts.append(_table(head, rows))

    parts.append(
        f"## Power: fused rows that are called `better`, %\n\nOf {max(tables // 5, 1):,} tables each of {SINGLES} "
        f"equal single modalities and {FUSED} fused rows that are truly better than all of them by 2, 4 or 8 points. "
        "*Detectable* is what such a table prints: the gain with 80 % power for a row alone at the first step of "
        "Holm's correction, over one single modality."
    )
    rows = []
    for name, (luck, units) in USUAL.items():
        for seeds in (5, 10):
            cells = [name, str(units), str(seeds)]
            for gain in (0.02, 0.04, 0.08):
                accuracy = (*EQUAL, *(ACCURACY + gain,) * FUSED)
                said, least = table_verdicts(accuracy, SINGLES, luck, seeds, units, max(tables // 5, 1))
                cells.append(percent(float((said == "better").mean())))
            rows.append([*cells, f"{100 * least:.1f}"])
    head = ["luck is in", "test data", "seeds", "2 points", "4 points", "8 points", "detectable, points"]
    parts.append(_table(head, rows))
    held = "All bounds hold." if not broken else "Broken bounds: " + "; ".join(broken) + "."
    return "\n\n".join([*parts, held]) + "\n", broken


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulated coverage and errors of the protocol's verdicts.")
    parser.add_argument("--runs", type=int, default=8000, help="simulated pairs of rows a setting")
    parser.add_argument("--tables", type=int, default=1000, help="simulated tables a setting")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "verdicts.md")
    options = parser.parse_args()
    text, broken = report(options.runs, options.tables)
    options.out.write_text(text, encoding="utf-8")
    print(text)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
