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


def run(name, workdir, options, log, most=math.inf, delay=0.0):
    """Runs the table in a process group of its own; kills it some seconds after ``workdir`` holds more than ``most``
    files. Its exit status, None if killed.
    """
    command = [sys.executable, "-m", "experiments", "table", name, "--workdir", str(workdir), *options]
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            while process.poll() is None and len(files_of(workdir)) <= most:
                time.sleep(0.05)
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


def main(arguments=None):
    """The command; its status is 1 where the two runs differ or one of them failed."""
    parser = argparse.ArgumentParser("python -m experiments._interrupted", description=__doc__.partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args, options = parser.parse_known_args(arguments)
    whole, killed = args.workdir / "whole", args.workdir / "killed"
    if killed.exists():
        parser.error(f"{killed} is there already: this begins anew")
    args.workdir.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(args.seed)
    with open(args.workdir / "log.txt", "ab") as log:
        clock = time.perf_counter()
        if run(args.name, whole, options, log):
            print(f"{args.name}: the run that nobody killed failed, see {log.name}")
            return 1
        total, deaths = time.perf_counter() - clock, 0
        moments = sorted(draw.choice(len(files_of(whole)), args.kills, replace=False).tolist())
        for most in moments:
            deaths += run(args.name, killed, options, log, most, draw.uniform()) is None
        status = run(args.name, killed, options, log)
    if status:
        print(f"{args.name}: the continued run failed with {status}, see {log.name}")
        return 1
    found = list(differences(whole, killed))
    count = len(files_of(whole))
    print(f"{args.name}: {total:.0f} s; killed {deaths} times, after {moments} of {count} files; {len(found)} differ")
    for line in found:
        print(f"  {line}")
    return bool(found) or deaths < args.kills


if __name__ == "__main__":
    sys.exit(main())
