"""Which code a value reaches: what must change its digests, and what must not."""

import importlib
import sys

import pytest

from mmjax import source_code
from mmjax.source_code import changed_definitions, code_digest, reached_definitions

MAIN = '''"""A method."""
import functools
import numpy as np
from user_helpers import scale
import user_helpers as helpers

RATE = 2.0
TABLE = {}
TABLE["x"] = 1


class Base:
    """What methods share."""

    def start(self):
        return RATE


class Method(Base):
    power: int = 3

    def __call__(self, x, *, offset=0):
        """One line."""
        return scale(x) ** self.power + offset + TABLE["x"]


def fit(data):
    return helpers.deep.inner(data)


def other(data):
    return data


SQUARE = functools.partial(lambda x: x * x)


def rule(x):
    return x


def slope(x):
    return 2 * x


rule.slope = slope
'''
FILES = {
    "user_main.py": MAIN,
    "user_helpers.py": "import user_deep as deep\n\ndef scale(x):\n    return 1 * x\n\ndef idle(x):\n    return x\n",
    "user_deep.py": "def inner(x):\n    return x + OFFSET\n\n\nOFFSET = 5\n",
}


@pytest.fixture
def reach(tmp_path, monkeypatch):
    """Definitions reached by a name of ``user_main`` whose files are ``FILES`` with one text replaced."""

    def of(name, old="", new=""):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        assert not old or any(old in text for text in FILES.values())
        for file, text in FILES.items():
            (folder / file).write_text(text.replace(old, new) if old else text)
            monkeypatch.delitem(sys.modules, file.removesuffix(".py"), raising=False)
        monkeypatch.syspath_prepend(folder)
        for cache in (source_code._file, source_code._module, source_code._installed):
            cache.cache_clear()
        value = getattr(importlib.import_module("user_main"), name)
        return reached_definitions(value() if isinstance(value, type) else value)

    yield of
    for cache in (source_code._file, source_code._module, source_code._installed):
        cache.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("Method", "1 * x", "0 * x", "user_helpers.scale"),
        ("Method", "power: int = 3", "power: int = 2", "user_main.Method"),
        ("Method", "offset=0", "offset=1", "user_main.Method"),
        ("Method", "return RATE", "return 2 * RATE", "user_main.Base"),
        ("Method", "RATE = 2.0", "RATE = 2.5", "user_main.RATE"),
        ("Method", 'TABLE["x"] = 1', 'TABLE["x"] = 4', "user_main.TABLE"),
        ("fit", "OFFSET = 5", "OFFSET = 6", "user_deep.OFFSET"),
        ("fit", "x + OFFSET", "x - OFFSET", "user_deep.inner"),
        ("SQUARE", "x * x", "x + x", "user_main.<lambda> user_main.SQUARE"),
        ("rule", "2 * x", "3 * x", "user_main.slope"),
        ("rule", "rule.slope = slope", "rule.slope = (slope,)", "user_main.rule"),
    ],
)
def test_an_edit_of_what_is_reached_is_named(reach, name, old, new, changed):
    assert changed_definitions(reach(name), reach(name, old, new)) == changed.split()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What methods share."""', '"""What all methods share."""'),
        ('        """One line."""\n', ""),
        ("RATE = 2.0", "RATE = 2.0  # of growth"),
        ("return scale(x) ** self.power + offset", "return (\n            scale(x) ** self.power + offset\n        )"),
        ("def other(data):\n    return data", "def other(data):\n    return 0"),
        ("def idle(x):\n    return x", "def idle(x):\n    return -x"),
        ("OFFSET = 5", "OFFSET = 6"),
    ],
)
def test_what_is_not_reached_may_be_edited_and_so_may_texts(reach, old, new):
    assert code_digest(reach("Method")) == code_digest(reach("Method", old, new))


def test_a_module_that_moved_keeps_the_names_of_before():
    """Records of results that were made before know them."""
    from mmjax.losses.items import cross_entropy

    assert "mmjax.losses.cross_entropy" in reached_definitions(cross_entropy)


def test_the_body_of_a_fusion_counts_for_its_rows_alone(tmp_path, monkeypatch):
    from mmjax.experiment.changes import training_code
    from mmjax.tables.digits import TABLE

    rows = TABLE.pick(["additive attention", "gated (GMU)"])
    before = [training_code(TABLE, row) for row in rows]
    real = source_code._file("mmjax.fusion.attention")
    text = real.read_text()
    assert 'fused = jnp.einsum("bm,bmd->bd"' in text
    edited = tmp_path / "attention.py"
    edited.write_text(text.replace('fused = jnp.einsum("bm,bmd->bd"', 'fused = 0 * jnp.einsum("bm,bmd->bd"'))
    file = source_code._file
    monkeypatch.setattr(source_code, "_file", lambda name: edited if name == "mmjax.fusion.attention" else file(name))
    source_code._module.cache_clear()
    after = [training_code(TABLE, row) for row in rows]
    source_code._module.cache_clear()
    assert changed_definitions(before[0], after[0]) == ["mmjax.fusion.attention._weighted_sum"]
    assert before[1] == after[1]
    assert not any("plots" in name or "report" in name for name in before[0])


def test_a_function_typed_at_a_prompt_is_told_by_its_code_and_what_it_names():
    def typed(text):
        names: dict = {"__name__": "typed_nowhere"}
        exec(text, names)
        return code_digest(reached_definitions(names["fit"]))

    text = "K = 2\n\ndef help(x):\n    return K * x\n\ndef fit(x):\n    return help(x)\n"
    assert typed(text) == typed("# a comment\n" + text)
    changes = {
        typed(text.replace(*edit)) for edit in (("K = 2", "K = 3"), ("K * x", "K + x"), ("help(x)\n", "-help(x)\n"))
    }
    assert len(changes | {typed(text)}) == 4
