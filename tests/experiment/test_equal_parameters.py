"""As many parameters as the fusion: within 5 % of them, nearest of all widths, and an error where none will do."""

import jax
import pytest

from mmjax import fusion
from mmjax.encoders import Recurrent
from mmjax.errors import UsageError
from mmjax.experiment import Row
from mmjax.experiment.baselines import matched_rows
from mmjax.experiment.data import load_dataset, row_data
from mmjax.experiment.equal_parameters import WIDEST, count_params, resolve
from mmjax.experiment.table import Matched
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.tables import digits, synthetic, synthetic_gaussian
from tests.experiment import small

DATA = small.arrays()


def counted(model, names=("left", "right")):
    """Parameters of a model that was truly made."""
    streams = {name: DATA.splits["train"].streams[name] for name in names}
    variables = jax.jit(model.init)(jax.random.key(0), streams)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def given(build, like=None):
    rows = [Row("joined", model=like or small.model()), *matched_rows(build, ("left",), like="joined")]
    return small.table(dataset=DATA, rows=rows)


def test_parameters_are_counted_from_shapes():
    assert count_params(small.model(), DATA) == counted(small.model()) == (8 * 4 + 4) + (4 * 3 + 3)


def by_hand(width):
    """A modality of 4 numbers, a hidden layer of some width, one of 4, a head of 3 classes."""
    return (4 + 1) * width + (width + 1) * 4 + 3 * 4 + 3


@pytest.mark.parametrize("dim", [8, 24, 100])
def test_the_width_is_the_nearest_of_all(dim):
    table = given(small.alone, small.model(dim))
    wanted = 2 * 5 * dim + (2 * dim + 1) * dim + 3 * dim + 3
    row = resolve(table.rows[1], table, DATA)
    nearest = min(range(1, 4000), key=lambda width: abs(by_hand(width) - wanted))
    assert row.model.fusion.hidden_dims == (nearest,) and abs(by_hand(nearest) - wanted) <= 0.05 * wanted
    assert count_params(row.model, row_data(DATA, row)) == by_hand(nearest)
    assert (row.streams, row.role, row.baseline) == (("left",), "matched", False)
    assert resolve(table.rows[0], table, DATA) is table.rows[0]


@pytest.mark.parametrize("module", [digits, synthetic, synthetic_gaussian])
def test_the_matched_rows_of_the_embedded_tables_are_within_5_percent(module):
    table, data = module.TABLE, load_dataset(module.TABLE)
    matched = [row for row in table.rows if isinstance(row.model, Matched)]
    assert {row.streams[0] for row in matched} == set(data.streams)
    for row in matched:
        wanted = count_params(table.pick([row.model.like])[0].model, data)
        assert abs(count_params(resolve(row, table, data).model, row_data(data, row)) / wanted - 1) <= 0.05


def fixed(width, dim=4):
    """As large whatever the width."""
    return small.model(dim)


def test_where_no_width_will_do_it_is_said():
    with pytest.raises(UsageError, match=r"row 'left, as many parameters': it cannot have the \d+ parameters of"):
        table = given(lambda name, width: fixed(width), small.model(dim=40))
        resolve(table.rows[1], table, DATA)
    asked = []

    def wide(name, width):
        asked.append(width)
        return fixed(width, 400)

    with pytest.raises(UsageError, match=r"cannot have the 51 parameters of 'joined': with width 1 it has"):
        table = given(wide)
        resolve(table.rows[1], table, DATA)
    assert max(asked) <= WIDEST


def test_steps_of_the_width_that_are_too_coarse_are_refused():
    """Widths of multiples of 40: the nearest has far more parameters than 51."""

    def coarse(name, width):
        return Multimodal({}, fusion.Concat(40 * width), ClassificationHead(3))

    table = given(coarse)
    with pytest.raises(UsageError, match=r"cannot have the 51 parameters of 'joined': with width 1 it has \d+"):
        resolve(table.rows[1], table, DATA)


def test_what_a_module_says_of_a_width_is_said_with_the_row():
    table = given(lambda name, width: Multimodal({name: Recurrent(width, bidirectional=True)}, fusion.Concat(4),
                                                 ClassificationHead(3)))  # fmt: skip
    with pytest.raises(UsageError, match=r"row 'left, as many parameters': two directions halve self\.dim=") as error:
        resolve(table.rows[1], table, DATA)
    assert "\n" not in str(error.value)


def test_what_it_is_to_match_must_be_a_network_of_given_width():
    rows = [Row("voted", fit=small.guess), *matched_rows(small.alone, ("left",), like="voted")]
    with pytest.raises(UsageError, match="'left, as many parameters' is to match 'voted', which is no network"):
        small.table(dataset=DATA, rows=rows)
    row = matched_rows(small.alone, ("left",), like="joined")[0]
    with pytest.raises(UsageError, match="width of row 'left, as many parameters' follows from the data"):
        _ = row.network
    with pytest.raises(UsageError, match="'fit' is no network"):
        _ = Row("fit", fit=small.guess).network
    with pytest.raises(UsageError, match="'net' is a network"):
        _ = Row("net", model=small.model()).combination
