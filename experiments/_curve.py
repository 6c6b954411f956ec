"""BLEU by update of the rows of a translation table, at equal updates; resumes where it was killed.

    python -m experiments._curve multi30k --data-dir DIR --workdir DIR2 --updates 1000 [--rows "text only"]
    python -m experiments._curve multi30k --workdir DIR2 --report

Batches hold about the same number of tokens and are of few shapes; they follow from the seed and the update alone. All
rows see the same batches. Generation is greedy, on the whole test set. DIR2 holds a folder for each row: ``state.npz``
(all that training changes) and ``curve.json``; the curves of all rows stand in ``curve.md`` and ``curve.png``.
"""

import argparse
import dataclasses
import functools
import io
import itertools
import json
import pathlib
import sys
import time

import jax
import numpy as np

from mmjax import tables
from mmjax.buckets import plan_buckets
from mmjax.errors import UsageError
from mmjax.evaluation.report.plots import style
from mmjax.evaluation.scores import score
from mmjax.experiment.data import load_dataset, row_data
from mmjax.files import replace_file
from mmjax.hypotheses import unpack
from mmjax.stream import Batch, Stream
from mmjax.training import Train, init_state, make_optimizer, make_train_step
from mmjax.translation import inverse_square_root

SHAPES, SEED = 3, 0


def plan(batch, tokens):
    """At most three shapes with the least padding, each of about so many tokens of source and target."""
    lengths = {"text": batch.streams["text"].mask.sum(1), "target": batch.target["tokens"].mask.sum(1)}
    return plan_buckets(lengths, shapes=SHAPES, tokens=tokens)


def schedule(buckets, epoch):
    """The batches of an epoch in random order: ``[(shape, numbers, which of them count)]``; each pair stands once."""
    return buckets.schedule(np.random.default_rng([SEED, epoch]))


def cut(batch, numbers, counts, lengths):
    """Some rows, source and target cut to their lengths, without the text of the references."""

    def some(stream, to=None):
        return Stream(np.asarray(stream.values)[numbers][:, :to], np.asarray(stream.mask)[numbers][:, :to])

    streams = {name: some(one, lengths["text"] if name == "text" else None) for name, one in batch.streams.items()}
    target = {"tokens": some(batch.target["tokens"], lengths["target"])}
    weight = counts.astype(np.float32)
    index = np.where(counts, numbers, -1).astype(np.int32)
    return Batch(streams, target, weight, index, index)


def speaker(model, task, *, rows=100):
    """``(variables, data, split) -> (BLEU in percent, packed hypotheses)`` of what the model says greedily."""
    greedy = dataclasses.replace(task, beams=1, n_best=1, max_length=min(task.max_length, 45))
    run = jax.jit(lambda variables, batch: greedy.generate(model, variables, batch))
    return functools.partial(_bleu, greedy, run, rows)


def _bleu(greedy, run, rows, variables, data, split):
    batch, said = data.splits[split], []
    order = np.argsort(batch.streams["text"].mask.sum(1), kind="stable")  # short ones are not kept waiting
    lengths = {"text": batch.streams["text"].length, "target": 1}
    for start in range(0, batch.size, rows):
        place = start + np.arange(rows)
        numbers = order[np.where(place < batch.size, place, 0)]
        one = cut(batch, numbers, place < batch.size, lengths).replace(target=None)
        found = jax.device_get(run(variables, one))
        real = int((place < batch.size).sum())
        said.append(jax.tree.map(lambda x, real=real: x[:real], found))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *said)
    packed = greedy.spell(jax.tree.map(lambda x: x[np.argsort(order)], joined), data.tokenizers)
    value = score("bleu_tokens")
    return 100 * float(value.of(packed[None], batch.target)[0]), packed


def save(path, tree, **more):
    """All leaves of a tree, whole or not at all."""
    data = io.BytesIO()
    leaves = {f"leaf{place}": np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(tree))}
    np.savez(data, **leaves, **{name: np.asarray(value) for name, value in more.items()})
    replace_file(path, data.getbuffer())


