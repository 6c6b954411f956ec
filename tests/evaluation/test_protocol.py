"""What a table must hold: take away one part and it is named, and nothing else is."""

import pytest

from mmjax.evaluation.protocol import ROLES, missing_parts
from mmjax.evaluation.scores import score, scores

BOTH = ("audio", "text")


def row(role=None, streams=BOTH, single=False, best=False, status="done"):
    return {"role": role, "streams": list(streams), "single": single, "best_single": best, "status": status}


def whole(names=BOTH):
    """A table that lacks nothing; the last modality is the best alone."""
    singles = [row("single", [name], single=True, best=name == names[-1]) for name in names]
    matched = [row("matched", [name]) for name in names]
    fused = [role for role in ROLES if role not in ("single", "matched", "ensemble control")]
    return [*singles, *matched, *(row(role, names) for role in fused), row("ensemble control", names[-1:]), row()]


def test_a_whole_table_conforms():
    assert missing_parts(whole(), BOTH, 0.5) == []
    three = ("audio", "text", "video")
    assert missing_parts(whole(three), three, 0.5) == []


def test_a_linear_row_is_asked_for_where_there_are_sequences():
    rows = [one for one in whole() if one["role"] != "linear"]
    assert missing_parts(rows, BOTH, 0.5) == []
    for classes in (0.5, None):
        assert missing_parts(rows, BOTH, classes, sequences=True) == [f"linear ({ROLES['linear']})"]
    assert missing_parts(whole(), BOTH, 0.5, sequences=True) == []


@pytest.mark.parametrize("role", [role for role in ROLES if role not in ("single", "linear")])
def test_each_role_that_lacks_is_named_with_what_it_is(role):
    expected = [f"{role} ({ROLES[role]})"]
    assert missing_parts([one for one in whole() if one["role"] != role], BOTH, 0.5) == expected
    unfinished = [{**one, "status": "not run"} if one["role"] == role else one for one in whole()]
    assert missing_parts(unfinished, BOTH, 0.5) == expected


def test_each_modality_alone_is_asked_for():
    for name in BOTH:
        rows = [one for one in whole() if not (one["single"] and one["streams"] == [name])]
        found = missing_parts(rows, BOTH, 0.5)
        assert f"{name} alone" in found and all(word in (f"{name} alone",) or "matched" in word for word in found)
    # A row of one modality that may not be the best single one (a matched one) is not that modality alone.
    rows = [{**one, "single": False} if one["streams"] == ["audio"] else one for one in whole()]
    assert missing_parts(rows, BOTH, 0.5) == ["audio alone"]


def test_the_matched_row_is_that_of_the_best_single_modality():
    rows = [one for one in whole() if one["role"] != "matched" or one["streams"] == ["audio"]]
    assert missing_parts(rows, BOTH, 0.5) == [f"matched ({ROLES['matched']})"]
    rows = [one for one in whole() if one["role"] != "matched" or one["streams"] == ["text"]]
    assert missing_parts(rows, BOTH, 0.5) == []


def test_scores_have_no_decision_rows_and_one_modality_no_fusion():
    decided = ("mean of logits", "prior-corrected product")
    rows = [one for one in whole() if one["role"] not in decided]
    assert missing_parts(rows, BOTH, None) == []
    assert len(missing_parts(rows, BOTH, 0.5)) == 2
    assert missing_parts(whole()[:1], ["audio"], 0.5) == []
    assert missing_parts([], ["audio"], 0.5) == ["audio alone"]


def test_an_empty_table_lacks_everything():
    found = missing_parts([], BOTH, 0.5)
    assert found[:2] == ["audio alone", "text alone"]
    assert sorted(part.partition(" (")[0] for part in found[2:]) == sorted(set(ROLES) - {"single", "linear"})


def test_the_best_fusion_needs_a_control_of_its_own():
    """Of the networks beside the concatenation that is the best on validation; another's control does not stand in."""

    def network(name, validation, **fields):
        return {**row(), "name": name, "kind": "model", "section": "", "validation": validation, **fields}

    rows = [one for one in whole() if one["role"] not in ("concatenation", "shuffled control", None)]
    rows = [{"name": str(place), **one} for place, one in enumerate(rows)]
    rows += [network("joined", 0.9, role="concatenation"), network("gated", 0.7), network("attention", 0.6)]
    controls = [network(f"{name}: audio shuffled", 0.95, role="shuffled control") for name in ("joined", "attention")]
    said = ["shuffled control of 'gated', the best fusion on validation"]
    assert missing_parts([*rows, *controls], BOTH, 0.5) == said
    assert missing_parts([*rows, *controls], BOTH, 0.5, higher_is_better=False) == []  # then attention is the best
    controls.append(network("gated: audio shuffled", 0.5, role="shuffled control"))
    assert missing_parts([*rows, *controls], BOTH, 0.5) == []
    elsewhere = network("other section", 0.99, section="features")
    assert missing_parts([*rows, *controls, elsewhere], BOTH, 0.5) == []


def test_where_no_modality_can_be_asked_alone_only_the_control_of_strangers_is_missed():
    def network(name, validation, **fields):
        return {**row(), "name": name, "kind": "model", "section": "", "validation": validation, **fields}

    rows = [
        {**row(), "name": "closed form", "kind": "fit", "validation": 0.9},
        network("one", 0.4),
        network("two", 0.5),
    ]
    said = "shuffled control of {!r}, the best network on validation"
    assert missing_parts(rows, BOTH, None, alone=False) == [said.format("two")]
    assert missing_parts(rows, BOTH, None, alone=False, higher_is_better=False) == [said.format("one")]
    control = network("two: text shuffled", 0.8, role="shuffled control")
    assert missing_parts([*rows, control], BOTH, None, alone=False) == []
    assert missing_parts([*rows, {**control, "name": "one: text shuffled"}], BOTH, None, alone=False) != []
    assert missing_parts(rows[:1], BOTH, None, alone=False) == []
    assert "audio alone" in missing_parts([*rows, control], BOTH, None)


def test_the_scores_of_two_sides_are_those_that_no_modality_can_have_alone():
    two_sided = {name for name in scores() if not score(name).alone}
    assert two_sided == {name for name in scores("other") if name[:3] in ("rsu", "rec", "med", "map")}
    assert score("rsum").alone is score("map").alone is False and score("accuracy").alone
