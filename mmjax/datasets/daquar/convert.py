"""DAQUAR out of a folder of photographs and the files of questions, in the form that the builder reads.

python -m mmjax.datasets.daquar.convert FOLDER OUT

``FOLDER`` holds ``images/image1.png`` to ``image1449.png`` (560x425) and the four files of questions that the card
names. Photographs are resized to 224x168 pixels (Lanczos, JPEG of quality 85), so that another version of the JPEG
library writes other bytes: their checksums are noted beside them. It was run on a fixture of that form; of the
photographs themselves the converted ones were at hand.
"""

import io
import pathlib
import sys
import tarfile

from mmjax.datasets.converting import command
from mmjax.datasets.daquar.examples import IMAGES, questions_file, read_questions
from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["convert"]

SIZE = (224, 168)  # width, height


def _small(path: pathlib.Path) -> bytes:
    """A photograph as a JPEG file of 224x168 pixels."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes a tar of all photographs of which there are questions, and the files of questions as they are.

    Raises:
      UsageError: a file that is missing or of another form.
    """
    with extra():
        import PIL  # noqa: F401
    written, numbers = [], set()
    for part in ("train", "test"):
        for reduced in (False, True):
            name = questions_file(part, reduced)
            if not (original / name).is_file():
                raise UsageError(f"there is no {name} in {original}")
            numbers |= set(read_questions(original / name, reduced))
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes((original / name).read_bytes())
            written.append(name)
    with tarfile.open(out / IMAGES, "w", format=tarfile.USTAR_FORMAT) as file:
        for number in sorted(numbers):
            content = _small(original / "images" / f"image{number}.png")
            info = tarfile.TarInfo(f"image{number}.jpg")  # no time, no owner: the same bytes again
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    write_manifest(out, [*written, IMAGES])
    return [out / name for name in (*written, IMAGES)]


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.daquar.convert", "FOLDER", convert, sys.argv[1:]))
