"""Bits as labels, shared, of one modality, or the XOR of both: which fusion can learn which? (embedded data)

    python -m experiments table synthetic_labels

Own table, no paper: the data of ``synthetic`` with four labels an item in place of sixteen classes. One modality alone
can know the shared bit and its own; a sum over modalities all but the XOR; only joint models all four. Scored by micro
F1, AUROC beside it in the records. Expect 74 to 75 % of one modality, 87 to 88 % of sums, 100 % of joint models: five
minutes of processor time (``experiments/results/synthetic_labels``).
"""

from mmjax.experiment import Table
from mmjax.tables.synthetic import NAMES, rows
from mmjax.tasks import MultiLabel
from mmjax.training import Train

TABLE = Table(
    title="Synthetic bits, each a label: shared, only in a, only in b, XOR",
    dataset="synthetic",
    options={"labels": "bits"},
    task=MultiLabel(num_classes=4),
    train=Train(epochs=40, batch_size=128, learning_rate=3e-3),
    seeds=5,
    trials=5,
    rows=rows(NAMES, 4, labels=True),
)
