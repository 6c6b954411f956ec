"""What code a value reaches: the definitions that it is made of, each with a digest of its source.

A result is stale when a function that made it has changed. From the classes and functions of a value the names in their
sources are followed, module by module, through mmjax and the user's own files; installed libraries are told by their
versions instead. Comments, docstrings and formatting do not count, nor does anything that no name leads to, so that a
plot or another method may be edited freely. What is reached by a computed name alone (``getattr`` with a variable) is
not seen.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import pathlib
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from typing import Any

from mmjax.typing import Mapping

__all__ = ["Definitions", "changed_definitions", "code_digest", "reached_definitions"]

PLAIN = (bool, int, float, complex, str, bytes, type(None), types.ModuleType)

Definitions = dict[str, str]
"""Digest of the source by ``module.name``."""
Path = tuple[str, ...]
"""A module, a name in it, and attributes of that."""
# Whose code a version tells: their functions are roots of nothing, wherever they are installed.
LIBRARIES = frozenset(
    "builtins chex flax functools grain jax jaxlib jaxtyping matplotlib numpy optax orbax PIL pandas safetensors scipy "
    "sklearn tensorflow_datasets tokenizers torch typing".split()
)
# Modules that moved and stay the same: stored results know their definitions by the old name.
MOVED = {"mmjax.losses.items": "mmjax.losses"}


def reached_definitions(*values: Any) -> Definitions:
    """The definitions that these values reach: functions, classes, instances, partials, and containers of them."""
    pending, seen = list(_roots(values, set())), set()
    definitions: Definitions = {}
    owned = {_top(root[0]) for root in pending if isinstance(root, tuple)}
    while pending:
        root = pending.pop()
        if not isinstance(root, tuple):  # a function whose source is nowhere: its bytecode
            definitions |= {root.name: root.digest}
            continue
        if root in seen:
            continue
        seen.add(root)
        name, base, *rest = root
        module = _module(name) if _is_own(name, owned) else None
        if module is None:
            continue
        if base in module.definitions:
            definitions[f"{MOVED.get(name, name)}.{base}"] = module.digest(base)
            pending += module.references(base)
        elif base in module.imports:
            pending += _follow(module.imports[base], rest)
        else:
            pending += [(star, base, *rest) for star in module.stars]
    return definitions


def code_digest(definitions: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits that change when a definition does."""
    return _hash("\n".join(f"{name} {value}" for name, value in sorted(definitions.items())))


def changed_definitions(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Names that differ, sorted: changed, new or gone."""
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


@dataclasses.dataclass(frozen=True)
class _Bytecode:
    """A function without a source, typed at a prompt."""

    name: str
    digest: str


class _Module:
    """The top level of one file: what each name is defined by, and what it is imported from."""

    def __init__(self, name: str, path: pathlib.Path):
        self.name = name
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}
        self.stars: list[str] = []
        self._digests: dict[str, str] = {}
        self._references: dict[str, tuple[Path, ...]] = {}
        loose: list[ast.stmt] = []
        for statement in _plain(ast.parse(path.read_text())).body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self.imports |= self._imported(statement)
            elif bound := set(_bound(statement)):
                for one in bound:
                    self.definitions.setdefault(one, []).append(statement)
            else:
                loose.append(statement)
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                for inner in ast.walk(statement):
                    if isinstance(inner, (ast.Import, ast.ImportFrom)):
                        self.imports |= self._imported(inner)
        for statement in loose:  # "f.defvjp(g, h)" belongs to every definition that it names
            for one in {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} & set(self.definitions):
                self.definitions[one].append(statement)

    def digest(self, name: str) -> str:
        """Of the source of one definition."""
        if name not in self._digests:
            self._digests[name] = _hash("\n".join(ast.dump(one) for one in self.definitions[name]))
        return self._digests[name]

    def references(self, name: str) -> tuple[Path, ...]:
        """What the source of a definition names; found once, since every row of a table asks for the same."""
        if name not in self._references:
            self._references[name] = tuple(self._find_references(name))
        return self._references[name]

    def _find_references(self, name: str) -> Iterator[Path]:
        for statement in self.definitions[name]:
            imports = dict(self.imports)
            for node in ast.walk(statement):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    imports |= self._imported(node)
            for base, rest in _names(statement):
                if base in imports:
                    yield from _follow(imports[base], rest)
                elif base != name:
                    yield self.name, base, *rest

    def at_line(self, line: int) -> list[str]:
        """Names of the definitions that stand there."""
        return [
            name
            for name, parts in self.definitions.items()
            if any(part.lineno <= line <= (part.end_lineno or part.lineno) for part in parts)
        ]

    def _imported(self, statement: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str | None]]:
        if isinstance(statement, ast.Import):
            return {
                name.asname or name.name.partition(".")[0]: (
                    name.name if name.asname else name.name.partition(".")[0],
                    None,
                )
                for name in statement.names
            }
        parts = self.package.split(".")
        above = ".".join(parts[: len(parts) - statement.level + 1]) if statement.level else ""
        source = ".".join(filter(None, (above, statement.module)))
        self.stars += [source for name in statement.names if name.name == "*"]
        return {name.asname or name.name: (source, name.name) for name in statement.names if name.name != "*"}


def _plain(tree: ast.Module) -> ast.Module:
    """Without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a file binds, or whose values it changes (``X.y = ...``)."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            while isinstance(node, (ast.Attribute, ast.Subscript)):
                node = node.value  # type: ignore[assignment]
            if isinstance(node, ast.Name):
                yield node.id


def _names(tree: ast.AST) -> set[tuple[str, tuple[str, ...]]]:
    """``a.b.c`` in a source as ``("a", ("b", "c"))``, each name with the longest chain of attributes behind it."""
    names, inner = set(), set()
    for node in ast.walk(tree):
        if node in inner:
            continue
        chain: list[str] = []
        base: ast.AST = node
        while isinstance(base, ast.Attribute):
            chain.insert(0, base.attr)
            base = base.value
            inner.add(base)
        if isinstance(base, ast.Name):
            names.add((base.id, tuple(chain)))
    return names


def _follow(imported: tuple[str, str | None], rest: Iterable[str]) -> Iterator[Path]:
    """Where a chain of attributes on something imported leads: through submodules to a definition."""
    module, name = imported
    chain = (*(() if name is None else (name,)), *rest)
    while chain and _top(module) not in LIBRARIES and _file(f"{module}.{chain[0]}") is not None:
        module, chain = f"{module}.{chain[0]}", chain[1:]
    if chain:
        yield module, *chain


@functools.cache
def _file(name: str) -> pathlib.Path | None:
    """The source of a module, imported or not."""
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if module is None and _top(name) in sys.modules:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):  # its parent is no package
            return None
        path = spec.origin if spec else None
    file = pathlib.Path(path) if path else None
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