def restore(path, like):
    """The tree that ``save`` wrote, of the same structure."""
    with np.load(path) as file:
        leaves = [file[f"leaf{place}"] for place in range(len(jax.tree.leaves(like)))]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def run_row(table, row, dataset, folder, args):
    """Trains a row up to ``args.updates``, measuring every ``args.every`` of them."""
    folder.mkdir(parents=True, exist_ok=True)
    data, model, task = row_data(dataset, row), row.network, row.task or table.task
    train = data.splits["train"]
    buckets = plan(train, args.tokens)
    settings = Train(
        learning_rate=args.rate,
        optimizer=(row.train or table.train).optimizer,
        schedule=lambda rate, total: inverse_square_root(rate, total, warmup=args.warmup),
    )
    tx = make_optimizer(settings, args.updates)
    sample = cut(train, np.arange(2), np.ones(2, bool), buckets.lengths[0])
    state = init_state(model, tx, sample.streams, jax.random.key(SEED), targets=sample.target, task=task)
    measure = speaker(model, task)
    step = jax.jit(make_train_step(model, task, tx), donate_argnums=0)
    how = {name: getattr(args, name) for name in ("tokens", "rate", "warmup", "every")}
    how |= {
        "table": args.table,
        "row": row.name,
        "shapes": [list(buckets.rows), list(buckets.lengths)],
        "data": dataset.sha256,
    }
    how = json.loads(json.dumps(how))
    path, curve = folder / "curve.json", {"how": how, "points": []}
    if path.is_file():
        curve = json.loads(path.read_text())
        if curve["how"] != how:
            raise UsageError(f"{folder} holds a run of other settings: {curve['how']}, not {how}")
    if (folder / "state.npz").is_file():
        state = restore(folder / "state.npz", state)
    params = sum(x.size for x in jax.tree.leaves(state.params))
    print(f"{row.name}: {params:,} parameters, {buckets.report()}, from update {int(state.step)}", flush=True)
    done, epoch, batches, first = int(state.step), 0, schedule(buckets, 0), 0
    losses, clock, tokens = [], time.perf_counter(), 0
    while done < args.updates:
        while done - first >= len(batches):
            first, epoch = first + len(batches), epoch + 1
            batches = schedule(buckets, epoch)
        shape, numbers, counts = batches[done - first]
        batch = cut(train, numbers, counts, buckets.lengths[shape])
        state, metrics = step(state, batch, jax.random.key(SEED + 1))
        losses.append(float(metrics["loss"].total / metrics["loss"].weight))
        tokens += int(metrics["loss"].weight)
        done += 1
        if done % args.every and done != args.updates:
            continue
        seconds = (time.perf_counter() - clock) / len(losses)
        value, packed = measure(state.variables, data, "test")
        point = {"update": done, "bleu": value, "loss": float(np.mean(losses)), "skipped": int(state.skipped)}
        point |= {"tokens_per_update": tokens / len(losses), "seconds_per_update": seconds}
        curve["points"] = [p for p in curve["points"] if p["update"] < done] + [point]
        curve["said"] = unpack(packed)[0][:5, 0].tolist()
        replace_file(path, json.dumps(curve, indent=1).encode())  # first: a run killed here measures this update again
        save(folder / "state.npz", state)
        line = f"update {done}, loss {point['loss']:.3f}, BLEU {value:.2f}, {seconds:.2f} s an update"
        print(f"{row.name}: {line}", flush=True)
        losses, clock, tokens = [], time.perf_counter(), 0


def points(table, workdir):
    """BLEU by update of each row that was begun."""
    found = {}
    for row in table.rows:
        path = workdir / name_of(row) / "curve.json"
        if path.is_file():
            found[row.name] = {p["update"]: p["bleu"] for p in json.loads(path.read_text())["points"]}
    if not found:
        raise UsageError(f"no curve in {workdir}")
    return found


@style.styled
def figure(found):
    """The curves side by side."""
    looks = dict(zip(found, itertools.cycle((style.SINGLE, *style.FUSIONS))))
    handles, height = style.wrapped_legend(looks)
    sheet = style.Sheet(1.85 + height)
    axes = sheet.axes(0.45, 0.08, style.WIDTH - 0.57, 1.35)
    for name, one in found.items():
        look = looks[name]
        line = {"color": look.color, "linestyle": look.dash, "marker": look.marker, "markersize": 3, "linewidth": 1}
        axes.plot(list(one), list(one.values()), clip_on=False, **line)
    axes.set_ylim(bottom=0)
    style.dress(axes, "update", "BLEU on test", grid="y")
    sheet.legend(handles, bottom=0.02)
    return sheet.figure


def report(table, workdir):
    """The curves in numbers, beside the published number; ``curve.md`` and ``curve.png``."""
    found = points(table, workdir)
    lines = ["| update | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for update in sorted({update for one in found.values() for update in one}):
        values = [f"{one[update]:.2f}" if update in one else "" for one in found.values()]
        lines.append(f"| {update:,} | " + " | ".join(values) + " |")
    for row in table.rows:
        if row.paper is not None and row.name in found:
            last = list(found[row.name].values())[-1]  # the best of them would be chosen on test
            reached = "reached" if last >= row.paper.value else "not reached: needs an accelerator"
            lines.append(
                f"\n{row.name}: published {row.paper.value} ({row.paper.source}); here {last:.2f} at the end, {reached}"
            )
    text = "\n".join(lines) + "\n"
    replace_file(workdir / "curve.md", text.encode())
    replace_file(workdir / "curve.png", style.png(figure(found)))
    return text


def name_of(row):
    """Folder of a row."""
    return row.name.replace(" ", "-")


def main(arguments):
    """The command."""
    parser = argparse.ArgumentParser("python -m experiments._curve", description=__doc__.partition("\n")[0])
    parser.add_argument("table")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--rows", default="", help="names separated by commas (default: all)")
    parser.add_argument("--data-dir")
    parser.add_argument("--cache-dir")
    parser.add_argument("--report", action="store_true", help="print and draw the curves, train nothing")
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=100, help="updates between two measurements")
    parser.add_argument("--tokens", type=int, default=2_048, help="of a batch, both sides and padding among them")
    parser.add_argument("--rate", type=float, default=3e-3, help="the highest learning rate")
    parser.add_argument("--warmup", type=int, default=400)
    args = parser.parse_args(arguments)
    try:
        table = tables.find(args.table)
        chosen = table.pick([one.strip() for one in args.rows.split(",") if one.strip()]) if args.rows else table.rows
        if not args.report:
            whole = dataclasses.replace(table, options={k: v for k, v in table.options.items() if k != "max_words"})
            dataset = load_dataset(whole, data_dir=args.data_dir, cache_dir=args.cache_dir)
            for row in chosen:
                run_row(whole, row, dataset, args.workdir / name_of(row), args)
        print(report(table, args.workdir))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
