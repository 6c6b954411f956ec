"""Multi30K, English to German: Transformer-tiny with and without a noise image (Wu et al., ACL 2021).

    python -m experiments table multi30k --data-dir DIR
    python -m experiments._curve multi30k --data-dir DIR --workdir DIR2 --updates 1000

The first is the published recipe (8,000 updates of 8,192 tokens) and needs an accelerator. The second trains each row
for some updates of few tokens, resumes where it was killed, and prints BLEU by update beside the published 41.02: on
two shared cores that is not reached. Sentences longer than 40 units are cut in the table, none in the curve.
"""

import functools

from experiments._translation import DIM, gated, joined, noise_images, train, translator
from mmjax.datasets.multi30k.vocabulary import END_ID
from mmjax.experiment import Paper, Row, Table
from mmjax.translation import Translation

IDS = 10_106  # of the published units, those that only a merge passes through among them
RECIPE = "LividWo/Revisit-MMT (Wu et al., ACL 2021), test 2016, multi-bleu of lower-cased tokens, beam 5, mean of 10 "
TINY = Paper(41.02, RECIPE + "checkpoints", reason="norms before each part, the best epoch instead of a mean of ten")
GATED = Paper(41.96, RECIPE + "checkpoints, with ResNet-50 features of the photographs", cannot_run="no photographs")
NOISE = "a gain over text only is regularisation: noise says nothing"

ROWS = (
    Row("text only", model=translator(IDS, joined()), streams=("text",), paper=TINY),
    Row(
        "gated fusion with a noise image",
        model=translator(IDS, gated()),
        view=functools.partial(noise_images, width=DIM),
        notes=NOISE,
    ),
    Row(
        "concatenation of words and a noise image",
        model=translator(IDS, joined()),
        view=functools.partial(noise_images, width=DIM),
        notes=NOISE,
    ),
)

TABLE = Table(
    title="Multi30K, English to German, test 2016, published units",
    dataset="multi30k",
    options={"max_words": 40},
    task=Translation(END_ID),
    train=train(epochs=150, batch_size=512),
    seeds=1,
    rows=ROWS,
    references=[("gated fusion", GATED)],
)
