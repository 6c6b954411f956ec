"""Flickr8k out of a folder of photographs and the text files of its publication, in the form that the builder reads.

python -m mmjax.datasets.flickr8k.convert FOLDER OUT

``FOLDER`` holds ``images/*.jpg`` (of any size: the original photographs, or the copies of 224x224 that the card names),
``Flickr8k.token.txt`` and ``Flickr_8k.{train,dev,test}Images.txt``. Photographs are stretched to 128x128 pixels
(Lanczos, JPEG of quality 85), so that another version of the JPEG library writes other bytes: their checksums are noted
beside them. It was run on a fixture of that form; of the photographs themselves the converted ones were at hand.
"""

import io
import pathlib
import sys
import tarfile

from mmjax.datasets.converting import command
from mmjax.datasets.flickr8k.examples import CAPTIONS, PARTS, SIZE, read_captions
from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["convert"]


def _small(path: pathlib.Path) -> bytes:
    """A photograph as a JPEG file of 128x128 pixels."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes a tar of photographs for each split, and the text files with plain ends of lines.

    Raises:
      UsageError: a file that is missing or of another form, or a photograph of a split without five captions.
    """
    with extra():
        import PIL  # noqa: F401
    texts = ["Flickr8k.token.txt", *(f"Flickr_8k.{part}Images.txt" for part in PARTS.values())]
    if lacking := [name for name in texts if not (original / name).is_file()]:
        raise UsageError(f"there is no {lacking[0]} in {original}")
    out.mkdir(parents=True, exist_ok=True)
    for name in texts:
        lines = (original / name).read_text(encoding="utf-8").splitlines()
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    captions, written = read_captions(out / texts[0]), list(texts)
    for part in PARTS.values():
        names = (out / f"Flickr_8k.{part}Images.txt").read_text().split()
        if few := [name for name in names if len(captions.get(name, ())) != CAPTIONS]:
            raise UsageError(f"{few[0]} has {len(captions.get(few[0], ()))} captions, expected {CAPTIONS}")
        written.append(f"images_{part}_{SIZE}.tar")
        with tarfile.open(out / written[-1], "w", format=tarfile.USTAR_FORMAT) as file:
            for name in sorted(names):
                content = _small(original / "images" / name)
                info = tarfile.TarInfo(name)  # no time, no owner: the same bytes again
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    write_manifest(out, written)
    return [out / name for name in written]


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.flickr8k.convert", "FOLDER", convert, sys.argv[1:]))