@functools.cache
def _module(name: str) -> _Module | None:
    """Read once a process, so that what is told is what was there when it began."""
    path = _file(name)
    return None if path is None else _Module(name, path)


@functools.cache
def _installed(name: str) -> bool:
    """Whether a module lies among the interpreter's own or the installed packages."""
    path = _file(name)
    folders = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*getattr(site, "getsitepackages", list)(), site.getusersitepackages()]
    return path is None or any(path.is_relative_to(folder) for folder in folders if folder)


def _is_own(module: str, owned: Iterable[str]) -> bool:
    """mmjax, what lies among no installed packages, and the packages that the values themselves are from."""
    top = _top(module)
    if top in LIBRARIES or top in sys.stdlib_module_names:
        return module == "__main__"
    return top == "mmjax" or top in owned or not _installed(module)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _roots(value: Any, seen: set[int]) -> Iterator[Path | _Bytecode]:
    """Module and name of the classes and functions in a value, and in what it holds."""
    if id(value) in seen or isinstance(value, PLAIN):
        return
    seen.add(id(value))
    inner: Iterable[Any] = ()
    if isinstance(value, functools.partial):
        inner = (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        inner = (value.__self__, value.__func__)
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    elif isinstance(value, type):
        yield from _class_root(value)
    elif inspect.isfunction(inspect.unwrap(value)) if callable(value) else False:
        function = inspect.unwrap(value)
        yield from _function_roots(function)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        inner = (*cells, function.__defaults__, function.__kwdefaults__)
    elif dataclasses.is_dataclass(value):
        yield from _class_root(type(value))
        inner = [getattr(value, field.name, None) for field in dataclasses.fields(value) if field.name != "parent"]
    elif _top(type(value).__module__) not in LIBRARIES:
        yield from _class_root(type(value))
        inner = getattr(value, "__dict__", {}).values()
    for one in list(inner):
        yield from _roots(one, seen)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is bound later
        return False


def _class_root(cls: type) -> Iterator[Path | _Bytecode]:
    if _file(cls.__module__) is not None:
        yield cls.__module__, cls.__qualname__.partition(".")[0]
    elif _top(cls.__module__) not in LIBRARIES and cls.__module__ not in sys.builtin_module_names:
        for base in cls.__mro__:
            for member in vars(base).values():
                if inspect.isfunction(inspect.unwrap(member)) if callable(member) else False:
                    yield from _function_roots(inspect.unwrap(member))


def _function_roots(function: Any) -> Iterator[Path | _Bytecode]:
    module, name = function.__module__ or "", function.__qualname__.partition(".")[0]
    if _top(module) in LIBRARIES:
        return
    if _file(module) is None:  # typed at a prompt: its code, and what it names
        yield _Bytecode(f"{module}.{function.__qualname__}", _hash(repr(_code(function.__code__))))
        for other in inspect.getclosurevars(function).globals.values():
            if inspect.isfunction(other) or isinstance(other, type):
                yield from _roots(other, {id(function)})
            elif isinstance(other, (bool, int, float, str, tuple)):
                yield _Bytecode(f"{module}.{function.__qualname__} names", _hash(repr(other)))
        return
    if "<" in function.__qualname__:  # several may stand in one definition
        yield _Bytecode(f"{module}.{function.__qualname__}", _hash(repr(_code(function.__code__))))
    there = _module(module)
    if there is not None and name not in there.definitions:  # a lambda in a table, say
        for one in there.at_line(function.__code__.co_firstlineno):
            yield module, one
    else:
        yield module, name


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """What bytecode does, wherever it was typed."""
    constants = [_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    named = [sorted(c, key=repr) if isinstance(c, frozenset) else c for c in constants]
    return code.co_code, named, code.co_names


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
