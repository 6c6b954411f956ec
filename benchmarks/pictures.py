"""Throughput of the decoding of Flickr8k's photographs on the host, as the streaming feed reads them.

    python -m benchmarks.pictures [DATA_DIR]

Photographs of 128x128 pixels with five captions each, in batches of 64, one pass over the validation split: kept whole,
or halved to 64x64, with no threads and with those that the feed takes by default. A busy machine gives less.
"""

import itertools
import sys
import time

BATCH = 64


def main(data_dir: str | None) -> None:
    """Prints photographs a second."""
    from mmjax import datasets
    from mmjax.data import Records, ordered_batches
    from mmjax.datasets.flickr8k import example_of, items_of
    from mmjax.datasets.raw.words import fit_tokenizer

    source = datasets.source("flickr8k", "validation", data_dir=data_dir)
    texts = [caption.decode() for row in source.__getitems__(range(len(source))) for caption in row["text"]]
    tokenizer = fit_tokenizer(texts)
    for size, threads in itertools.product((128, 64), (0, 8)):
        records = Records(source, example_of(tokenizer, size), items_of(size))
        list(itertools.islice(ordered_batches(records, BATCH, threads=threads), 2))  # opens the files
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in ordered_batches(records, BATCH, threads=threads):
            pass
        wall, busy = time.perf_counter() - clock, time.process_time() - cpu
        print(
            f"{size} pixels, {threads} threads: {len(source) / wall:,.0f} photographs a second, "
            f"{1e3 * busy / len(source):.2f} ms of processor time each"
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
