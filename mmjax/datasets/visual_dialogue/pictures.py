"""What a picture of easy-VQA shows, out of the questions about it and their answers."""

from collections.abc import Sequence

from mmjax.datasets.visual_dialogue.procedure import COLOURS, SHAPES

__all__ = ["shown"]

NEGATIONS = {"no", "not"}


def shown(questions: Sequence[str], answers: Sequence[str]) -> tuple[str, str] | None:
    """Shape and colour, if the answers leave one of each; None if they leave several.

    A question names a shape, a colour, both or none; "yes" (to a negated question "no") says that what it names is
    there, and "no" to a question that names one thing that this is not.

    Example:
      >>> shown(["is there a red shape?", "what shape is in the image?"], ["yes", "circle"])
      ('circle', 'red')
      >>> shown(["is there not a circle?", "is there a rectangle?"], ["yes", "no"]) is None
      True
    """
    left = {"shape": set(SHAPES), "colour": set(COLOURS)}
    for question, answer in zip(questions, answers):
        words = question.lower().rstrip("?").split()
        named = {"shape": set(words) & set(SHAPES), "colour": set(words) & set(COLOURS)}
        there = True
        if answer in ("yes", "no"):
            there = (answer == "yes") != bool(NEGATIONS & set(words))
        else:
            named["shape" if answer in SHAPES else "colour"].add(answer)
        about = [name for name, things in named.items() if things]
        for name in about:
            if there:
                left[name] &= named[name]
            elif len(about) == 1:
                left[name] -= named[name]
    (shape, *more), (colour, *others) = sorted(left["shape"]) or [""], sorted(left["colour"]) or [""]
    return (shape, colour) if shape and colour and not more and not others else None
