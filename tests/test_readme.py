"""What the README shows runs as it stands: each block of code alone, each command as far as its arguments."""

import dataclasses
import pathlib
import re
import shlex

import pytest

from mmjax import cli, table_file
from mmjax.experiment import default
from mmjax.experiment.runner import smoke
from tests.animals import write_animals

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)
CODE = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("  #")[0]
    for language, text in BLOCKS
    if language == ""
    for line in text.splitlines()
    if line.startswith(("python -m experiments ", "mmjax "))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all blocks run, one after the other: a file that one writes, another reads."""
    folder = tmp_path_factory.mktemp("readme")
    write_animals(folder / "animals")
    return folder


@pytest.mark.parametrize("number", range(len(CODE)))
def test_every_block_of_code_runs_alone(number, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    whole = default.default_table

    def small(data):
        """The default table with one row, so that seconds do; tests/experiment/test_default.py has the others."""
        table = smoke(whole(data))
        return dataclasses.replace(table, rows=table.pick(["caption"]))

    monkeypatch.setattr(default, "default_table", small)
    namespace: dict = {}
    exec(compile(CODE[number], f"README.md, block {number}", "exec"), namespace)
    printed = capsys.readouterr().out
    if "weights" in namespace:
        weights = namespace["weights"]
        assert weights.shape == (2, 3) and weights[0, 2] == 0 and weights[1, 2] > 0  # audio, text, video
    if "from_arrays" in namespace:
        assert "additive attention" in printed
    if "from_table" in namespace:
        assert "Classes: cat (100), dog (100), owl (100)." in printed and "| caption " in printed


def test_the_blocks_are_those_that_are_meant():
    assert len(CODE) >= 5 and sum("from_table" in text for text in CODE) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_given(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, _, arguments = command.partition("mmjax " if command.startswith("mmjax") else "experiments ")
    args = cli.parser().parse_args(shlex.split(arguments.replace("...", "")))
    if args.command == "table" and table_file.is_file(args.name):
        table_file.check_arguments(args)
        assert {"caption", "photo", "features"} <= {row.name for row in table_file.make_table(args).rows}
    elif args.command == "table":
        table = cli.load(args.name, args.set, smoke=False)
        assert args.rows is None or table.split_names(args.rows)


def test_the_first_bash_block_holds_the_two_commands():
    first = next(text for language, text in BLOCKS if language == "bash").splitlines()
    assert len(first) == 2
    assert first[0].endswith("-m experiments table digits") and "-m pytest" in first[1]
