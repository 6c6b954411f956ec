"""Kills a table at random moments, continues it, and compares what it leaves with a run that nobody killed, bit by bit.

    python -m experiments._interrupted NAME --workdir DIR [--kills 2] [--seed 0] [options of ``table``: --smoke ...]

DIR holds both runs, ``whole`` and ``killed``. The process and all that it began end by SIGKILL, which nothing can
catch, up to a second after a random one of its files appeared (the second run compiles less, so that a share of the
time of the first would come too late). Compared are all files but clocks (``timing.json`` and the report page, which
shows it): tables, records, logits, parameters, histories, analyses, pictures.
"""

import argparse
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

CLOCKS = ("timing.json", "report.html")
POLL = 0.05  # seconds


def run(command, workdir, log, most=math.inf, delay=0.0):
    """Runs a command in a process group of its own; kills it some seconds after ``workdir`` holds more than ``most``
    files. Its exit status, None if killed.
    """
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            while process.poll() is None and len(files_of(workdir)) <= most:
                time.sleep(POLL)
            if process.poll() is None:
                time.sleep(delay)
            return process.poll()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def files_of(folder):
    """All files, without clocks, relative to the folder."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name not in CLOCKS}


def differences(one, other):
    """Files that only one of two folders has, or that differ."""
    mine, theirs = files_of(one), files_of(other)
    for path in sorted(mine | theirs):
        if path not in mine or path not in theirs:
            yield f"{path}: only in {(one if path in mine else other).name}"
        elif (one / path).read_bytes() != (other / path).read_bytes():
            yield f"{path}: differs"


def check(command, folder, *, kills=2, seed=0, delay=1.0):
    """Runs ``command(workdir)`` whole and killed in ``folder``, and tells in lines how they compare, whether well last.

    Args:
      command: of a folder, a list.
      kills: how often it is killed, each time after more files.
      seed: of the moments.
      delay: seconds between a file and the kill at most.

    Raises:
      RuntimeError: a run that nobody killed ends with another status than 0.
    """
    whole, killed = folder / "whole", folder / "killed"
    draw = np.random.default_rng(seed)

    def finish(workdir):
        if status := run(command(workdir), workdir, log):
            raise RuntimeError(f"the run in {workdir} ended with status {status}, see {log.name}")

    with open(folder / "log.txt", "ab") as log:
        finish(whole)
        count, deaths = len(files_of(whole)), 0
        moments = sorted(draw.choice(count - 1, kills, replace=False).tolist())  # the last file may be the end
        for most in moments:
            deaths += run(command(killed), killed, log, most, draw.uniform(0, delay)) is None
        finish(killed)
    found = list(differences(whole, killed))
    line = f"killed {deaths} times, after {moments} of {count} files; {len(found)} differ"
    return [line, *(f"  {one}" for one in found)], not found and deaths == kills


def main(arguments=None):
    """The command; its status is 1 where the two runs differ, one of them failed or was not killed."""
    parser = argparse.ArgumentParser("python -m experiments._interrupted", description=__doc__.partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args, options = parser.parse_known_args(arguments)
    if (args.workdir / "killed").exists():
        parser.error(f"{args.workdir / 'killed'} is there already: this begins anew")
    args.workdir.mkdir(parents=True, exist_ok=True)

    def command(workdir):
        return [sys.executable, "-m", "experiments", "table", args.name, "--workdir", str(workdir), *options]

    try:
        lines, well = check(command, args.workdir, kills=args.kills, seed=args.seed)
    except RuntimeError as error:
        lines, well = [str(error)], False
    print(f"{args.name}: " + "\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
