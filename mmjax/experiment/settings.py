"""Configurations as plain data: a description that can be hashed, and typed changes from the command line."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from mmjax.errors import UsageError
from mmjax.experiment.table import Row
from mmjax.typing import Mapping

__all__ = ["apply_settings", "describe", "digest"]


def describe(value: Any) -> Any:
    """JSON data that says what a configuration is: equal configurations give equal descriptions, in any process."""
    if isinstance(value, functools.partial):
        positional = {"args": describe(value.args)} if value.args else {}
        return {"call": describe(value.func), **positional, **describe(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": describe(type(value)), **{name: describe(getattr(value, name)) for name in _fields(value)}}
    if isinstance(value, Mapping):
        return {str(key): describe(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (set, frozenset)):
        return sorted(describe(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [describe(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    name = getattr(value, "__qualname__", None)
    if name is None:
        return str(value)
    closure = inspect.getclosurevars(value).nonlocals if inspect.isfunction(value) and value.__closure__ else {}
    described = f"{value.__module__}.{name}"
    return {"call": described, **describe(closure)} if closure else described


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that change when the configuration does."""
    text = json.dumps(describe(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fields(value: Any) -> list[str]:
    hidden = ("parent", "name") if isinstance(value, nn.Module) else ()
    return [field.name for field in dataclasses.fields(value) if field.init and field.name not in hidden]


def apply_settings(value: Any, settings: Sequence[str]) -> Any:
    """The configuration with ``path.to.field=value`` applied, one after the other.

    A path goes through fields of dataclasses and modules, keys of mappings, keyword arguments of a partial, and rows
    by name.

    Raises:
      UsageError: no ``=``, a name that is not there (listing those that are), or a value of another type.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"--set takes path.to.field=value, got {setting!r}")
        value = _set(value, path.split("."), text, path)
    return value


def _set(value: Any, parts: list[str], text: str, path: str) -> Any:
    name, rest = parts[0], parts[1:]
    children = _children(value)
    if name not in children:
        known = ", ".join(map(str, children)) or "nothing to set"
        raise UsageError(f"no field {name!r} in {path!r}; there is: {known}")
    old = children[name]
    new = _set(old, rest, text, path) if rest else _parse(text, old, path)
    if isinstance(value, functools.partial):
        return functools.partial(value.func, *value.args, **{**value.keywords, name: new})
    if isinstance(value, nn.Module):
        return value.clone(**{name: new})
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{name: new})
    if isinstance(value, Mapping):
        return {**value, name: new}
    return tuple(new if row.name == name else row for row in value)


def _children(value: Any) -> dict[str, Any]:
    if isinstance(value, functools.partial):
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(value.func).parameters.items()
            if parameter.default is not parameter.empty
        }
        return {**defaults, **value.keywords}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and value and all(isinstance(item, Row) for item in value):
        return {row.name: row for row in value}
    return {}


def _parse(text: str, old: Any, path: str) -> Any:
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        new = text
    if old is None or new is None:
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)):
        return type(old)(new)
    if type(new) is not type(old):
        # A builder's option may be a number or a word ("fold" is 0 or "all"): the builder checks those.
        if path.startswith("options."):
            return new
        raise UsageError(f"{path} is {old!r}, a {type(old).__name__}; {text!r} is a {type(new).__name__}")
    return new
