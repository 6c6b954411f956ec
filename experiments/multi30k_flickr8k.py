"""Multi30K with photographs, English to German: does a translator use the picture (Elliott 2018; Wu et al. 2021)?

    python -m experiments table multi30k_flickr8k --data-dir DIR

The fourth of Multi30K whose photographs are in Flickr8k (6,914 sentences to train on, 239 to test): no published number
is of it. Photographs are 49 places of a frozen EfficientNet-Lite0. Beside the rows that see them stands one with noise
in their place, and the gate of the table asks each trained row again with the photograph of another sentence.
"""

from experiments._translation import gated, joined, noise_images, train, translator, with_feature_maps
from mmjax.datasets.multi30k.vocabulary import END_ID
from mmjax.experiment import Row, Table
from mmjax.translation import Translation

IDS = 10_090
MOST = 24  # units of a sentence, which 99 % do not exceed: a third less to compute than with the longest


def seeing(name, how, view=with_feature_maps):
    """A row that reads the photograph beside the sentence."""
    return Row(name, model=translator(IDS, how), view=view, versus="text only")


ROWS = (
    Row("text only", model=translator(IDS, joined()), streams=("text",)),
    seeing("gated fusion", gated()),
    seeing("gated fusion with a noise image", gated(), view=lambda dataset: noise_images(with_feature_maps(dataset))),
    seeing("concatenation of places and words", joined()),
)

TABLE = Table(
    title="Multi30K with photographs, English to German, test 2016 in Flickr8k, published units",
    dataset="multi30k_flickr8k",
    options={"max_words": MOST},
    task=Translation(END_ID, max_length=40),
    train=train(epochs=12, batch_size=64, rate=3e-3, warmup=400),
    seeds=1,
    rows=ROWS,
    note="A row is one seed: differences of a point of BLEU are within what seeds differ by.",
)
