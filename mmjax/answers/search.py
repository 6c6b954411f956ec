"""``mmjax search WORKDIR "two dogs running" --images DIR``: the pictures of a folder, the nearest to a sentence first;
or ``--image photo.jpg --captions FILE``: the lines of a file, the nearest to a picture first.

A shared space often begins with what was fitted on its data (whitening, a closed form). The table's view is therefore
applied to its data set again, with what is searched in the place of the test split.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

__all__ = ["add_arguments", "contact_sheet", "run"]

WHAT = "embeds pictures and sentences in one space"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``search``."""
    parser.add_argument("query", nargs="?", help="a sentence, with --images")
    parser.add_argument("--images", metavar="DIR", help="folder of pictures to search")
    parser.add_argument("--image", metavar="FILE", help="a picture, with --captions")
    parser.add_argument("--captions", metavar="FILE", help="text file to search, a sentence a line")
    parser.add_argument("--top", type=int, default=10, help="how many are shown (default: 10)")
    parser.add_argument("--out", metavar="FILE.png", help="contact sheet of the pictures found (default: search.png)")
    parser.add_argument("--data-dir", help="source files of the run's data set (default: $MMJAX_DATA_DIR)")
    parser.add_argument("--cache-dir", help="what is prepared from them (default: the user's cache folder)")


def _fits(row: Any, inputs: Any) -> bool:
    from mmjax.answers.trained import one_of_kind
    from mmjax.dual_encoder import DualEncoder

    return isinstance(row.model, DualEncoder) and bool(one_of_kind(inputs, "image") and one_of_kind(inputs, "text"))


def run(args: argparse.Namespace) -> str:
    """Names or sentences with their cosines, a line each.

    Raises:
      UsageError: an empty query, none or both ways of asking, no picture or sentence, a broken picture that is asked
        about, a run of another task.
    """
    from mmjax.answers.pictures import read_picture
    from mmjax.answers.trained import load_trained
    from mmjax.errors import UsageError

    if (args.images is None) == (args.captions is None):
        raise UsageError('either "a sentence" with --images DIR, or --image FILE with --captions FILE')
    if args.images is not None and not (args.query or "").strip():
        raise UsageError("the query is empty: say what to look for, in quotation marks")
    if args.captions is not None and args.image is None:
        raise UsageError("--captions is searched by a picture: say which with --image FILE")
    if args.top < 1:
        raise UsageError(f"--top is 1 or more, got {args.top}")
    lines, files = _lines(args.captions) if args.captions else [], _pictures(args.images) if args.images else []
    trained = load_trained(args.workdir, _fits, WHAT, args.row)
    name = trained.stream_of("image", seen=False)
    item, notes = trained.inputs.streams[name].item, []
    pictures, named = [], []
    for path in files or [pathlib.Path(args.image)]:
        try:
            pictures.append(read_picture(path, item))
            named.append(path)
        except UsageError as error:
            if not files:
                raise
            notes.append(f"note: left out: {error}\n")
    if not pictures:
        raise UsageError(f"none of the {len(files)} pictures in {args.images!r} can be read")
    scores = _cosines(trained, pictures, lines or [args.query], args.data_dir, args.cache_dir)
    found = scores[:, 0] if files else scores[0]
    order = (-found).argsort(kind="stable")[: args.top]
    shown = [named[place].name for place in order] if files else [lines[place] for place in order]
    text = "".join(f"{found[place]:6.3f}  {one}\n" for place, one in zip(order, shown)) + "".join(notes)
    if files:
        out = pathlib.Path(args.out or "search.png")
        contact_sheet([named[place] for place in order], [float(found[place]) for place in order], args.query, out)
        text += f"contact sheet: {out}\n"
    return text + trained.by


def _pictures(folder: str) -> list[pathlib.Path]:
    from mmjax.errors import UsageError

    if not pathlib.Path(folder).is_dir():
        raise UsageError(f"there is no folder {folder!r}")
    files = sorted(one for one in pathlib.Path(folder).iterdir() if one.suffix.lower() in ENDINGS)
    if not files:
        raise UsageError(f"no pictures in {folder!r}; their names end in {', '.join(ENDINGS)}")
    return files


def _lines(path: str) -> list[str]:
    from mmjax.errors import UsageError

    try:
        lines = [line.strip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path!r} as text: {error}") from None
    if not (lines := [line for line in lines if line]):
        raise UsageError(f"{path!r} holds no sentence")
    return lines


def _cosines(trained: Any, pictures: Sequence[Any], texts: Sequence[str], data_dir: Any, cache_dir: Any) -> Any:
    """``[pictures, texts]``: every picture is an example, all texts belong to the first."""
    import numpy as np

    from mmjax.answers.trained import numbered_words
    from mmjax.datasets.base import SPLITS
    from mmjax.experiment.data import apply_view, load_raw, row_data
    from mmjax.stream import Batch, Stream

    image, text = (trained.stream_of(kind, seen=False) for kind in ("image", "text"))
    words = [numbered_words(trained.inputs, text, one, "sentence")[0] for one in texts]
    count, width = len(pictures), words[0].mask.shape[-1]
    ids, mask = np.zeros((count, len(words), width), np.int32), np.zeros((count, len(words), width), bool)
    for place, one in enumerate(words):
        ids[0, place], mask[0, place] = one.values.reshape(width), one.mask.reshape(width)
    raw = load_raw(trained.table, data_dir=data_dir, cache_dir=cache_dir)
    pixels = np.stack(pictures)[:, None]
    number, weight = np.arange(count, dtype=np.int32), np.ones(count, np.float32)
    streams = {image: Stream(pixels, np.ones((count, 1), bool)), text: Stream(ids, mask)}
    new = Batch(streams, number, weight, number, number)
    splits = {split: raw.splits[split] if split == "train" else new for split in SPLITS}
    raw = dataclasses.replace(raw, splits=splits, transient=("validation", "test"))
    data = row_data(apply_view(trained.table, raw), trained.row)
    embeddings = trained.outputs(data.splits["test"].streams).embeddings
    ours, theirs = (embeddings[name] for name in (trained.task.first, trained.task.second))
    if ours.mask[1:].any() < theirs.mask[1:].any() or ours.mask.shape[1] > theirs.mask.shape[1]:
        ours, theirs = theirs, ours  # the first side is that of text
    return np.asarray(ours.values)[:, 0] @ np.asarray(theirs.values)[0].T


def contact_sheet(files: Sequence[pathlib.Path], scores: Sequence[float], title: str, out: pathlib.Path) -> None:
    """Writes the pictures side by side, the nearest first, with place, cosine and name.

    Raises:
      UsageError: the file cannot be written.
    """
    from mmjax.answers.pictures import write_figure
    from mmjax.extras import extra

    with extra():
        from matplotlib.figure import Figure
        from PIL import Image

    columns = min(5, len(files))
    lines = -(-len(files) // columns)
    figure = Figure(figsize=(1.7 * columns, 2.0 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    for place, panel in enumerate(panels):
        panel.set_axis_off()
        if place < len(files):
            with Image.open(files[place]) as picture:
                panel.imshow(picture.convert("RGB"))
            name = files[place].name
            name = name if len(name) <= 24 else f"{name[:12]}...{name[-9:]}"
            panel.set_title(f"{place + 1}. {scores[place]:.3f}\n{name}", fontsize=6)
    figure.suptitle(title.replace("$", r"\$"), fontsize=9)
    write_figure(figure, out)
