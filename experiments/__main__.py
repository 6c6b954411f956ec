"""The command line: ``python -m experiments list | table NAME | train NAME | evaluate WORKDIR | report WORKDIR``."""

import argparse
import dataclasses
import importlib
import os
import pathlib
import pkgutil
import sys
from collections.abc import Sequence

import experiments

NAMES = sorted(m.name for m in pkgutil.iter_modules(experiments.__path__) if not m.name.startswith("_"))


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    top = argparse.ArgumentParser(prog="python -m experiments", description="Tables of multimodal methods, measured.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names of the tables, a line each")
    for command, text in (("table", "run a table and print it"), ("train", "train one row with the streaming feed")):
        one = commands.add_parser(command, help=text)
        one.add_argument("name", help=f"one of: {', '.join(NAMES)}")
        one.add_argument("--workdir", help="where everything goes (default: runs/NAME)")
        one.add_argument("--data-dir", help="folder of the source files, only read (default: $MMJAX_DATA_DIR)")
        one.add_argument("--cache-dir", help="what is prepared from them (default: the user's cache folder)")
        one.add_argument("--seeds", type=int, help="number of seeds (train: the seed)")
        one.add_argument("--rows", help="names of rows, separated by commas")
        one.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a field; repeatable")
        one.add_argument("--smoke", action="store_true", help="tiny: shows that everything runs")
    for command, text in (("evaluate", "the scores of a trained run"), ("report", "a table again, from its files")):
        commands.add_parser(command, help=text).add_argument("workdir")
    return top


def configure() -> None:
    """Settings of jax that every run shares: compiled programs are kept in the user's cache folder."""
    import jax

    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mmjax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def load(args: argparse.Namespace):
    """The table that the arguments describe."""
    from mmjax.errors import UsageError
    from mmjax.experiment.runner import smoke
    from mmjax.experiment.settings import apply_settings

    if args.name not in NAMES:
        raise UsageError(f"no table {args.name!r}; the tables are: {', '.join(NAMES)}")
    table = importlib.import_module(f"experiments.{args.name}").TABLE
    table = apply_settings(smoke(table) if args.smoke else table, args.set)
    if args.command == "table" and args.seeds is not None:
        if args.seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {args.seeds}")
        table = dataclasses.replace(table, seeds=args.seeds)
    return table


def rows(args: argparse.Namespace) -> list[str] | None:
    """The names in ``--rows``."""
    return [name.strip() for name in args.rows.split(",") if name.strip()] if args.rows else None


def run(args: argparse.Namespace) -> int:
    """Does what the arguments say; returns the exit status."""
    if args.command == "list":
        for name in NAMES:
            print(f"{name:18s} {(importlib.import_module(f'experiments.{name}').__doc__ or '').splitlines()[0]}")
        return 0
    configure()
    from mmjax.experiment import commands

    if args.command in ("table", "train"):
        folders = {"workdir": args.workdir, "data_dir": args.data_dir, "cache_dir": args.cache_dir}
        if args.command == "table":
            print(commands.table(load(args), name=args.name, rows=rows(args), **folders))
            return 0
        return commands.train(load(args), name=args.name, rows=rows(args), seed=args.seeds or 0, args=args, **folders)
    return getattr(commands, args.command)(args.workdir)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; what a user can mend is one line and status 2."""
    args = parser().parse_args(argv)
    from mmjax.errors import UsageError

    try:
        return run(args)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
