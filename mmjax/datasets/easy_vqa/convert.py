"""easy-VQA out of the files of its publication, in the form that the builder reads.

python -m mmjax.datasets.easy_vqa.convert FOLDER OUT

``FOLDER`` is ``easy_vqa/data`` of the repository: ``train`` and ``test`` with ``questions.json`` and ``images/*.png``
each. The pictures of a split go into one tar, unchanged. It was run on a fixture of that form; the converted files
were at hand.
"""

import io
import pathlib
import sys
import tarfile

from mmjax.datasets.converting import command
from mmjax.datasets.easy_vqa.examples import read_questions
from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError

__all__ = ["convert"]


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes a tar of pictures and the list of questions for each split.

    Raises:
      UsageError: a file that is missing or of another form, or a question about a picture that is not there.
    """
    written = []
    for part in ("train", "test"):
        source = original / part / "questions.json"
        if not source.is_file():
            raise UsageError(f"there is no {part}/questions.json in {original}")
        try:
            pictures = sorted(read_questions(source))
        except (ValueError, TypeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{source} is no list of [question, answer, picture]: {error}") from None
        out.mkdir(parents=True, exist_ok=True)
        written += [f"questions_{part}.json", f"images_{part}.tar"]
        (out / written[-2]).write_bytes(source.read_bytes())
        with tarfile.open(out / written[-1], "w", format=tarfile.USTAR_FORMAT) as file:
            for number in pictures:
                picture = original / part / "images" / f"{number}.png"
                if not picture.is_file():
                    raise UsageError(f"{picture} is missing, of which there are questions")
                content, info = picture.read_bytes(), tarfile.TarInfo(picture.name)  # no time, no owner: the same bytes
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    write_manifest(out, written)
    return [out / name for name in written]


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.easy_vqa.convert", "FOLDER", convert, sys.argv[1:]))
