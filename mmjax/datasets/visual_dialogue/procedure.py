"""How a dialogue about one picture is made, turn by turn, and the law of it.

A picture shows one shape in one colour. The person thinks of a shape and a colour: each is the picture's with
probability 1/2, else one of the others, all equally likely; the first question begins by saying so. A turn is one of

* ``open``: which shape (colour) is it? The reply names it. Needs the picture.
* ``other``: "and its other property ?", after a turn about the picture: the property that this one was not about. Needs
  the history to know which, the picture to say what.
* ``thought``: is it the shape (colour) i think of? The reply names what was thought of, and whether it is. Needs the
  history (in the first turn the question itself) and the picture.
* ``first``: what did i ask first? Needs the history. Once a dialogue.
* ``last``: what did you say about it last? The reply repeats it. Needs the history. Once a dialogue.

Which one follows depends on the turns before, not on what the picture shows: see ``options``. A property whose name a
reply gave by ``open`` or ``other`` is not asked for again, one that was thought of only by ``open`` or ``other``.
Questions have several wordings, drawn evenly, which tell nothing.
"""

import dataclasses

import numpy as np

__all__ = ["COLOURS", "KINDS", "SHAPES", "TURNS", "Turn", "draw", "first_words", "options", "questions", "reply"]

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KINDS = ("open", "other", "thought", "first", "last")
TURNS = 5
RECALL = 0.35  # the share of turns after the first that ask about the dialogue, where both can be asked

OPEN = {"shape": ("what shape is it ?", "which shape do you see ?"),
        "colour": ("what colour is it ?", "which colour do you see ?")}  # fmt: skip
THOUGHT = {"shape": ("is it the shape i think of ?", "did i guess its shape ?"),
           "colour": ("is it the colour i think of ?", "did i guess its colour ?")}  # fmt: skip
OTHER = ("and its other property ?", "and what about the rest ?")
FIRST = ("what did i ask first ?", "how did i begin ?")
LAST = ("what did you say about it last ?", "say that again ?")


@dataclasses.dataclass(frozen=True)
class Turn:
    """A kind of ``KINDS`` and the property it is about; empty = about the dialogue."""

    kind: str
    about: str = ""


def options(before: tuple[Turn, ...]) -> dict[Turn, float]:
    """The turns that may follow, and their probabilities.

    Example:
      >>> sorted((turn.kind, turn.about, p) for turn, p in options(()).items())[0]
      ('open', 'colour', 0.25)
    """
    told, thought, last = _state(before)
    picture = []
    for about in ("shape", "colour"):
        if about in told:
            continue
        picture.append(Turn("open", about))
        if about not in thought:
            picture.append(Turn("thought", about))
        if last and about != last:
            picture.append(Turn("other", about))
    recall = [turn for turn in (Turn("first"), Turn("last")) if before and turn not in before]
    if not (picture and recall):
        only = picture or recall or [Turn("last")]
        return {turn: 1 / len(only) for turn in only}
    shares = {turn: (1 - RECALL) / len(picture) for turn in picture}
    return shares | {turn: RECALL / len(recall) for turn in recall}


def _state(before: tuple[Turn, ...]) -> tuple[set[str], set[str], str]:
    """The properties that were told, those that were guessed, and the one that was last asked for."""
    told = {turn.about for turn in before if turn.kind in ("open", "other")}
    asked = [turn.about for turn in before if turn.about]
    return told, {turn.about for turn in before if turn.kind == "thought"}, asked[-1] if asked else ""


def questions(turn: Turn) -> tuple[str, ...]:
    """The wordings of a question, equally likely."""
    if turn.kind in ("open", "thought"):
        return (OPEN if turn.kind == "open" else THOUGHT)[turn.about]
    return {"other": OTHER, "first": FIRST, "last": LAST}[turn.kind]


def first_words(thought: tuple[str, str]) -> str:
    """What stands before the first question: the shape and the colour that are thought of."""
    return f"i think of a {thought[1]} {thought[0]} ."


def reply(before: tuple[Turn, ...], turn: Turn, picture: tuple[str, str], thought: tuple[str, str]) -> str:
    """The one right reply.

    Example:
      >>> reply((), Turn("thought", "shape"), ("circle", "red"), ("triangle", "red"))
      'no , it is not a triangle .'
      >>> reply((Turn("open", "colour"),), Turn("last"), ("circle", "red"), ("triangle", "red"))
      'i said that it is red .'
    """
    if turn.about:
        return _answer(turn, picture, thought)
    if turn.kind == "first":
        return f"you asked {_indirect(before[0], thought)} ."
    said = next(one for one in reversed(before) if one.about)
    return f"i said that {_statement(said, picture, thought)} ."


def _named(about: str, picture: tuple[str, str]) -> str:
    return f"a {picture[0]}" if about == "shape" else picture[1]


def _right(turn: Turn, picture: tuple[str, str], thought: tuple[str, str]) -> bool:
    place = ("shape", "colour").index(turn.about)
    return picture[place] == thought[place]


def _statement(turn: Turn, picture: tuple[str, str], thought: tuple[str, str]) -> str:
    if turn.kind != "thought":
        return f"it is {_named(turn.about, picture)}"
    return f"it is {'' if _right(turn, picture, thought) else 'not '}{_named(turn.about, thought)}"


def _answer(turn: Turn, picture: tuple[str, str], thought: tuple[str, str]) -> str:
    begin = "" if turn.kind != "thought" else "yes , " if _right(turn, picture, thought) else "no , "
    return f"{begin}{_statement(turn, picture, thought)} ."


def _indirect(turn: Turn, thought: tuple[str, str]) -> str:
    return f"for its {turn.about}" if turn.kind == "open" else f"whether it is {_named(turn.about, thought)}"


def draw(generator: np.random.Generator, picture: tuple[str, str]) -> list[tuple[Turn, str, str]]:
    """A dialogue about a picture of this shape and colour: turn, question and reply of each turn."""
    thought = (_think(generator, SHAPES, picture[0]), _think(generator, COLOURS, picture[1]))
    turns: tuple[Turn, ...] = ()
    said = []
    for number in range(TURNS):
        law = options(turns)
        turn = list(law)[generator.choice(len(law), p=list(law.values()))]
        wordings = questions(turn)
        question = wordings[generator.integers(len(wordings))]
        question = question if number else f"{first_words(thought)} {question}"
        said.append((turn, question, reply(turns, turn, picture, thought)))
        turns = (*turns, turn)
    return said


def _think(generator: np.random.Generator, names: tuple[str, ...], real: str) -> str:
    others = [name for name in names if name != real]
    return real if generator.random() < 0.5 else others[generator.integers(len(others))]
