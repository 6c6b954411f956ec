"""Detects stored results of other code than the present one, and decides what to do with them."""

from collections.abc import Iterable, Sequence
from typing import Any

from mmjax.datasets.views import refit_splits
from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment.data import row_data
from mmjax.experiment.streaming_rows import fit_seeds
from mmjax.experiment.table import Row, Table
from mmjax.experiment.trials import describe_trials, fit_chosen, penalties, search_fit
from mmjax.resident import Prepared, prepare
from mmjax.source_code import Definitions, changed_definitions, code_digest, reached_definitions
from mmjax.typing import Mapping

__all__ = ["ON_CHANGE", "changed_rows", "check_choice", "refuse", "same_but_code", "training_code"]

ON_CHANGE = {
    "ask": "stop and say what differs",
    "keep": "use stored results",
    "again": "compute them anew",
}
"""What to do with results of other code."""
NETWORK = (prepare, Prepared, fit_chosen, describe_trials, row_data, refit_splits)
STREAMED = (fit_seeds, row_data)
FIT = (search_fit, penalties, row_data)
SHOWN = 6


def check_choice(on_change: str) -> None:
    """Passes if it is a key of ``ON_CHANGE``.

    Raises:
      UsageError: listing the keys.
    """
    if on_change not in ON_CHANGE:
        raise UsageError(f"on_change is {', '.join(ON_CHANGE)}, got {on_change!r}")


def training_code(table: Table, row: Row) -> Definitions:
    """The definitions behind the scores of a row: its method, view and training, and those of its members."""
    reached = reached_definitions(
        row.model, row.fit, row.view, table.view, row.task or table.task, row.train or table.train,
        *(FIT if row.model is None else STREAMED if table.streams_batches(row) else NETWORK),
    )  # fmt: skip
    for member in table.pick(row.members):
        reached |= training_code(table, member)
    return reached


def changed_rows(store: RecordStore, codes: Mapping[str, Definitions], names: Iterable[str]) -> dict[str, list[str]]:
    """The finished rows that other code has trained, with the definitions that differ.

    Args:
      codes: present definitions by row.
      names: of finished rows.
    """
    changed = {}
    for name in names:
        (stored,) = {record["method"].get("code") for record in store.records(name)}
        if stored != code_digest(codes[name]):
            old = store.code(stored) if stored else None
            changed[name] = ["code that was not noted"] if old is None else changed_definitions(old, codes[name])
    return changed


def refuse(changed: Mapping[str, Sequence[str]], what: str) -> None:
    """Raises an error that names the definitions that differ.

    Args:
      changed: definitions that differ, by row.
      what: ``trained`` or ``measured``, for the message.

    Raises:
      UsageError: always.
    """
    rows: dict[str, list[str]] = {}
    for row, definitions in changed.items():
        for one in definitions:
            rows.setdefault(one, []).append(row)
    by_reach = sorted(rows, key=lambda one: (len(rows[one]), one))
    shown = [f"{one} ({_few(rows[one])})" for one in by_reach[:SHOWN]]
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    raise UsageError(
        f"code has changed since these rows were {what}: {', '.join(shown)}{more}; --keep uses what is stored, --again "
        f"makes it anew ({len(changed)} row{'s' * (len(changed) > 1)})"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more rows"


def same_but_code(one: Any, other: Any) -> bool:
    """Whether two descriptions of an analysis are equal apart from the digest of code."""

    def plain(how: Any) -> Any:
        return {key: value for key, value in how.items() if key != "code"} if isinstance(how, Mapping) else how

    return plain(one) == plain(other)
