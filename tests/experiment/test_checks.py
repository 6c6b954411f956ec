"""What a table of one's own data gets wrong is told before anything is trained, in words that mend it."""

import numpy as np
import pytest

from mmjax.datasets import from_arrays
from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.experiment import Row, Table
from mmjax.experiment.checks import check_model
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead, RegressionHead
from mmjax.models import Multimodal
from mmjax.tasks import Classification, Regression
from mmjax.training import Train

N = 30
LABEL = np.arange(N) // 5 % 3
X = np.random.RandomState(0).randn(N, 4)
CLASSES = Multimodal({"a": FeatureMLP(4)}, Concat(4), ClassificationHead(3))
SCORES = CLASSES.clone(head=RegressionHead())


@pytest.mark.parametrize(
    ("model", "task", "target", "options", "words"),
    [
        (CLASSES, Classification(3), LABEL + 0.5, {}, ["mine has scores", "classes: integers or names"]),
        (SCORES, Regression(), LABEL, {}, ["3 classes (integers)", "scores=True", "task='scores'"]),
        (CLASSES, Classification(3), LABEL, {"primary_metric": "mae"}, ["'mae'", "Classification", "f1_macro"]),
        (CLASSES, Classification(3), LABEL, {"primary_metric": "bleu"}, ["'bleu'", "f1_macro, f1_weighted"]),
        (CLASSES, Classification(4), LABEL, {}, ["3 classes", "task.num_classes: 4"]),
    ],
)
def test_labels_task_and_metric_fit_each_other(model, task, target, options, words):
    data = from_arrays({"a": X}, target, name="mine", **options)
    with pytest.raises(UsageError) as error:
        check_model(model, task, Train(), data)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_a_metric_of_the_task_may_be_the_primary_one():
    check_model(CLASSES, Classification(3), Train(), from_arrays({"a": X}, LABEL, primary_metric="f1_macro"))


def test_a_weight_is_of_a_loss_that_the_model_sows():
    data = from_arrays({"a": X}, LABEL)
    with pytest.raises(UsageError, match=r"loss_weights names 'kl', no loss that the model sows; its modules sow none"):
        check_model(CLASSES, Classification(3), Train(loss_weights={"kl": 0.1}), data)


def test_integer_scores_are_scores_where_it_is_told():
    check_model(SCORES, Regression(), Train(), from_arrays({"a": X}, LABEL, scores=True))


def test_a_table_has_seeds_and_its_rows_the_roles_of_their_names():
    data = from_arrays({"a": X}, LABEL)
    rows = [Row(name, model=CLASSES) for name in ("a", "concatenation", "joint transformer", "matched")]
    table = Table("mine", data, Classification(3), rows)
    assert [row.role for row in table.rows] == ["", "concatenation", "joint transformer", ""]
    with pytest.raises(UsageError, match="seeds of the table must be at least 1, got 0"):
        Table("mine", data, Classification(3), rows, seeds=0)
    with pytest.raises(UsageError, match="seeds of row 'a' must be at least 1, got 0"):
        Table("mine", data, Classification(3), [Row("a", model=CLASSES, seeds=0)])
