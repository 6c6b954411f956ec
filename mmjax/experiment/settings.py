"""Configurations as plain data: hashable descriptions, and typed changes from the command line."""

import ast
import collections.abc
import dataclasses
import functools
import hashlib
import inspect
import json
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.experiment.table import Row
from mmjax.training import configured_fields
from mmjax.typing import Mapping

__all__ = ["apply_settings", "describe", "digest"]


def describe(value: Any) -> Any:
    """A configuration as JSON data; equal configurations give equal descriptions in any process.

    Functions and classes are described by name and state; ``mmjax.source_code`` covers their code.

    Raises:
      UsageError: a value that is identified only by its address in memory.
    """
    if isinstance(value, functools.partial):
        positional = {"args": describe(value.args)} if value.args else {}
        return {"call": describe(value.func), **positional, **describe(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [name for name in configured_fields(value) if name in _fields(value)]
        return {"class": describe(type(value)), **{name: describe(getattr(value, name)) for name in names}}
    if isinstance(value, Mapping):
        return {str(key): describe(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (set, frozenset)):
        return sorted(describe(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [describe(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.ascontiguousarray(value)
        return {
            "array": str(array.dtype),
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
    if isinstance(value, types.MethodType):
        return {"call": value.__func__.__qualname__, "of": describe(value.__self__)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    value = inspect.unwrap(value) if inspect.isfunction(value) else value  # tests wrap functions to check shapes
    name = getattr(value, "__qualname__", None)
    if name is None or not hasattr(value, "__module__"):
        return _describe_object(value)
    described = f"{value.__module__}.{name}"
    if not inspect.isfunction(value):
        return described
    details = describe(inspect.getclosurevars(value).nonlocals) if value.__closure__ else {}
    if "<" in name:  # inside another function the defaults may be values of that one
        details |= {"defaults": describe([value.__defaults__, value.__kwdefaults__])}
    return {"call": described, **details} if details else described


def _describe_object(value: Any) -> Any:
    """An instance of a class that is no dataclass: its attributes, or its repr without any."""
    if hasattr(value, "__dict__"):
        state = {name: describe(part) for name, part in sorted(vars(value).items())}
        return {"class": describe(type(value)), **state}
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+", text):
        raise UsageError(f"{text} cannot be described: its results could not be told from those of another object")
    return text


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that change when the configuration does."""
    text = json.dumps(describe(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fields(value: Any) -> list[str]:
    hidden = ("parent", "name") if isinstance(value, nn.Module) else ()
    return [field.name for field in dataclasses.fields(value) if field.init and field.name not in hidden]


def apply_settings(value: Any, settings: Sequence[str]) -> Any:
    """The configuration with each ``path.to.field=value`` applied in turn.

    Paths lead through fields of dataclasses and modules, keys of mappings, keyword arguments of partials, and names of
    rows.

    Raises:
      UsageError: no ``=``, an unknown name (listing the right ones), or a value of the wrong type.
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
    # Builders have more options than the table sets, models more losses than are weighted.
    free = path == f"options.{name}" or path.endswith(f"train.loss_weights.{name}")
    if name not in children and not free:
        fields = "; ".join(map(str, children)) or "nothing to set"
        raise UsageError(f"no field {name!r} in {path!r}; there is: {fields}")
    old = children.get(name)
    new = _set(old, rest, text, path) if rest else _parse(text, old, _hint(value, name), path)
    if isinstance(value, functools.partial):
        return functools.partial(value.func, *value.args, **{**value.keywords, name: new})
    if isinstance(value, nn.Module):
        return value.clone(**{name: new})
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{name: new})  # type: ignore[type-var]
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


def _hint(value: Any, name: str) -> Any:
    """The declared type of a field, or of a function's argument; None where there is none."""
    try:
        owner = value.func if isinstance(value, functools.partial) else type(value)
        return typing.get_type_hints(owner).get(name)
    except (NameError, TypeError):  # a forward reference, or something that has no annotations
        return None


def _parse(text: str, old: Any, hint: Any, path: str) -> Any:
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        new = text
    if path.startswith("options."):  # an option may be a number or a word ("fold" is 0 or "all"): the builder checks
        return new
    for kind in _kinds(old, hint):
        if kind is float and type(new) is int:
            return float(new)
        if kind in (tuple, list) and isinstance(new, (tuple, list)):
            return kind(new)
        if kind is Any or type(new) is kind:
            return new
    right = " or ".join("None" if kind is type(None) else kind.__name__ for kind in _kinds(old, hint))
    if not right:
        raise UsageError(f"{path} is {describe(old)}: it cannot be set from the command line, only in the table's file")
    raise UsageError(f"{path} is {old!r} and takes {right}; {text!r} is a {type(new).__name__}")


def _kinds(old: Any, hint: Any) -> tuple[Any, ...]:
    """The types that a setting may have: as declared, else that of the current value."""
    if hint is None:
        return (Any,) if old is None else (type(old),) if isinstance(old, (bool, int, float, str, tuple, list)) else ()
    if hint is Any:
        return (Any,)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(kind for one in typing.get_args(hint) for kind in _kinds(None, one))
    if hint in (bool, int, float, str, type(None)):
        return (hint,)
    plain = set(typing.get_args(hint)) <= {bool, int, float, str, Any, ...}
    if plain and typing.get_origin(hint) in (tuple, list, collections.abc.Sequence):
        return (list if typing.get_origin(hint) is list else tuple,)
    return ()
