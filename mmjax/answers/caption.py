"""``mmjax caption WORKDIR --image photo.jpg``: several sentences about a picture with their scores."""

import argparse
import pathlib
from typing import Any

__all__ = ["add_arguments", "run"]

WHAT = "says what is in a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``caption``."""
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--beams", type=int, default=4, help="width of the search (default: 4; 1 = greedy)")
    parser.add_argument("--top", type=int, default=3, help="how many sentences, at most as many as beams (default: 3)")
    parser.add_argument("--explain", metavar="FILE.png", help="draw where the network looked at each word of the first")


def _fits(row: Any, inputs: Any) -> bool:
    from mmjax.answers.trained import one_of_kind
    from mmjax.captioning import PerCaption

    sees = one_of_kind(inputs, "image", row.streams or list(inputs.streams))
    return bool(sees and row.view is None and isinstance(getattr(row.model, "head", None), PerCaption))


def run(args: argparse.Namespace) -> str:
    """The sentences, a line each.

    Raises:
      UsageError: a broken picture, a wrong number, a run of another task.
    """
    import numpy as np

    from mmjax.answers.pictures import read_picture
    from mmjax.answers.sentences import check_search, say_sentences, sentence_lines
    from mmjax.answers.trained import load_trained
    from mmjax.stream import Stream

    check_search(args)
    trained = load_trained(args.workdir, _fits, WHAT, args.row)
    image = trained.stream_of("image")
    picture = read_picture(args.image, trained.inputs.streams[image].item)
    streams = trained.prepare({image: Stream(picture[None, None], np.ones((1, 1), bool))})
    said, found = say_sentences(trained, streams, args, also=())
    lines = [*sentence_lines(found), f"log-probabilities in nats, {trained.by}"]
    if args.explain:
        first = Stream(said["ids"][:, 0], said["mask"][:, 0])
        out = pathlib.Path(args.explain)
        _explain(trained, streams, picture, first, trained.task.tokenizer, out)
        lines.append(f"attention of the network to the picture at each word: {out}\n")
    return "".join(lines)


def _explain(trained: Any, streams: Any, picture: Any, said: Any, tokenizer: str, out: pathlib.Path) -> None:
    """Writes the picture with the map of each word of the first sentence."""
    import numpy as np

    from mmjax.answers.ask import places_shape
    from mmjax.answers.pictures import write_figure
    from mmjax.errors import UsageError
    from mmjax.evaluation.interpretation.captions import Sample, caption_sheet, word_attention

    weights = word_attention(trained.model, trained.variables, streams, said)
    if weights is None:
        raise UsageError(f"row {trained.row.name!r} reports no attention to the picture")
    ids = np.asarray(said.values[0])[np.asarray(said.mask[0])]
    words = [trained.inputs.tokenizers[tokenizer].id_to_token(int(number)) for number in ids]
    rows, columns = places_shape(weights.shape[-1], picture.shape)
    maps = weights[0, : len(words)].reshape(len(words), rows, columns)
    write_figure(caption_sheet([Sample(picture, words, maps)]), out)
