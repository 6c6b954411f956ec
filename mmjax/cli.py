"""The command line: ``mmjax COMMAND``, in a clone also ``python -m experiments COMMAND``.

Commands: list, table, train, evaluate, interpret, report, advise, compare; answers of a trained run, ``mmjax.answers``:
ask, caption, chat, search, translate.
"""

import argparse
import dataclasses
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from mmjax import answers, table_file, tables
from mmjax.allocator import keep_freed_memory
from mmjax.blas import keep_blas_to_one_thread
from mmjax.extras import extra

SUCCESS, USAGE, INTERRUPTED, TERMINATED = 0, 2, 130, 143


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        self.exit(USAGE, f"error: {message}; see {self.prog} --help\n")


def parser(prog: str = "mmjax") -> argparse.ArgumentParser:
    """What can be said on the command line."""
    top = Parser(prog=prog, description="Tables of multimodal methods, measured.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names of the tables, a line each")
    table = commands.add_parser("table", help="run a table and print it; also one of a CSV file of your own")
    train = commands.add_parser("train", help="train one row with the streaming feed, over all devices")
    for one in (table, train):
        own = " or the path of a CSV file" if one is table else ""
        one.add_argument("name", help=f"one of: {', '.join(tables.names())}{own}")
        one.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a field; repeatable")
        one.add_argument("--smoke", action="store_true", help="tiny: shows that everything runs")
    table.add_argument("--workdir", help="where everything goes (default: runs/NAME, runs/NAME-smoke, ...)")
    table.add_argument("--seeds", type=int, help="number of seeds")
    table.add_argument("--trials", type=int, help="settings among which that of a row is chosen on validation")
    table.add_argument("--rows", help="names of rows, separated by commas (default: all but the long ones)")
    table.add_argument(
        "--interactions",
        choices=("none", "scope", "all"),
        default="scope",
        help="EMAP, Shapley values, perceptual scores: of baselines, controls and the three best fusions (scope), of "
        "all rows, or none",
    )
    table.add_argument(
        "--fractions",
        metavar="SHARES",
        help="data efficiency instead: the main rows on nested parts of train, e.g. 0.01,0.1,1, or 'default'",
    )
    table.add_argument(
        "--noise",
        choices=("none", "scope", "all"),
        default="scope",
        help="the sweep of noise: of rows with one label an example (scope), also of those with a label per step "
        "(all), or none",
    )
    table_file.add_arguments(table)
    changed = table.add_mutually_exclusive_group()
    changed.add_argument(
        "--keep",
        dest="on_change",
        action="store_const",
        const="keep",
        default="ask",
        help="use stored results although the code that made them has changed since",
    )
    changed.add_argument(
        "--again", dest="on_change", action="store_const", const="again", help="make such results anew"
    )
    table.add_argument(
        "--force", action="store_true", help="let some rows or fewer seeds take the place of a finished table"
    )
    train.add_argument("--workdir", help="where everything goes (default: runs/NAME-ROW-SEED)")
    train.add_argument("--seed", type=int, default=0, help="the seed (default: 0)")
    train.add_argument("--rows", metavar="ROW", help="name of the row (default: the first network)")
    train.add_argument("--patience", type=int, help="stop after so many epochs without a better validation score")
    train.add_argument("--fsdp", type=int, default=1, help="devices over which parameters are split (default: 1)")
    train.add_argument("--tensor", type=int, default=1, help="devices over which layers are split (default: 1)")
    train.add_argument(
        "--distributed",
        action="store_true",
        help="one process of several: find the others (Slurm, TPU, JAX_... variables)",
    )
    evaluate = commands.add_parser("evaluate", help="validation and test scores of a run of train")
    interpret = commands.add_parser(
        "interpret", help="what trained models look at, in pictures, and how far to trust it"
    )
    interpret.add_argument("--workdir", help="where the pictures go (default: runs/interpret)")
    interpret.add_argument("--seed", type=int, default=0, help="the seed (default: 0)")
    interpret.add_argument("--smoke", action="store_true", help="tiny: shows that everything runs")
    report = commands.add_parser("report", help="a table again, from its files")
    advise = commands.add_parser("advise", help="which fusion to use, from a finished table, in plain words")
    compare = commands.add_parser("compare", help="ranks of the methods that several tables have in common")
    for one in (evaluate, report):
        one.add_argument("workdir")
    advise.add_argument("workdir", metavar="NAME", help="a work directory, or the name of a table run in runs/NAME")
    compare.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="of finished tables, or results folders")
    compare.add_argument(
        "--out", default="runs/compare", help="where ranks.md and ranks.png go (default: runs/compare)"
    )
    answers.add_commands(commands)
    for one in (table, train, evaluate, interpret):
        one.add_argument("--data-dir", help="folder of the source files, only read (default: $MMJAX_DATA_DIR)")
        one.add_argument("--cache-dir", help="what is prepared from them (default: the user's cache folder)")
    return top


def configure() -> None:
    """Settings of jax that every run shares: compiled programs are kept in the user's cache folder."""
    import jax

    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mmjax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def load(name: str, settings: Sequence[str], smoke: bool) -> Any:
    """The table of that name, as the arguments change it."""
    return changed(tables.find(name), settings, smoke)


