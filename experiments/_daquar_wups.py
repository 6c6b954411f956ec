"""WUPS of a finished ``daquar`` table, with intervals over photographs.

python -m experiments._daquar_wups WORKDIR --wordnet FOLDER [--data-dir DIR] [--reduced]
"""

import argparse
import sys

import numpy as np

from mmjax import datasets
from mmjax.datasets.raw.words import stored_texts
from mmjax.errors import UsageError
from mmjax.evaluation.scores.answers import read_wordnet, wups
from mmjax.evaluation.store.records import RecordStore

DRAWS = 2_000


def interval(values, groups):
    """The 95 % interval of the mean of items ``[items]`` by drawing photographs anew."""
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    drawn = np.random.default_rng(0).integers(len(counts), size=(DRAWS, len(counts)))
    return np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975))


def main(argv=None):
    """Prints exact match and WUPS of every finished row on test, the mean over its seeds, in percent."""
    parser = argparse.ArgumentParser(prog="python -m experiments._daquar_wups", description=__doc__)
    parser.add_argument("workdir")
    parser.add_argument("--wordnet", help="folder of data.noun and index.noun (default: $MMJAX_WORDNET)")
    parser.add_argument("--data-dir", help="folder of the source files (default: $MMJAX_DATA_DIR)")
    parser.add_argument("--cache-dir")
    parser.add_argument("--reduced", action="store_true")
    args = parser.parse_args(argv)
    try:
        nouns, store = read_wordnet(args.wordnet), RecordStore(args.workdir)
        config = store.config()
        names = config["dataset"]["card"]["class_names"]
        folders = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
        source = datasets.source("daquar", "test", reduced=args.reduced, **folders)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    records = [source[i] for i in range(len(source))]
    truths = [answer for record in records for answer in stored_texts(record["answer"])]
    groups = np.concatenate([np.full(len(record["answer"]), record["group"]) for record in records])
    print("| row | exact | WUPS@0.9 | WUPS@0.0 |\n|---|---|---|---|")
    for row in (one["name"] for one in config["rows"] if store.records(one["name"])):
        given = store.logits(row, "test").argmax(-1)
        by_score = []
        for score in ("exact", 0.9, 0.0):
            each = [
                np.asarray([names[i] == t for i, t in zip(seed, truths, strict=True)], float)
                if score == "exact"
                else wups([names[i] for i in seed], truths, nouns, threshold=score)
                for seed in given
            ]
            low, high = interval(np.mean(each, 0), groups)
            by_score.append(f"{100 * np.mean(each):.2f} [{100 * low:.1f}, {100 * high:.1f}]")
        print(f"| {row} | {' | '.join(by_score)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
