"""Configurations as plain data: equal ones describe equally, changes are typed, wrong names list the right ones."""

import functools

import numpy as np
import optax
import pytest

from mmjax import fusion
from mmjax.errors import UsageError
from mmjax.experiment.settings import apply_settings, describe, digest
from mmjax.experiment.table import Row, Table
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.tasks import Classification
from mmjax.training import Train


def model(dim=8):
    return Multimodal({}, fusion.Concat(dim), ClassificationHead(3))


def table(**arguments):
    rows = [Row("a+b", model=model()), Row("other", model=model(), train=Train(epochs=3))]
    return Table(title="t", dataset="digits", task=Classification(3), rows=rows, **arguments)


def test_equal_configurations_have_equal_digests_and_any_change_changes_them():
    assert digest(table()) == digest(table())
    changed = [
        table(seeds=6),
        table(train=Train(learning_rate=2e-3)),
        table(train=Train(optimizer=functools.partial(optax.adamw, weight_decay=2e-2))),
        apply_settings(table(), ["rows.a+b.model.fusion.dim=9"]),
    ]
    assert len({digest(value) for value in [table(), *changed]}) == 5


def test_a_description_holds_no_address():
    text = str(describe(table()))
    assert "0x" not in text and "mmjax.fusion.concat.Concat" in text and "adamw" in text


def test_settings_reach_dataclasses_partials_modules_and_rows():
    settings = ["train.epochs=7", "train.learning_rate=1", "train.optimizer.weight_decay=0.5", "train.select=accuracy"]
    changed = apply_settings(table(), [*settings, "rows.other.model.head.hidden_dims=(4,5)", "seeds=2"])
    assert (changed.train.epochs, changed.train.learning_rate, changed.seeds) == (7, 1.0, 2)
    assert isinstance(changed.train.learning_rate, float)
    assert changed.train.optimizer.keywords == {"weight_decay": 0.5}
    assert changed.rows[1].model.head.hidden_dims == (4, 5) and changed.rows[0] == table().rows[0]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.epoch=3", ["epoch", "epochs", "batch_size"]),
        ("rows.nobody.train=1", ["nobody", "a+b", "other"]),
        ("train.epochs=many", ["train.epochs", "int", "many"]),
        ("train.epochs=2.5", ["train.epochs", "float"]),
        ("train.epochs=0", ["train.epochs", "at least 1"]),
        ("epochs", ["path.to.field=value"]),
        ("train.epochs.deep=3", ["nothing to set"]),
    ],
)
def test_a_wrong_setting_says_what_would_be_right(setting, words):
    with pytest.raises(UsageError) as error:
        apply_settings(table(), [setting])
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_rows_are_unique_reachable_and_complete():
    row = Row("one", model=model())
    with pytest.raises(UsageError, match="twice"):
        Table(title="t", dataset="digits", task=Classification(3), rows=[row, row])
    with pytest.raises(UsageError, match="dot"):
        Row("a.b", model=model())
    with pytest.raises(UsageError, match="model= or fit="):
        Row("neither")
    with pytest.raises(UsageError, match="no row 'x'"):
        Table(title="t", dataset="digits", task=Classification(3), rows=[Row("vote", fit=print, members=("x",))])


def test_members_run_first_and_extra_rows_only_by_name():
    rows = [Row("vote", fit=print, members=("one",)), Row("one", model=model()), Row("long", model=model())]
    made = Table(title="t", dataset="digits", task=Classification(3), rows=rows, extra=("long",))
    assert [row.name for row in made.chosen(None)] == ["one", "vote"]
    assert [row.name for row in made.chosen(["vote"])] == ["one", "vote"]
    assert [row.name for row in made.chosen(["long"])] == ["long"]


class Threshold:
    """A callable with a state, as a user may write it."""

    def __init__(self, value):
        self.value = value

    def __call__(self, dataset):
        return dataset

    def view(self, dataset):
        return dataset


def test_what_a_users_callable_holds_is_part_of_the_configuration():
    def of(view):
        return digest(Row("a", model=model(), view=view))

    def made(offset):
        return lambda dataset, scale=offset: (dataset, offset, scale)

    assert of(made(1)) == of(made(1)) and of(made(1)) != of(made(2))
    assert of(Threshold(1)) == of(Threshold(1)) and of(Threshold(1)) != of(Threshold(2))
    assert of(Threshold(1).view) == of(Threshold(1).view) and of(Threshold(1).view) != of(Threshold(2).view)
    assert of(Threshold(np.arange(3))) != of(Threshold(np.arange(3) + 1))
    with pytest.raises(UsageError, match=r"generator object .* cannot be described"):
        of(Threshold(one for one in (1, 2)))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.clip_norm=big", ["clip_norm", "float or None"]),
        ("train.learning_rate=None", ["learning_rate", "float"]),
        ("train.optimizer=sgd", ["optimizer", "only in the table's file"]),
        ("rows=(1,2)", ["rows", "only in the table's file"]),
    ],
)
def test_declared_types_are_kept_where_the_value_does_not_tell(setting, words):
    with pytest.raises(UsageError) as error:
        apply_settings(table(), [setting])
    assert all(word in str(error.value) for word in words)
    assert apply_settings(table(), ["train.loss_weights.kl=0.5"]).train.loss_weights == {"kl": 0.5}
    assert apply_settings(table(), ["train.clip_norm=1"]).train.clip_norm == 1.0
    assert apply_settings(table(), ["folds=(0,1)", "options.new=all"]).options == {"new": "all"}