def changed(table: Any, settings: Sequence[str], smoke: bool) -> Any:
    """The table as ``--smoke`` and ``--set`` change it."""
    from mmjax.experiment.runner import smoke as tiny
    from mmjax.experiment.settings import apply_settings

    return apply_settings(tiny(table) if smoke else table, settings)


def numbers(text: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
      UsageError: something that is no number.
    """
    from mmjax.errors import UsageError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--fractions takes shares like 0.1,0.3,1 or 'default', got {text!r}") from None


def run(args: argparse.Namespace) -> str:
    """Does what the arguments say; returns what is to be printed."""
    if args.command == "list":
        return "".join(f"{name:18s} {tables.summary(name)}\n" for name in tables.names())
    from mmjax.errors import UsageError

    own = args.command == "table" and table_file.is_file(args.name)
    if args.command == "table":
        table_file.check_arguments(args)
    if args.command in ("table", "train") and not own:
        tables.summary(args.name)  # an unknown name is refused before anything large is imported
    configure()
    if getattr(args, "distributed", False):
        import jax

        jax.distributed.initialize()
    if args.command in answers.COMMANDS:
        return answers.run(args)
    from mmjax.experiment import commands

    if args.command == "report":
        return commands.report(args.workdir)
    if args.command == "advise":
        return commands.advise(args.workdir)
    if args.command == "compare":
        return commands.compare(args.workdirs, args.out)
    folders = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    if args.command == "interpret":
        from mmjax.experiment.interpret import interpret

        workdir = args.workdir or pathlib.Path("runs") / ("interpret" + "-smoke" * args.smoke)
        return interpret(workdir=workdir, seed=args.seed, smoke=args.smoke, **folders)
    if args.command == "evaluate":
        config = commands.read_run(args.workdir)
        if not {"settings", "smoke"} <= set(config):
            raise UsageError(f"{args.workdir!r} was not made by this command line: its table is not known here")
        return commands.evaluate(load(config["table"], config["settings"], config["smoke"]), args.workdir, **folders)
    table = changed(table_file.make_table(args), args.set, args.smoke) if own else load(args.name, args.set, args.smoke)
    folders["workdir"] = args.workdir
    if args.command == "table":
        if args.seeds is not None:
            if args.seeds < 1:
                raise UsageError(f"--seeds must be at least 1, got {args.seeds}")
            table = dataclasses.replace(table, seeds=args.seeds)
        if args.trials is not None:
            table = dataclasses.replace(table, trials=args.trials)
        name = table_file.slug(args.name) if own else args.name
        name += "-smoke" * args.smoke  # never over the results of the table itself
        rows = None if args.rows is None else table.split_names(args.rows)
        if args.fractions is not None:
            shares = None if args.fractions == "default" else numbers(args.fractions)
            folders["on_change"] = args.on_change
            return commands.fractions(table, name=name, rows=rows, fractions=shares, **folders)
        little = {"levels": 2, "draws": 1, "seeds": 1} if args.smoke else {}
        measure = commands.Measure(noise=args.noise, interactions=args.interactions, **little)
        choice = {"measure": measure, "on_change": args.on_change, "force": args.force}
        report = commands.table(table, name=name, rows=rows, **choice, **folders)
        if own and rows is None:
            report += f"\n{commands.advise(args.workdir or pathlib.Path('runs') / name)}"
        return report
    config = {"settings": args.set, "smoke": args.smoke}
    mesh = {"fsdp": args.fsdp, "tensor": args.tensor}
    options = {"name": args.name, "row": args.rows, "seed": args.seed, "patience": args.patience}
    return commands.train(table, config=config, **options, **mesh, **folders)


def main(argv: Sequence[str] | None = None, prog: str = "mmjax") -> int:
    """Runs a command; what a user can mend is one line and status 2 (``MMJAX_TRACEBACK=1`` shows where it arose)."""
    args = parser(prog).parse_args(argv)
    try:
        try:
            with extra():
                print(run(args), end="", flush=True)
        except (ValueError, OSError) as error:
            from mmjax.errors import UsageError

            usage = isinstance(error, (UsageError, OSError)) and not isinstance(error, BrokenPipeError)
            if not usage or os.environ.get("MMJAX_TRACEBACK"):
                raise
            print(f"error: {error}", file=sys.stderr)
            return USAGE
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    return SUCCESS


def leave(status: int) -> NoReturn:
    """Ends the process; what is compiled ahead in a thread, for rows that are not to run now, is not waited for."""
    if status and any(thread.name.startswith("ahead") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def speak_when_terminated() -> None:
    """SIGTERM ends the process at once, as it would, but with a line; ``train`` has a handler of its own meanwhile.

    The line is written by a thread that a byte wakes: the main one may be inside XLA for minutes.
    """
    if not hasattr(signal, "set_wakeup_fd") or os.name != "posix":
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait() -> None:
        while received := os.read(reading, 1):
            if received[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is _told:
                print("terminated; the same command continues", file=sys.stderr, flush=True)
                os._exit(TERMINATED)

    signal.signal(signal.SIGTERM, _told)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=wait, name="terminated", daemon=True).start()


def _told(number: int, frame: Any) -> None:
    """The thread of ``speak_when_terminated`` does it."""


def script(prog: str = "mmjax") -> NoReturn:
    """The whole process of the console script."""
    speak_when_terminated()
    keep_freed_memory()
    keep_blas_to_one_thread()
    leave(main(prog=prog))
