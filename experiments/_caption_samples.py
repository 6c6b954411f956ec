"""Test photographs with what a trained run of ``flickr8k_captions`` says of them, and where it looked at each word.

    python -m experiments._caption_samples WORKDIR --data-dir DIR

Writes ``WORKDIR/samples.png``, which shows photographs and must stay on the machine, and prints the words alone.
Photographs are evenly spread over the test split, in its order: none is chosen.
"""

import argparse
import pathlib
import sys

import jax
import numpy as np

from mmjax import datasets
from mmjax.answers.ask import places_shape
from mmjax.answers.trained import load_trained
from mmjax.captioning import PerCaption
from mmjax.errors import UsageError
from mmjax.evaluation.interpretation.captions import Sample, caption_sheet, word_attention
from mmjax.evaluation.interpretation.charts import png
from mmjax.hypotheses import decode_texts
from mmjax.stream import Batch, Stream


def fits(row, inputs):
    """A captioner that sees something."""
    return row.view is None and isinstance(getattr(row.model, "head", None), PerCaption)


def samples(trained, dataset, count):
    """``count`` samples of the test split."""
    batch = dataset.splits["test"]
    some = np.linspace(0, batch.size - 1, count).round().astype(int)
    pixels = np.asarray(batch.streams["image"].values)[some]
    streams = trained.prepare({"image": Stream(pixels, np.ones(pixels.shape[:2], bool))})
    number = np.arange(count, dtype=np.int32)
    empty = Batch(streams, None, np.ones(count, np.float32), number, number)
    said = jax.device_get(jax.jit(lambda v, b: trained.task.generate(trained.model, v, b))(trained.variables, empty))
    first = Stream(said["ids"][:, 0], said["mask"][:, 0])
    weights = word_attention(trained.model, trained.variables, streams, first)
    tokenizer = dataset.tokenizers[trained.task.tokenizer]
    wanted = decode_texts(jax.tree.map(lambda x: np.asarray(x)[some], batch.target["text"]))
    for place in range(count):
        words = [tokenizer.id_to_token(int(i)) for i in first.values[place][first.mask[place]]]
        shape = places_shape(weights.shape[-1], pixels.shape[2:])
        maps = weights[place, : len(words)].reshape(len(words), *shape)
        yield Sample(pixels[place, 0], words, maps, wanted[place])


def main(arguments):
    """Writes the sheet and prints the words."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir")
    parser.add_argument("--row")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--data-dir")
    args = parser.parse_args(arguments)
    trained = load_trained(args.workdir, fits, "says what is in a picture", args.row)
    table = trained.table
    dataset = datasets.load(table.dataset, data_dir=args.data_dir, **table.options)
    found = list(samples(trained, dataset, args.count))
    out = pathlib.Path(args.workdir) / "samples.png"  # not among the plots, which are published
    out.write_bytes(png(caption_sheet(found, title=trained.row.name)))
    for one in found:
        print(f"* **{' '.join(one.words)}** ({'; '.join(one.wanted[:2])})")
    print(f"by {trained.row.name!r}, seed {trained.seed}; with photographs: {out}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"error: {error}")
