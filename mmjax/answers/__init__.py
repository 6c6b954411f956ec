"""Answers for a person, by a trained run: one command a file, ``mmjax ask WORKDIR --image photo.png --question "..."``.

A command's file has ``add_arguments(parser)`` and ``run(args) -> str``, and imports what is large when it runs. What
they share: ``trained`` (the best network of a finished table, without its data set, which ``search`` alone reads),
``pictures`` (pictures from and to the disk).
"""

import argparse
import importlib
from typing import Any

__all__ = ["COMMANDS", "add_commands", "run"]

COMMANDS = {
    "caption": "say what is in a picture with a trained run",
    "ask": "answer a question about a picture with a trained run",
    "translate": "translate a sentence, with its picture or without, with a trained run",
    "search": "search pictures by a sentence, or sentences by a picture, with a trained run",
    "chat": "hold a conversation about a picture with a trained run",
}
"""Each command and what it does; its file has its name."""


def add_commands(parsers: Any) -> None:
    """Adds the commands to the command line."""
    for name, does in COMMANDS.items():
        parser = parsers.add_parser(name, help=does)
        parser.add_argument("workdir", metavar="WORKDIR", help="of a finished table, or the name of one in runs/NAME")
        parser.add_argument("--row", help="name of the network (default: the best on validation that fits)")
        importlib.import_module(f"mmjax.answers.{name}").add_arguments(parser)


def run(args: argparse.Namespace) -> str:
    """What the command of these arguments prints."""
    text: str = importlib.import_module(f"mmjax.answers.{args.command}").run(args)
    return text
