"""``mmjax chat WORKDIR --image picture.png``: a conversation about a picture, a line each from the standard input.

What was said is kept: every line is answered in the light of those before it and of the replies to them. An empty line,
or the end of the input, ends it.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["Conversation", "add_arguments", "run"]

WHAT = "holds a conversation about a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``chat``."""
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--top", type=int, default=1, help="how many candidates of a reply, with scores (default: 1)")
    parser.add_argument("--explain", metavar="FILE.png", help="draw where the network looked for each reply")


def _texts(inputs: Any, names: Any, axes: int) -> list[str]:
    """The text streams among the named ones whose mask has so many axes after that of the examples."""
    forms = {name: form for name, form in inputs.streams.items() if name in names}
    return [name for name, form in forms.items() if form.kind == "text" and len(form.lengths) == axes]


def _fits(row: Any, inputs: Any) -> bool:
    from mmjax.answers.trained import one_of_kind

    names = row.streams or list(inputs.streams)
    one = [len(_texts(inputs, names, axes)) == 1 for axes in (2, 3)]
    return bool(one_of_kind(inputs, "image", names) and all(one))


@dataclasses.dataclass
class Conversation:
    """What was said about one picture by a trained network.

    Attributes:
      trained: the network.
      picture: ``[height, width, channels]`` bytes, in the form of the run's pictures.
      said: line and reply of each turn so far.
      looks: for each turn the attention to the picture ``[places]``, where the network has such.
    """

    trained: Any
    picture: Any
    said: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    looks: list[Any] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        from mmjax.answers.trained import one_of_kind

        inputs, names = self.trained.inputs, self.trained.streams
        (self.question,), (self.history,) = (_texts(inputs, names, axes) for axes in (2, 3))
        self.image = one_of_kind(inputs, "image", names)
        self._run: Any = None

    def ask(self, line: str) -> tuple[list[tuple[str, float]], list[str]]:
        """The candidates of the reply with their probabilities, best first, and words that the run never met.

        Raises:
          UsageError: an empty line, or one of unknown words alone.
        """
        import jax
        import numpy as np

        from mmjax.answers.trained import numbered_words
        from mmjax.hypotheses import unpack
        from mmjax.stream import Stream

        question, unknown = numbered_words(self.trained.inputs, self.question, line, "line")
        image = Stream(self.picture[None, None], np.ones((1, 1), bool))
        raw = {self.image: image, self.question: question, self.history: self._heard()}
        streams = self.trained.prepare(raw)
        if self._run is None:
            self._run = jax.jit(self._reply)
        outputs, looks = jax.device_get(self._run(self.trained.variables, streams))
        tokenizer = self.trained.inputs.tokenizers[self.history]
        task = self.trained.task
        texts, scores = unpack(task.spell(outputs, {task.tokenizer: tokenizer})[0, 0])
        found = [(text, float(np.exp(value))) for text, value in zip(texts, scores) if text]
        self.said.append((line.strip(), found[0][0] if found else ""))
        self.looks.append(looks)
        return found, unknown

    def _heard(self) -> Any:
        """What was said before, ``[1, 1, turns, words]``, padded so that few shapes are compiled."""
        from mmjax.datasets.raw.words import encode_padded
        from mmjax.stream import Stream

        inputs = self.trained.inputs
        _, before, words = inputs.streams[self.history].lengths
        while before < len(self.said):
            before *= 2
        turns = [[" ".join(turn) for turn in self.said]]
        heard = encode_padded(inputs.tokenizers[self.history], turns, words, most=before)
        return Stream(heard.values[:, None], heard.mask[:, None])

    def _reply(self, variables: Any, streams: Any) -> Any:
        """What the task generates, and the mean attention of the turn to the picture."""
        import jax.numpy as jnp
        from flax.traverse_util import flatten_dict

        from mmjax.evaluation.interpretation.weights import attention_maps
        from mmjax.stream import Batch

        model, number = self.trained.model, jnp.zeros((1, 1), jnp.int32)
        batch = Batch(streams, None, jnp.ones(1), number, number)
        fuse = lambda model, s: model.fusion(model.encode(s))  # noqa: E731
        _, state = model.apply(variables, streams, method=fuse, mutable=["intermediates"])
        sown = {path: one[0] for path, one in flatten_dict(dict(state).get("intermediates", {}), sep="/").items()}
        maps = attention_maps(sown, role=rf"\w+_to_{self.image}")
        looks = [one.mean(1)[0, -1] for one in maps[:1]]
        return self.trained.task.generate(model, variables, batch), looks


def run(args: argparse.Namespace, lines: TextIO | None = None) -> str:
    """Holds the conversation; each reply is printed at once. Returns the last lines: by whom, and what was drawn.

    Raises:
      UsageError: a broken picture, a run of another task.
    """
    from mmjax.answers.pictures import read_picture
    from mmjax.answers.trained import load_trained, unknown_note
    from mmjax.errors import UsageError

    if args.top < 1:
        raise UsageError(f"--top is 1 or more, got {args.top}")
    trained = load_trained(args.workdir, _fits, WHAT, args.row)
    kept = getattr(trained.task, "n_best", 1)
    if args.top > kept:
        raise UsageError(f"--top is at most {kept}: so many candidates does the run keep")
    picture = read_picture(args.image, next(f.item for f in trained.inputs.streams.values() if f.kind == "image"))
    conversation = Conversation(trained, picture)
    for line in _lines(sys.stdin if lines is None else lines):
        try:
            found, unknown = conversation.ask(line)
        except UsageError as error:  # this line alone: the conversation goes on
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        for text, share in found[: args.top]:
            print(f"{share:6.1%}  {text}" if args.top > 1 else text, flush=True)
        print(unknown_note(unknown, "; the reply is to the other words"), end="", flush=True)
    return trained.by + (_explain(conversation, pathlib.Path(args.explain)) if args.explain else "")


def _lines(source: TextIO) -> Iterator[str]:
    """The lines up to an empty one or the end; a person at a terminal is asked for each."""
    while True:
        if source.isatty():
            print("> ", end="", flush=True)
        line = source.readline()
        if not line.strip():
            return
        yield line.strip()


def _explain(conversation: Conversation, out: pathlib.Path) -> str:
    """Draws where the network looked, a panel for each turn."""
    import numpy as np

    from mmjax.answers.ask import places_shape
    from mmjax.answers.pictures import draw_attention

    if not conversation.said:
        return "nothing was said: nothing is drawn\n"
    if not all(conversation.looks):
        return "the network has no attention to the picture: nothing is drawn\n"
    maps = []
    for number, ((line, reply), looks) in enumerate(zip(conversation.said, conversation.looks)):
        values = np.asarray(looks[0], np.float64)
        name = f"{number + 1}. {_short(line)}\n{_short(reply)}"
        maps.append((name, values.reshape(places_shape(values.size, conversation.picture.shape))))
    draw_attention(conversation.picture, maps, "attention to the picture", out)
    return f"attention of the network to the picture: {out}\n"


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
