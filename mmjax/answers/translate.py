"""``mmjax translate WORKDIR --text "a dog runs ." [--image photo.jpg]``: several translations with their scores."""

import argparse
from typing import Any

__all__ = ["add_arguments", "run"]

WHAT = "translates a sentence"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``translate``."""
    parser.add_argument("--text", required=True, help="the sentence")
    parser.add_argument("--image", metavar="FILE", help="the picture that it is of, for a network that sees it")
    parser.add_argument("--beams", type=int, default=5, help="width of the search (default: 5; 1 = greedy)")
    parser.add_argument("--top", type=int, default=3, help="how many, at most as many as beams (default: 3)")


def _fits(row: Any, inputs: Any, *, image: bool) -> bool:
    from mmjax.answers.trained import one_of_kind
    from mmjax.decoder import TextDecoder

    names = row.streams or list(inputs.streams)
    pictures = [name for name in names if name in inputs.streams and inputs.streams[name].kind == "image"]
    reads = one_of_kind(inputs, "text", names)
    # What a view adds to a row without pictures (noise) a person cannot give.
    given = bool(pictures) == image and (row.view is None or bool(pictures))
    return bool(reads and given and isinstance(getattr(row.model, "head", None), TextDecoder))


def run(args: argparse.Namespace) -> str:
    """The translations, a line each.

    Raises:
      UsageError: an empty sentence, one of unknown words alone, a broken picture, a run of another task.
    """
    import functools

    import numpy as np

    from mmjax.answers.pictures import read_picture
    from mmjax.answers.sentences import check_search, say_sentences, sentence_lines
    from mmjax.answers.trained import load_trained, numbered_words, unknown_note
    from mmjax.datasets.multi30k.words import readable, tokenised
    from mmjax.errors import UsageError
    from mmjax.stream import Stream

    check_search(args)
    if not args.text.strip():
        raise UsageError("the sentence is empty")
    image = args.image is not None
    what = f"{WHAT} " + ("with a picture (without --image it has none)" if image else "alone (--image gives a picture)")
    trained = load_trained(args.workdir, functools.partial(_fits, image=image), what, args.row)
    inputs = trained.inputs
    name = trained.stream_of("text")
    published = inputs.tokenizers[name].normalizer is None if name in inputs.tokenizers else False
    text = tokenised(args.text) if published else args.text
    sentence, unknown = numbered_words(inputs, name, text, "sentence")
    raw = {name: _ended(sentence, trained.task.end_id)}
    for stream, form in inputs.streams.items():
        if form.kind == "image" and image and stream in trained.streams:
            raw[stream] = Stream(read_picture(args.image, form.item)[None, None], np.ones((1, 1), bool))
    streams = trained.prepare(raw)
    _, found = say_sentences(trained, streams, args)
    lines = sentence_lines([(readable(one), score) for one, score in found])
    lines += [unknown_note(unknown), f"log-probabilities in nats, {trained.by}"]
    return "".join(lines)


def _ended(sentence: Any, end: int) -> Any:
    """The sentence with its end, for which a longer one gives its last word."""
    import numpy as np

    from mmjax.stream import Stream

    values, mask = np.array(sentence.values), np.array(sentence.mask)
    place = min(int(mask.sum()), mask.shape[1] - 1)
    values[0, place], mask[0, place] = end, True
    return Stream(values, mask)
