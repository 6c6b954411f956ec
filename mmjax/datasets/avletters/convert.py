"""AVLetters out of the files of its publication, in the form that the builder reads.

python -m mmjax.datasets.avletters.convert AVLETTERS OUT

``AVLETTERS`` holds ``Lips/A1_Anya-lips.mat`` ... (MATLAB version 4, mouths of 60x80 pixels) and
``Audio/mfcc/Clean/A1_Anya.mfcc`` ... (HTK). Run on the files of the commit that the card names, it gave arrays equal to
those that the builder's checksums were taken of.
"""

import pathlib
import sys

import numpy as np

from mmjax.datasets.avletters.examples import HEIGHT, WIDTH
from mmjax.datasets.converting import command, save
from mmjax.errors import UsageError

__all__ = ["convert", "read_lips", "read_mfcc"]


def read_lips(path: pathlib.Path) -> np.ndarray:
    """``[frames, 30, 40]`` uint8: each pixel the rounded mean of 2x2; the file holds columns of 4,800 pixels."""
    from scipy.io import loadmat

    try:
        file = loadmat(path)
        height, width, frames = (int(x) for x in file["siz"].reshape(-1))
        pixels = file["vid"].reshape(width, height, frames).transpose(2, 1, 0)  # MATLAB runs down the columns
    except Exception as error:  # SciPy raises a kind of its own, and many others for bytes it cannot read
        raise UsageError(f"{path} is no MATLAB file with 'vid' and 'siz': {error}") from None
    if (height, width) != (2 * HEIGHT, 2 * WIDTH):
        raise UsageError(f"{path} holds pictures of {height}x{width}, expected {2 * HEIGHT}x{2 * WIDTH}")
    blocks = pixels.astype(np.uint16).reshape(frames, HEIGHT, 2, WIDTH, 2).sum((2, 4))
    return ((blocks + 2) // 4).astype(np.uint8)


def read_mfcc(path: pathlib.Path) -> np.ndarray:
    """``[frames, 26]`` float32 of an HTK file: a big-endian header of 12 bytes, then the frames."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    frames, size = int.from_bytes(content[:4], "big"), int.from_bytes(content[8:10], "big")
    if size != 104 or len(content) != 12 + frames * size:
        raise UsageError(f"{path} is no HTK file of 26 features: {frames} frames of {size} bytes in {len(content)}")
    return np.frombuffer(content, ">f4", offset=12).reshape(frames, 26).astype(np.float32)


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``avletters_rep1.npz`` to ``avletters_rep3.npz``, each by speaker, then letter.

    Raises:
      UsageError: no clips, a clip without its other half, or a file of another form.
    """
    paths = sorted((original / "Lips").glob("[A-Z][1-3]_*-lips.mat"))
    if not paths:
        raise UsageError(f"there is no Lips/A1_*-lips.mat in {original}")
    stems = [path.name.removesuffix("-lips.mat") for path in paths]
    speakers = sorted({stem[3:] for stem in stems})
    files = {}
    for repetition in (1, 2, 3):
        clips = sorted((speakers.index(s[3:]), ord(s[0]) - 65, s) for s in stems if int(s[1]) == repetition)
        video = [read_lips(original / "Lips" / f"{stem}-lips.mat") for _, _, stem in clips]
        audio = [read_mfcc(original / "Audio" / "mfcc" / "Clean" / f"{stem}.mfcc") for _, _, stem in clips]
        files[f"avletters_rep{repetition}.npz"] = {
            "video": np.concatenate(video),
            "video_offset": _offsets(video),
            "audio": np.concatenate(audio),
            "audio_offset": _offsets(audio),
            "label": np.asarray([letter for _, letter, _ in clips], np.uint8),
            "speaker": np.asarray([speaker for speaker, _, _ in clips], np.uint8),
            "repetition": np.full(len(clips), repetition, np.uint8),
            "speaker_name": np.asarray(speakers),
        }
    return save(out, files)


def _offsets(clips: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *map(len, clips)]).astype(np.int32)


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.avletters.convert", "AVLETTERS", convert, sys.argv[1:]))
