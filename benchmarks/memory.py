"""Host memory of a table, as multiples of its data: what is held while rows train, and the peak.

    python -m benchmarks.memory          # data of 100 MB; --megabytes for another size

Each case runs in a process of its own, on one device that is the host; what the same case takes with next to no data
(interpreter, libraries, compiling) is subtracted. ``steady`` is the median of the resident set from the first epoch to
the last, ``peak`` the largest from the start to the end. Nothing is asserted: the aims are 2 and 3 times the data.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

CASES = ("from_arrays", "fit", "table", "table with noise", "1,000 classes")
WIDTH = 256


def resident_mb() -> float:
    """The resident set of this process, in MB (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


class Sampler:
    """Samples the resident set in a thread; ``marks`` says when something began."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self.marks: dict[str, list[float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.samples.append((time.perf_counter(), resident_mb()))

    def mark(self, name: str) -> None:
        """Keeps the time under that name."""
        self.marks.setdefault(name, []).append(time.perf_counter())

    def stop(self) -> dict[str, float]:
        """Peak and, between the first and last mark ``epoch``, the median."""
        self._stop.set()
        self._thread.join()
        times, values = map(np.asarray, zip(*self.samples))
        epochs = self.marks.get("epoch", [])
        within = (times >= epochs[0]) & (times <= epochs[-1]) if len(epochs) > 1 else np.zeros(len(times), bool)
        steady = float(np.median(values[within])) if within.any() else float("nan")
        return {"peak": float(values.max()), "steady": steady, "before": float(values[0])}


def make_data(megabytes: float, classes: int = 4):
    """Two modalities of that size together, in float32 as a user has them, and their labels."""
    generator = np.random.default_rng(0)
    count = max(200, int(megabytes * 1e6 / (2 * WIDTH * 4)))
    target = np.arange(count) % classes
    streams = {name: generator.standard_normal((count, WIDTH), dtype=np.float32) for name in ("left", "right")}
    for values in streams.values():
        values[:, :8] += target[:, None] % 7
    return streams, target


def run_case(case: str, megabytes: float) -> dict[str, float]:
    """What one case takes, in this process."""
    import optax  # noqa: F401

    from mmjax import resident
    from mmjax.datasets import from_arrays
    from mmjax.encoders import FeatureMLP
    from mmjax.experiment import Row, Table, run_table
    from mmjax.experiment.analyses import Measure
    from mmjax.fusion import Concat
    from mmjax.heads import ClassificationHead
    from mmjax.models import Multimodal
    from mmjax.tasks import Classification
    from mmjax.training import Train

    classes = 1000 if case == "1,000 classes" else 4
    streams, target = make_data(0.4 if case == "1,000 classes" and megabytes < 1 else megabytes, classes)
    before = resident_mb()
    sampler = Sampler()
    dataset = from_arrays(streams, target, num_classes=classes)
    if case == "from_arrays":
        time.sleep(0.1)
        return sampler.stop() | {"begin": before}
    del streams
    names = ("left", "right")
    encoders = {name: FeatureMLP(dim=32) for name in names}
    model = Multimodal(encoders, Concat(32), ClassificationHead(classes))
    train, task = Train(epochs=6, batch_size=256), Classification(classes)
    run = resident.Prepared.run

    def marked(self, **options):
        ended = options.pop("on_epoch", None)

        def on_epoch(number, metrics):
            sampler.mark("epoch")
            if ended is not None:
                ended(number, metrics)

        return run(self, **options, on_epoch=on_epoch)

    resident.Prepared.run = marked
    if case == "fit":
        resident.fit(model, task, train, dataset.splits, range(2))
        return sampler.stop() | {"begin": before}
    rows = [
        Row(f"concatenation {dim}", model=Multimodal(encoders, Concat(dim), ClassificationHead(classes)))
        for dim in (16, 24, 32, 40)
    ]
    table = Table(title="memory", dataset=dataset, task=task, train=train, rows=rows, seeds=2)
    noise = "all" if case == "table with noise" else "none"
    with tempfile.TemporaryDirectory() as workdir:
        run_table(table, workdir=workdir, measure=Measure(noise=noise, interactions="none"), say=lambda line: None)
    return sampler.stop() | {"begin": before}


def main() -> None:
    """Prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--cases", default=None, help="names separated by ';'")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(args.case, args.megabytes)))
        return
    print(f"{args.megabytes:g} MB of float32 in two modalities\n\n| case | steady | peak |\n|---|---|---|")
    for case in args.cases.split(";") if args.cases else CASES:
        results = []
        for megabytes in (0.4, args.megabytes):
            command = [sys.executable, "-m", "benchmarks.memory", "--case", case, "--megabytes", str(megabytes)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        base, full = results
        size = args.megabytes - 0.4
        # The arrays of the user stand in ``begin`` already: they are one of the copies counted.
        print(f"| {case} | " + " | ".join(f"{(full[key] - base[key]) / size:.2f}" for key in ("steady", "peak")) + " |")


if __name__ == "__main__":
    main()
