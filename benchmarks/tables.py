"""What a table costs: CPU seconds and peak memory of its command, with an empty and with a filled compilation cache.

    python -m benchmarks.tables digits --trials 1
    python -m benchmarks.tables digits --trials 1 --tree ../before    # beside another checkout, in turns

Other arguments are those of ``python -m experiments table``. CPU seconds (user and system of the process) hold on a
busy machine where seconds on the wall do not. The parts are those of ``timing.json``, on the wall.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

PARTS = ("compile", "train", "measure", "write")


def run(tree: pathlib.Path, table: str, rest: list[str], workdir: pathlib.Path, cache: pathlib.Path) -> dict:
    """CPU seconds, peak memory in MB and the parts of one run of the table's command in ``tree``."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "experiments", "table", table, *rest, "--workdir", str(workdir)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = json.loads((workdir / "timing.json").read_bytes()).get("(whole table)", {})
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": after.ru_maxrss / 1024,  # the largest of all runs so far
        "parts": {part: round(whole[f"{part}_seconds"], 1) for part in PARTS if f"{part}_seconds" in whole},
    }


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table")
    parser.add_argument("--tree", action="append", default=[], help="another checkout to run beside this one")
    options, rest = parser.parse_known_args()
    trees = [pathlib.Path(tree).resolve() for tree in (*options.tree, pathlib.Path(__file__).parent.parent)]
    with tempfile.TemporaryDirectory() as folder:
        for temperature in ("empty cache", "filled cache"):
            for number, tree in enumerate(trees):
                workdir = pathlib.Path(folder) / f"{number} {temperature}"
                found = run(tree, options.table, rest, workdir, pathlib.Path(folder) / f"cache{number}")
                print(f"{options.table}, {temperature}, {tree.name}: {found['cpu']:.1f} CPU-s, "
                      f"peak so far {found['peak_mb']:.0f} MB, {found['parts']}")  # fmt: skip


if __name__ == "__main__":
    main()
