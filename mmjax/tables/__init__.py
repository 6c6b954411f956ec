"""What table a name stands for: those on embedded data are here, one file each, others in `experiments/` of a clone."""

import ast
import importlib
import pathlib
import pkgutil
import sys
from typing import Any

from mmjax.errors import UsageError

__all__ = ["find", "names", "summary"]

_HERE = pathlib.Path(__file__).parent
_CLONE = _HERE.parents[1]


def _files() -> dict[str, pathlib.Path]:
    """The file of each table, sorted by name. Nothing is imported."""
    folders = [_HERE]
    if (_CLONE / "pyproject.toml").is_file() and (_CLONE / "experiments" / "__main__.py").is_file():
        folders.append(_CLONE / "experiments")
    files = {
        module.name: folder / f"{module.name}.py"
        for folder in folders
        for module in pkgutil.iter_modules([str(folder)])
        if not module.name.startswith("_")
    }
    return dict(sorted(files.items()))


def names() -> tuple[str, ...]:
    """Names of the tables, sorted."""
    return tuple(_files())


def _file(name: str) -> pathlib.Path:
    files = _files()
    if name not in files:
        clone = (
            "" if len({path.parent for path in files.values()}) > 1 else "; tables of papers are in a clone of mmjax"
        )
        raise UsageError(f"no table {name!r}; the tables are: {', '.join(files)}{clone}")
    return files[name]


def summary(name: str) -> str:
    """The first line of what a table's file says of itself; nothing is imported."""
    return (ast.get_docstring(ast.parse(_file(name).read_text(encoding="utf-8"))) or "").partition("\n")[0]


def find(name: str) -> Any:
    """The ``Table`` of that name.

    Raises:
      UsageError: an unknown name; the message lists those that are.
    """
    path = _file(name)
    if path.parent == _HERE:
        return importlib.import_module(f"mmjax.tables.{name}").TABLE
    if str(_CLONE) not in sys.path:  # the command was started from another folder
        sys.path.append(str(_CLONE))
    return importlib.import_module(f"experiments.{name}").TABLE
