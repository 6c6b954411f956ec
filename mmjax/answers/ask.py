"""``mmjax ask WORKDIR --image photo.png --question "what shape is it?"``: several answers with their probabilities."""

import argparse
import pathlib
from typing import Any

__all__ = ["add_arguments", "places_shape", "run"]

WHAT = "answers questions about a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``ask``."""
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--question", required=True, help="about it, in words that the run has met")
    parser.add_argument("--top", type=int, default=5, help="how many answers (default: 5)")
    parser.add_argument("--explain", metavar="FILE.png", help="draw where the network looked for the first answer")


def _fits(row: Any, inputs: Any) -> bool:
    from mmjax.answers.trained import one_of_kind

    names = row.streams or list(inputs.streams)
    both = one_of_kind(inputs, "image", names) and one_of_kind(inputs, "text", names)
    return bool(
        both and inputs.card.class_names and len(inputs.streams[one_of_kind(inputs, "text", names)].lengths) == 2
    )


def run(args: argparse.Namespace) -> str:
    """The answers, a line each.

    Raises:
      UsageError: a broken picture, an empty question, one of unknown words alone, a run of another task.
    """
    import jax
    import numpy as np

    from mmjax.answers.pictures import read_picture
    from mmjax.answers.trained import load_trained, numbered_words, unknown_note
    from mmjax.errors import UsageError
    from mmjax.stream import Stream
    from mmjax.tasks import kept_logits, kept_outputs

    if args.top < 1:
        raise UsageError(f"--top is 1 or more, got {args.top}")
    trained = load_trained(args.workdir, _fits, WHAT, args.row)
    inputs = trained.inputs
    image, text = trained.stream_of("image"), trained.stream_of("text")
    picture = read_picture(args.image, inputs.streams[image].item)
    question, unknown = numbered_words(inputs, text, args.question)
    raw = {image: Stream(picture[None, None], np.ones((1, 1), bool)), text: question}
    streams = trained.prepare(raw)
    logits = np.asarray(kept_logits(trained.task, kept_outputs(trained.task, trained.outputs(streams))))[0]
    shares = np.asarray(jax.nn.softmax(logits.reshape(-1, logits.shape[-1])[0].astype(np.float32)))
    names = inputs.card.class_names
    order = [i for i in np.argsort(-shares) if not (inputs.card.closed and i == len(names) - 1)][: args.top]
    lines = [f"{shares[i]:6.1%}  {names[i]}\n" for i in order]
    lines += [unknown_note(unknown, "; the answer is of the other words"), trained.by]
    if args.explain:
        out = pathlib.Path(args.explain)
        how = _explain(trained, streams, image, picture, int(order[0]), f"{args.question} {names[order[0]]}", out)
        lines.append(f"{how}: {out}\n")
    return "".join(lines)


def _explain(trained: Any, streams: Any, image: str, picture: Any, answer: int, title: str, out: pathlib.Path) -> str:
    """Draws the attention to the picture, or without any the gradient of the answer's logit; says which."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mmjax.answers.pictures import draw_attention
    from mmjax.errors import UsageError
    from mmjax.evaluation.interpretation import weights
    from mmjax.stream import Stream
    from mmjax.tasks import kept_logits, kept_outputs

    sown = weights.collect(trained.model, trained.variables, streams)
    found = weights.attention_maps(sown, role=rf"\w+_to_{image}")
    if found:
        looks = np.concatenate([np.asarray(one[0], np.float64).mean(1) for one in found])  # [layers, tokens]
        shape = places_shape(looks.shape[-1], picture.shape)
        maps = [(f"look {i + 1}" if len(looks) > 1 else "attention", row.reshape(shape)) for i, row in enumerate(looks)]
        draw_attention(picture, maps, title, out)
        return "attention of the network to the picture"
    stream = streams[image]
    values = jnp.asarray(stream.values)
    values = values.astype(jnp.float32) / 255 if values.dtype == jnp.uint8 else values
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise UsageError(f"the network has no attention, and {values.dtype} pixels have no gradient")

    def logit(values: Any) -> Any:
        outputs = trained.model.apply(trained.variables, {**streams, image: Stream(values, stream.mask)}, train=False)
        logits = kept_logits(trained.task, kept_outputs(trained.task, outputs))
        return logits.reshape(-1, logits.shape[-1])[0, answer]

    slope = np.abs(np.asarray(jax.jit(jax.grad(logit))(values))[0]).sum(-1)  # [1, height, width] or [1 or tokens]
    slope = slope[0] if slope.ndim == 3 else slope.reshape(places_shape(slope.size, picture.shape))
    draw_attention(picture, [("gradient of the answer", slope)], title, out)
    return "the network has no attention; sizes of the gradient of its answer"


def places_shape(tokens: int, picture: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of so many places over a picture: those nearest to its proportions."""
    pairs = [(n, tokens // n) for n in range(1, tokens + 1) if tokens % n == 0]
    return min(pairs, key=lambda pair: abs(pair[0] * picture[1] - pair[1] * picture[0]))
