"""A finished table in plain words: which fusion to use, what it gains and costs, where it breaks, how sure that is."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmjax.errors import UsageError
from mmjax.evaluation.report.cells import Unit, count, value
from mmjax.evaluation.report.kinds import usual_seeds
from mmjax.evaluation.report.recommendation import CONTROLS, UNTRAINED, Choice, choose, role_of
from mmjax.typing import Mapping

__all__ = ["advise"]

Row = Mapping[str, Any]
UNKNOWN = "not measured"


def advise(summary: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> str:
    """Advice with its evidence, every number with the row and field of ``table.json`` that it comes from.

    The row is chosen on validation alone. The test of that one row against the best single modality says whether fusion
    is to be used at all; no test score picks a row.

    Args:
      summary: what ``table.json`` holds.
      timing: what ``timing.json`` holds; None = the time of a step is not known.

    Raises:
      UsageError: tables of several folds pooled, or no finished fusion of all modalities.
    """
    if "higher_is_better" not in summary or "items" not in summary:
        raise UsageError("advice needs the table.json of one table; of pooled folds take the folder of one fold")
    choices = choose(summary)
    if not choices:
        raise UsageError(f"table {summary['table']!r} has no finished row that fuses all modalities: nothing to advise")
    choice, *others = choices
    parts: list[tuple[str, Sequence[str]]] = [
        ("Why", list(_why(summary, choice))),
        ("What fusion gains, on test", list(_gains(summary, choice))),
        ("What it costs", list(_costs(choice, timing or {}))),
        ("Where it breaks, on test", list(_breaks(summary, choice))),
        ("Calibration, on test", list(_calibration(summary, choice))),
        ("How sure that is", list(_sureness(summary, choice))),
        ("Other parts of the table", [f'"{one.section}": {_headline(summary, one)}' for one in others]),
    ]
    top = f"Advice: {summary['title']}\n\n{_headline(summary, choice)}\n\n{_reading(summary)}"
    blocks = [f"{title}\n" + "\n".join(f"- {line}" for line in lines) for title, lines in parts if lines]
    return "\n\n".join([top, *blocks]) + "\n"


def _headline(summary: Mapping[str, Any], choice: Choice) -> str:
    fusion = f'"{choice.fusion["name"]}"'
    if choice.single is None:
        return (
            f"NOT DECIDED: no single modality was run, so whether fusion helps is not known. Of the fusions: {fusion}."
        )
    alone = _alone(choice)
    if choice.use == "fusion":
        said = f"USE THE FUSION {fusion}."
        if choice.fusion["gain"].get("trivial"):
            return f"{said} Its gain is sure but smaller than {Unit.of(summary).near}: {alone} does nearly as well."
        return f"{said} {_control_verdict(choice)}".strip()
    if choice.reason == "another single":
        other = choice.fusion["gain"]["over"]
        return (
            f'NOT DECIDED: {fusion} is better than {alone}, which validation prefers, but a gain over "{other}" is not '
            f'shown on test. Choose between {fusion} and "{other}" on more validation data.'
        )
    if choice.use == "undecided":
        seeds = len((choice.fusion.get("gain") or {}).get("seeds", ()))
        preferred = alone if choice.reason == "validation" else fusion
        return f"NOT DECIDED: {seeds} seeds allow no verdict, 5 do. For now validation alone prefers {preferred}."
    why = {
        "validation": f"on validation no fusion reaches it, the best is {fusion}",
        "worse": f"{fusion} is worse" + _than(choice),
        "equivalent": f"{fusion} does the same within {Unit.of(summary).near}",
        "inconclusive": f"a gain of {fusion} is not shown",
    }[choice.reason]
    return f"USE {alone}: {why}."


def _than(choice: Choice) -> str:
    """Which single modalities a fusion is worse than, where the one that validation chose is not the only one."""
    below = (choice.fusion.get("gain") or {}).get("below") or []
    if choice.single is None or not below or below == [choice.single["name"]]:
        return ""
    return " than " + " and ".join(f'"{name}"' for name in below)


def _reading(summary: Mapping[str, Any]) -> str:
    items, seeds = summary["items"], usual_seeds(summary)
    return (
        f"Scores are {_metric(summary)} on {items['test']:,} test or {items['validation']:,} validation items, "
        f"means over {seeds} seed{'s' * (seeds != 1)}.\nIn square brackets: the row and field of table.json."
    )


def _why(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    best, fusion, single = choice.best, choice.fusion, choice.single
    yield (
        f'"{best["name"]}" is the best of {choice.considered} fusions of all modalities on validation: '
        f"{_score(summary, best['validation'])}{_source(best, 'validation')}."
    )
    if fusion is not best:
        cell = best["gain_late_mean"]
        yield (
            f'"{fusion["name"]}" is simpler and no worse within the noise, so it is preferred: '
            f"{_score(summary, fusion['validation'])} on validation{_source(fusion, 'validation')}, "
            f"noise ± {_plain(summary, choice.noise)}."
        )
        yield (
            f'On test "{best["name"]}" gains {_difference(summary, cell)} over it{_source(best, "gain_late_mean")}: '
            "no reason to train a fusion."
        )
    elif role_of(fusion) not in UNTRAINED and choice.noise is None:
        yield f"Whether the untrained mean of logits would do as well: {UNKNOWN}."
    if single is not None:
        yield (
            f"{_alone(choice)} is the best single modality on validation: "
            f"{_score(summary, single['validation'])}{_source(single, 'validation')}."
        )
    yield from _linear(summary, choice)
    for name in choice.left_out:
        yield f'"{name}" was left out: it was fitted on validation, so its score there is no evidence.'
    if len({row["section"] for row in summary["rows"]}) > 1:
        yield f'All this within "{choice.section}": no other part of the table has a better row on validation.'


def _linear(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    """Where a linear model reaches what the networks do: all modalities, then each alone."""
    sign = 1 if summary["higher_is_better"] else -1

    def best(rows: Sequence[Row]) -> Row | None:
        return max(rows, key=lambda row: sign * row["validation"], default=None)

    trained = [row for row in choice.rows if role_of(row) not in (*UNTRAINED, *CONTROLS)]
    networks = [row for row in trained if row["kind"] == "model"]
    linear, network = best([row for row in choice.rows if role_of(row) == "linear"]), best(networks)
    if linear and network and sign * network["validation"] <= sign * linear["validation"]:
        yield (
            f'No network beats the linear model "{linear["name"]}": {_score(summary, linear["validation"])}'
            f'{_source(linear, "validation")} on validation, the best network "{network["name"]}" '
            f"{_score(summary, network['validation'])}{_source(network, 'validation')}. What the networks gain over "
            "each other says little of fusion; train them otherwise first (--trials, more epochs, another rate)."
        )
    known = [one for one in summary.get("known", ()) if one["name"].endswith(" of train")]  # constants, of scores
    constant = max(known, key=lambda one: sign * one["value"], default=None)
    if constant and networks and not any(sign * row["mean"] > sign * constant["value"] for row in networks):
        value = _score(summary, constant["value"])
        yield f"No network beats the {constant['name']} as a constant, {value} on test [known]."
    for name in sorted({row["streams"][0] for row in trained if row["single"]}):
        alone = [row for row in trained if row["single"] and row["streams"] == [name]]
        fitted, network = (
            best([row for row in alone if row["kind"] == "fit"]),
            best([row for row in alone if row in networks]),
        )
        if fitted and network and sign * network["validation"] < sign * fitted["validation"]:
            yield (
                f"Of {name.upper()} alone the network stays behind a fit without one: "
                f"{_score(summary, network['validation'])}{_source(network, 'validation')} against "
                f"{_score(summary, fitted['validation'])}{_source(fitted, 'validation')} on validation."
            )


def _gains(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    row = choice.fusion
    if choice.single is not None:
        yield (
            f'"{row["name"]}" reaches {_score(summary, row["mean"])}{_source(row, "mean")}, {_alone(choice)} '
            f"{_score(summary, choice.single['mean'])}{_source(choice.single, 'mean')}."
        )
    if each := row.get("gains"):
        for name, cell in each.items():
            yield f'Over "{name}" alone: {_difference(summary, cell)}{_source(row, "gains")}.'
    else:
        yield f"Over the best single modality: {_gain(summary, row, 'gain')}"
    yield f"Over an ensemble of the best single modality: {_gain(summary, row, 'gain_ensemble')}"
    if role_of(row) == "mean of logits":
        yield "Over the mean of logits: it is that row."
    else:
        yield f"Over the mean of logits, untrained: {_gain(summary, row, 'gain_late_mean')}"
    yield from _control(summary, choice)
    yield from _interaction(summary, row)


def _gain(summary: Mapping[str, Any], row: Row, field: str) -> str:
    cell = row.get(field)
    if not cell or cell.get("mean") is None:
        return f"{UNKNOWN}."
    return f'{_difference(summary, cell)}, compared with "{cell["over"]}"{_source(row, field)}.'


def _find_control(choice: Choice) -> Row | None:
    """The shuffled control of the fusion; of the concatenation where it has none of its own."""
    found = [row for row in choice.rows if role_of(row) == "shuffled control" and row.get("gain")]
    plain = next((row["name"] for row in choice.rows if role_of(row) == "concatenation"), None)
    for name in (choice.fusion["name"], plain):
        for row in found:
            if name is not None and row["name"].startswith(f"{name}: "):
                return row
    return None


def _kept(choice: Choice) -> str | None:
    """What of the gain the control keeps: ``all``, ``part``, ``none``, or None where that cannot be said."""
    control, gain = _find_control(choice), choice.fusion.get("gain")
    if role_of(choice.fusion) in UNTRAINED or control is None or not gain:
        return None
    theirs = control["gain"]
    gain = (choice.fusion.get("gains") or {}).get(theirs["over"]) or gain  # over the modality that the control keeps
    if len(theirs["seeds"]) < 3 or theirs.get("lower") is None or gain["mean"] <= 0:
        return None
    if theirs["lower"] > 0:
        return "all" if theirs["upper"] >= gain["mean"] else "part"
    return "none" if theirs["upper"] < gain["mean"] else None


def _control_verdict(choice: Choice) -> str:
    return {
        "all": "But the gain is regularisation: with the other modalities shuffled in training it stays.",
        "part": "A part of the gain is regularisation: with the other modalities shuffled in training that part stays.",
    }.get(_kept(choice) or "", "")


def _control(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    if role_of(choice.fusion) in UNTRAINED:
        yield (
            "Shuffled control: does not apply. Its parts are single-modality models, which no other modality can "
            "regularise."
        )
        return
    control = _find_control(choice)
    if control is None:
        yield f"Shuffled control: {UNKNOWN}; the gain may be regularisation."
        return
    meaning = {
        "all": "the gain stays, so it is regularisation and not information",
        "part": "a part of the gain stays, and that part is regularisation",
        "none": "the gain is lost, so it is information from the other modalities",
        None: "whether the gain stays cannot be told",
    }[_kept(choice)]
    yield (
        f'Shuffled control "{control["name"]}": {_difference(summary, control["gain"])} over '
        f'"{control["gain"]["over"]}"{_source(control, "gain")}; {meaning}.'
    )


def _interaction(summary: Mapping[str, Any], row: Row) -> Iterator[str]:
    cells = row.get("interaction") or {}
    if emap := cells.get("emap"):
        ends = emap.get("interval")
        if not ends:
            said = "too few seeds to tell whether it uses any interplay"
        elif ends[0] <= 0 <= ends[1]:
            said = "no interplay of the modalities is shown, a sum over modalities does as well"
        else:
            said = "it uses the interplay of the modalities" if ends[0] > 0 else "the interplay that it uses does harm"
        gap = f"{_signed(summary, emap['gap'])}{_between(summary, ends)}"
        yield f'EMAP gap of "{row["name"]}": {gap}; {said}{_source(row, "interaction.emap")}.'
    if shapley := cells.get("shapley"):
        known = [(name, one["share"]) for name, one in shapley.items() if one.get("share") is not None]
        if known:
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in known)
            yield f"Shapley shares of the score: {shares}{_source(row, 'interaction.shapley')}."


def _costs(choice: Choice, timing: Mapping[str, Any]) -> Iterator[str]:
    rows = [choice.fusion] + ([choice.single] if choice.single is not None else [])
    for row in rows:
        parts = [one for one in choice.rows if one["single"]] if role_of(row) in UNTRAINED else [row]
        what = "" if parts == [row] else "nothing to train; the single-modality models that it combines have together "
        source = f" [{', '.join(one['name'] for one in parts)}: cost]"
        found = []
        for field, unit in (
            ("params", "parameters"),
            ("flops", "FLOPs for the forward pass of an example, by formula"),
        ):
            numbers = [_cost(one, field) for one in parts]
            known = [number for number in numbers if number]
            complete = known and len(known) == len(numbers)
            found.append(f"{count(sum(known))} {unit}" if complete else f"{unit}: {UNKNOWN}")
        if fused := (row.get("cost") or {}).get("params_fusion"):
            found.insert(1, f"{count(fused)} of them in the fusion")
        yield f'"{row["name"]}": {what}{"; ".join(found)}{source}.'
        step = (timing.get(row["name"]) or {}).get("step_ms")
        if parts == [row]:
            where = f"median, on the machine that ran it [{row['name']}: timing.json, step_ms]"
            yield f'"{row["name"]}", a training step: {UNKNOWN if step is None else f"{step:.2f} ms, {where}"}.'


def _cost(row: Row, field: str) -> float | None:
    found = (row.get("cost") or {}).get(field)
    return row.get(field) if found is None else found


def _breaks(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    row = choice.row
    cells = row.get("robustness")
    if not cells:
        yield f'"{row["name"]}" without a modality, or with a noisy one: {UNKNOWN}.'
        return
    sign = 1 if summary["higher_is_better"] else -1  # robustness is measured in scores: minus the error
    yield f"How it was trained: {cells['regime']} [{row['name']}: robustness.regime]."
    worst = cells.get("worst_drop")
    if worst and worst.get("value") is not None:
        yield (
            f"Worst: full noise on {worst['modality']} costs {_plain(summary, worst['value'])}"
            f"{_source(row, 'robustness.worst_drop')}."
        )
    for kind, words in (("missing", "without {}"), ("noise", "with full noise on {}")):
        for name, curve in sorted((cells.get(kind) or {}).items()):
            if name == "all":
                continue
            score = sign * curve["mean"][-1]
            scale = f" ({curve['scale']})" if kind == "noise" and curve.get("scale") else ""
            said = f"{words.format(name)}{scale}: {_score(summary, score)}{_source(row, f'robustness.{kind}.{name}')}"
            rest = _best_remaining(choice, name, sign) if len(row["streams"]) > 1 else None
            if rest is None:
                yield f"{said[0].upper()}{said[1:]}."
                continue
            left = f"{rest['streams'][0].upper()} alone has {_score(summary, rest['mean'])}{_source(rest, 'mean')}"
            listed = kind == "noise" and name in (cells.get("harmful") or ())
            if listed or sign * (score - rest["mean"]) < 0:
                yield f"Harmful fusion {said}; {left}. Then drop {name} and use {rest['streams'][0].upper()} alone."
            else:
                yield f"{said[0].upper()}{said[1:]}; {left}."
    if len(row["streams"]) > 1:
        yield from _patterns(row, cells)


def _best_remaining(choice: Choice, lost: str, sign: int) -> Row | None:
    rest = [row for row in choice.rows if row["single"] and row["streams"] != [lost]]
    rest = [row for row in rest if set(row["streams"]) <= set(choice.fusion["streams"])]
    return max(rest, key=lambda row: sign * row["validation"], default=None)


def _patterns(row: Row, cells: Mapping[str, Any]) -> Iterator[str]:
    known = {name: one["ece"] for name, one in (cells.get("patterns") or {}).items() if one.get("ece") is not None}
    if len(known) > 1:
        name = max(sorted(known), key=known.__getitem__)
        yield (
            f"Its probabilities are worst with only {name} present: calibration error {100 * known[name]:.1f} points "
            f"[{row['name']}: robustness.patterns.{name}.ece]."
        )


def _calibration(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    row, cells = choice.row, choice.row.get("calibration")
    if not cells:
        return
    ends = cells.get("ece_interval")
    interval = f", 95 % interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f}, bias taken off" if ends else ""
    yield f"Expected calibration error {100 * cells['ece']:.1f} points{interval}{_source(row, 'calibration.ece')}."
    if "nll_scaled" not in cells:
        yield "No temperature was fitted: its validation scores are of items it was fitted on."
        return
    helps = cells["nll_scaled"] < cells["nll"]
    first = f"Divide the logits by T = {cells['temperature']:.2f}" if helps else "Leave the logits as they are"
    fitted = "" if helps else f" by T = {cells['temperature']:.2f}"
    yield (
        f"{first}: scaling{fitted}, fitted on validation, takes the negative log-likelihood from {cells['nll']:.3f} to "
        f"{cells['nll_scaled']:.3f} nats and the error to {100 * cells['ece_scaled']:.1f} points"
        f"{_source(row, 'calibration.nll, nll_scaled, ece_scaled')}."
    )


def _sureness(summary: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    cell = choice.fusion.get("gain")
    if cell:
        each = len(choice.fusion.get("gains") or ())
        against = _alone(choice) if each < 2 else f"each of {each} single modalities"
        said = (cell["verdict"] or "none, too few seeds") + ", trivial" * bool(cell["trivial"])
        p = cell.get("p_holm")
        shown = "" if p is None else f", p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} after Holm's correction"
        yield (
            f'Verdict on "{choice.fusion["name"]}" against {against}: {said}{shown}{_source(choice.fusion, "gain")}.'
        )
        unit = f"{summary['groups']:,} test groups ({summary['group']})"
        if cell["unit"] == "item":
            unit = f"{summary['items']['test']:,} test items; {summary['groups']} groups are too few to draw"
        yield f"Intervals draw {len(cell['seeds'])} seeds and {unit}."
    if summary["unit"] == "item":
        yield "They speak for these groups only."
    if summary.get("groups_cross"):
        yield f"The published split lets a {summary['group']} stand in train and test: of new ones nothing is known."
    missing = summary.get("missing_parts")
    if missing is None:
        yield f"Whether the table holds all that the protocol asks for: {UNKNOWN}."
    elif missing:
        yield f"NON-CONFORMING: the protocol also asks for {'; '.join(missing)} [missing_parts]."
    else:
        yield "The table holds all baselines and controls that the protocol asks for [conforming]."
    for row in (choice.fusion, choice.single):
        if row is not None and not row["conforming"]:
            yield f'"{row["name"]}" breaks a rule of the protocol [{row["name"]}: conforming].'


def _alone(choice: Choice) -> str:
    """The best single modality, and its row where that is called otherwise."""
    if choice.single is None:
        return "no single modality"
    name, stream = choice.single["name"], choice.single["streams"][0]
    return f"{stream.upper()} alone" + ("" if name == stream else f' (row "{name}")')


def _source(row: Row, field: str) -> str:
    return f" [{row['name']}: {field}]"


def _metric(summary: Mapping[str, Any]) -> str:
    unit = Unit.of(summary)
    if unit.percent:
        return f"{unit.name} in percent"
    return unit.name if unit.higher_is_better else f"{unit.name}, lower is better,"


def _score(summary: Mapping[str, Any], number: float) -> str:
    unit = Unit.of(summary)
    return value(summary, number) + (" %" if unit.percent else f" {unit.name}")


def _plain(summary: Mapping[str, Any], number: float | None) -> str:
    """The size of a difference, with its unit."""
    return value(summary, number) + Unit.of(summary).points


def _signed(summary: Mapping[str, Any], number: float) -> str:
    unit = Unit.of(summary)
    return value(summary, number, sign=True) + unit.points + " (+ is better)" * (not unit.percent)


def _difference(summary: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """A gain with its interval, where there are seeds enough for one."""
    ends = (cell.get("lower"), cell.get("upper")) if len(cell["seeds"]) > 2 else None
    return _signed(summary, cell["mean"]) + _between(summary, ends)


def _between(summary: Mapping[str, Any], ends: Sequence[float | None] | None) -> str:
    if ends is None or None in ends:
        return ""
    return " (95 % interval " + " to ".join(value(summary, end, sign=True) for end in ends) + ")"
