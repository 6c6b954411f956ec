"""A small finished work directory with known content, and ways to make it."""

import numpy as np

from mmjax.evaluation import RecordStore, make_record

SEEDS = (0, 1, 2, 3, 4)
ITEMS = {"validation": 40, "test": 60}
QUALITY = {"text": 1.4, "audio": 0.2, "both": 1.5, "voted": 1.6, "other text": 1.0, "other both": 5.0}


def config(**changes):
    """A table of two sections; ``voted`` is no model, ``missing`` never runs."""
    paper = {"value": 80.3, "source": "Somebody 2017, table 2", "checked": False}
    rows = [
        {"name": name, "section": "second" if name.startswith("other") else "first", "single": single,
         "streams": ["text"] if "text" in name else ["audio"] if single else ["audio", "text"],
         "kind": "fit" if name == "voted" else "model", "paper": paper if name == "both" else None,
         "config_hash": f"hash of {name}"}
        for name, single in [("text", True), ("audio", True), ("both", False), ("voted", False), ("missing", False),
                             ("other text", True), ("other both", False)]
    ]  # fmt: skip
    card = {"name": "toy", "group": "video", "groups_cross": False}
    return {
        "table": "toy", "title": "A toy", "note": "Nothing real.", "primary": "accuracy", "majority": 0.55,
        "dataset": {"name": "toy", "version": "1.0.0", "sha256": "abc", "split_id": "by video", "card": card},
        "chance": 0.5, "seeds": list(SEEDS), "rows": rows,
        "references": [{"name": "published | elsewhere", "value": 81, "source": "a book", "checked": True}],
        "env": {}, **changes,
    }  # fmt: skip


def targets():
    """Two classes, twelve videos of which five test items belong to each."""
    draw = np.random.default_rng(0)
    return {k: {"target": draw.integers(0, 2, n), "group": np.arange(n) % 12} for k, n in ITEMS.items()}


def write_toy_row(store, name, *, config_hash=None, seeds=SEEDS, timing=1.0):
    """One row whose logits depend on its name alone."""
    draw = np.random.default_rng(sum(map(ord, name)))
    logits, accuracy = {}, {}
    for split, truth in targets().items():
        right = 2 * truth["target"] - 1
        noise = draw.normal(size=(1, len(right))) + 0.3 * draw.normal(size=(len(SEEDS), len(right)))
        margin = (noise + QUALITY.get(name, 1) * right)[: len(seeds)]
        logits[split] = np.stack([-margin, margin], axis=-1).astype(np.float32)
        accuracy[split] = (logits[split].argmax(-1) == truth["target"]).mean(1)
    records = [
        make_record(
            row=name, streams=["audio", "text"], dataset={"name": "toy"}, seed=seed, selection_rule="best epoch",
            method={"name": name, "config_hash": config_hash or f"hash of {name}", "params": 7, "trials": 1},
            epoch=2, test_selected=accuracy["test"][i] + 0.01, primary="accuracy",
            metrics={"accuracy": accuracy["test"][i]}, validation_metrics={"accuracy": accuracy["validation"][i]},
            cost={"params": 12_345, "flops": 2e6}, env={"device": "cpu"},
        )
        for i, seed in enumerate(seeds)
    ]  # fmt: skip
    history = {"validation/accuracy": draw.uniform(0.5, 0.7, (3, len(seeds)))}
    store.write_row(name, records, logits, {"total_seconds": timing}, history)
    return records, logits


def write_logits(store, name, logits):
    """Other logits of a row, with the metrics that follow from them."""
    records = []
    for place, record in enumerate(store.records(name)):
        right = {k: (logits[k][place].argmax(-1) == store.targets(k)[0]).mean() for k in ITEMS}
        metrics = {"metrics": {"accuracy": right["test"]}, "validation_metrics": {"accuracy": right["validation"]}}
        records.append({**record, **metrics})
    store.write_row(name, records, logits, {})


def toy(workdir, names=tuple(QUALITY), **changes):
    """A work directory with these rows finished."""
    store = RecordStore(workdir)
    store.write_config(config(**changes))
    store.write_targets(targets())
    for name in names:
        write_toy_row(store, name)
    return store
