"""Gaussians independent given the class, with known posteriors: how near the Bayes accuracy? (embedded data)

    python -m experiments table synthetic_gaussian

Three modalities, four classes. Given the class they are independent, so the prior-corrected product of *exact*
posteriors is optimal; trained experts are not exact, and the table shows how far that takes them. Bayes accuracies are
known and stand beside the rows.
"""

from mmjax.experiment import Table
from mmjax.tables.synthetic import rows
from mmjax.tasks import Classification
from mmjax.training import Train

TABLE = Table(
    title="Synthetic Gaussians: independent given the class, Bayes accuracy known",
    dataset="synthetic",
    options={"mode": "gaussian", "modalities": 3},
    task=Classification(num_classes=4),
    train=Train(epochs=20, batch_size=128, learning_rate=1e-3),
    seeds=5,
    trials=5,
    rows=rows(("a", "b", "c"), 4),
)
