"""ESC-10 out of its ogg files, in the form that the builder reads. Needs soundfile (``pip install soundfile``).

python -m mmjax.datasets.fsdd_digits.convert_esc10 ESC10 OUT

``ESC10`` holds ``001 - Dog bark/1-100032-A.ogg`` ..., from github.com/karolpiczak/ESC-10, commit 553c8f1.
Run on the files of that commit, it gave arrays equal to those that the builder's checksums were taken of; another
version of the decoder may round a sample otherwise.
"""

import pathlib
import sys

import numpy as np

from mmjax.datasets.converting import command, save
from mmjax.datasets.fsdd_digits.pairs import SAMPLE_RATE
from mmjax.errors import UsageError

__all__ = ["convert", "read_clip"]

LENGTH = 5 * SAMPLE_RATE


def read_clip(path: pathlib.Path) -> np.ndarray:
    """At most five seconds as 16-bit samples of 8 kHz."""
    from scipy.signal import resample_poly

    try:
        import soundfile
    except ImportError:
        raise UsageError("reading ogg files needs soundfile: pip install soundfile") from None
    try:
        samples, rate = soundfile.read(path, dtype="float64")
    except (OSError, RuntimeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if samples.ndim != 1 or rate != 44_100:
        raise UsageError(f"{path} must be mono at 44,100 Hz, got shape {samples.shape} at {rate} Hz")
    low = resample_poly(samples, 80, 441)
    return np.clip(np.round(low * 32767), -32768, 32767).astype(np.int16)[:LENGTH]


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``esc10_fold1.npz`` to ``esc10_fold5.npz``, each by class and file name.

    Raises:
      UsageError: no clips, or a file of another form.
    """
    paths = sorted(original.glob("[0-9][0-9][0-9] - */[1-5]-*-*.ogg"))
    if not paths:
        raise UsageError(f"there is no '001 - NAME/1-ID-A.ogg' in {original}")
    classes = sorted({path.parent.name for path in paths})
    files = {}
    for fold in range(1, 6):
        chosen = [path for path in paths if path.name.startswith(f"{fold}-")]
        clips = [read_clip(path) for path in chosen]
        ids = [path.stem.split("-") for path in chosen]
        files[f"esc10_fold{fold}.npz"] = {
            "wave": np.stack([np.pad(clip, (0, LENGTH - len(clip))) for clip in clips]),
            "length": np.asarray([len(clip) for clip in clips], np.int32),
            "label": np.asarray([classes.index(path.parent.name) for path in chosen], np.uint8),
            "fold": np.full(len(chosen), fold, np.uint8),
            "clip_id": np.asarray([int(number) for _, number, _ in ids], np.int32),
            "take": np.asarray([take for _, _, take in ids]),
            "class_name": np.asarray([name.partition(" - ")[2] for name in classes]),
            "sample_rate": np.asarray(SAMPLE_RATE, np.int32),
        }
    return save(out, files)


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.fsdd_digits.convert_esc10", "ESC10", convert, sys.argv[1:]))
