import copy
import json
import re

import pytest

from mmjax.errors import UsageError
from mmjax.evaluation import advise
from mmjax.evaluation.report.recommendation import choose
from tests.evaluation.full import bare_summary, empty_summary, full_summary


def gain(mean, lower, upper, over="text", verdict="better", seeds=5, p=0.0004, trivial=False):
    return {"mean": mean, "lower": lower, "upper": upper, "over": over, "seeds": list(range(seeds)), "p_holm": p,
            "verdict": verdict, "trivial": trivial, "unit": "group"}  # fmt: skip


def curve(*mean):
    return {"mean": list(mean), "scale": "SNR 30 to -10 dB", "levels": [0, 1]}


def row(name, streams, validation, mean, **fields):
    single = len(streams) == 1 and not fields.get("role")
    return {"name": name, "streams": list(streams), "validation": validation, "mean": mean, "single": single,
            "section": "", "kind": "model", "status": "done", "conforming": True, "seeds": [0, 1, 2, 3, 4],
            "role": "single" if single else None, "best_single": False, "params": 1000, "flops": 2000, "gain": None,
            "calibration": None, **fields}  # fmt: skip


def summary(*rows, **changes):
    return {
        "table": "toy", "title": "A toy", "primary": "accuracy", "metric_name": "accuracy", "higher_is_better": True,
        "items": {"test": 400, "validation": 100}, "groups": 40, "group": "video", "unit": "group",
        "groups_cross": False, "streams": ["audio", "text"], "seeds": [0, 1, 2, 3, 4], "conforming": True,
        "missing_parts": [], "rows": list(rows), **changes,
    }  # fmt: skip


def singles():
    return [row("text", ["text"], 0.80, 0.81, best_single=True), row("audio", ["audio"], 0.60, 0.61)]


def late(validation=0.85, mean=0.85, **fields):
    fields = {"gain": gain(0.04, 0.02, 0.06), **fields}
    return row("mean of logits", ["audio", "text"], validation, mean, role="mean of logits", kind="fit", params=0,
               flops=None, **fields)  # fmt: skip


def fused(name="gated", validation=0.90, mean=0.89, **fields):
    fields = {"gain": gain(0.08, 0.05, 0.11), "gain_late_mean": gain(0.04, 0.02, 0.06, "mean of logits"), **fields}
    return row(name, ["audio", "text"], validation, mean, **fields)


def control(mean, lower, upper, of="gated"):
    return row(f"{of}: audio shuffled", ["audio", "text"], 0.8, 0.8, role="shuffled control",
               gain=gain(mean, lower, upper))  # fmt: skip


def headline(*rows, **changes):
    return advise(summary(*rows, **changes)).splitlines()[2]


def test_the_best_fusion_on_validation_where_it_helps():
    text = advise(summary(*singles(), late(), fused(), fused("FiLM", 0.88, 0.95)))
    assert text.splitlines()[2].startswith('USE THE FUSION "gated".')
    for said in (
        '"gated" is the best of 3 fusions of all modalities on validation: 90.0 % [gated: validation].',
        "TEXT alone is the best single modality on validation: 80.0 % [text: validation].",
        '"gated" reaches 89.0 % [gated: mean], TEXT alone 81.0 % [text: mean].',
        "+8.0 points (95 % interval +5.0 to +11.0), compared with \"text\" [gated: gain].",
        "+4.0 points (95 % interval +2.0 to +6.0), compared with \"mean of logits\" [gated: gain_late_mean].",
        'Verdict on "gated" against TEXT alone: better, p < 0.001 after Holm\'s correction [gated: gain].',
        "Intervals draw 5 seeds and 40 test groups (video).",
        "The table holds all baselines and controls",
    ):  # fmt: skip
        assert said in text


@pytest.mark.parametrize("worse", [0.0, 0.5])
def test_test_scores_choose_nothing(worse):
    """Every test score but the verdicts is turned round: the choice stays."""
    rows = [*singles(), late(), fused(), fused("FiLM", 0.88, 0.95)]
    for one in rows:
        one["mean"] = worse + 0.4 * (1 - one["mean"])
        one["test_selected"] = one["mean"]
    assert headline(*rows).startswith('USE THE FUSION "gated".')


def test_the_untrained_mean_is_preferred_where_it_is_no_worse_within_the_noise():
    """The noise of validation: half of 0.10 points wide, on 100 items instead of 400 twice that: 0.10."""
    near = gain(0.01, -0.04, 0.06, "mean of logits")
    text = advise(summary(*singles(), late(0.81), fused(gain_late_mean=near)))
    assert 'USE THE FUSION "mean of logits".' in text
    assert "simpler and no worse within the noise, so it is preferred: 81.0 % on validation" in text
    assert "noise ± 10.0 points" in text
    assert '"gated" gains +1.0 points (95 % interval −4.0 to +6.0) over it' in text
    assert "2 k parameters" in text  # of both single-modality models
    assert headline(*singles(), late(0.79), fused(gain_late_mean=near)).startswith('USE THE FUSION "gated".')
    unsure = late(0.89, gain=gain(0.01, -0.01, 0.03, verdict="inconclusive"))
    assert headline(*singles(), unsure, fused(gain_late_mean=near)).startswith('USE THE FUSION "gated".')
    few = gain(0.01, -0.04, 0.06, "mean of logits", seeds=2)
    assert headline(*singles(), late(0.89), fused(gain_late_mean=few)).startswith('USE THE FUSION "gated".')


def test_a_combination_costs_what_its_members_do():
    linear = row("logistic on statistics of audio", ["audio"], 0.5, 0.5, kind="fit", params=None)
    mean = late(0.95, members=["text", "audio"])
    text = advise(summary(*singles(), linear, mean))
    assert "have together 2 k parameters" in text and "[text, audio: cost]" in text


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("worse", "is worse"), ("equivalent", "same within 1 point"), ("inconclusive", 'a gain of "gated" is not shown')],
)
def test_where_fusion_does_not_help_the_single_modality_is_used(verdict, said):
    line = headline(*singles(), fused(gain=gain(0.0, -0.01, 0.01, verdict=verdict)))
    assert line.startswith("USE TEXT alone: ")
    assert said in line


def test_a_fusion_that_validation_puts_behind_is_not_used_however_good_on_test():
    line = headline(*singles(), fused(validation=0.79, mean=0.99))
    assert line == 'USE TEXT alone: on validation no fusion reaches it, the best is "gated".'


def test_few_seeds_decide_nothing():
    line = headline(*singles(), fused(gain=gain(0.08, 0.05, 0.11, verdict="too few seeds", seeds=4)))
    assert line == 'NOT DECIDED: 4 seeds allow no verdict, 5 do. For now validation alone prefers "gated".'
    one = gain(0.08, 0.05, 0.11, verdict=None, seeds=1, p=None)
    behind = fused(validation=0.7, gain=one, gain_late_mean=None)
    text = advise(summary(*singles(), behind))
    assert "For now validation alone prefers TEXT alone." in text
    assert "95 % interval" not in text


def test_a_gain_that_the_shuffled_control_keeps_is_regularisation():
    base = [*singles(), late(), fused()]
    kept = advise(summary(*base, control(0.07, 0.03, 0.10)))
    assert kept.splitlines()[2].endswith(
        "But the gain is regularisation: with the other modalities shuffled in training it stays."
    )
    assert 'Shuffled control "gated: audio shuffled": +7.0 points' in kept
    partly = advise(summary(*base, control(0.03, 0.01, 0.05)))
    assert "A part of the gain is regularisation" in partly
    lost = advise(summary(*base, control(0.0, -0.02, 0.02)))
    assert "the gain is lost, so it is information from the other modalities" in lost
    assert "regularisation" not in lost
    unclear = advise(summary(*base, control(0.03, -0.04, 0.10)))
    assert "whether the gain stays cannot be told" in unclear
    none = advise(summary(*base))
    assert "Shuffled control: not measured; the gain may be regularisation." in none
    other = [row("late", ["audio", "text"], 0.7, 0.7, role="concatenation", gain=gain(0, 0, 0)),
             control(0.0, -0.02, 0.02, of="late")]  # fmt: skip
    assert 'Shuffled control "late: audio shuffled"' in advise(summary(*base, *other))


@pytest.mark.parametrize("scores", [None, "fitted"])
def test_what_was_fitted_on_validation_is_left_out(scores):
    """By the field of the row; tables of before there was one have stacking fitted so."""
    name = "stacking" if scores is None else "any name"
    text = advise(summary(*singles(), fused(), fused(name, 1.0, 0.9, kind="fit", validation_scores=scores)))
    assert f'"{name}" was left out' in text
    held_out = fused("stacking", 1.0, 0.9, kind="fit", validation_scores="cross-fitted")
    assert headline(*singles(), fused(), held_out).startswith('USE THE FUSION "stacking".')


def linear(validation, **fields):
    return row("logistic on statistics of audio+text", ["audio", "text"], validation, validation, kind="fit",
               role="linear", gain=gain(0.05, 0.03, 0.07), **fields)  # fmt: skip


def test_a_table_whose_networks_stay_below_the_linear_model_says_so():
    said = 'No network beats the linear model "logistic on statistics of audio+text": 91.0 %'
    assert said in advise(summary(*singles(), late(), fused(), linear(0.91)))
    text = advise(summary(*singles(), late(), fused(), linear(0.91)))
    assert 'the best network "gated" 90.0 % [gated: validation].' in text
    for rows in ([fused(), linear(0.89)], [fused()]):  # one network reaches it; there is none
        assert "No network" not in advise(summary(*singles(), late(), *rows))
    # A control and rows that train nothing are no networks that reach it.
    assert said in advise(summary(*singles(), late(0.99), fused(), linear(0.91), control(0, 0, 0) | {"validation": 1}))
    worse = {"primary": "mae", "metric_name": "mae", "higher_is_better": False}
    alone = [row("text", ["text"], 1.3, 1.3, best_single=True)]
    assert "No network beats" in advise(summary(*alone, fused(validation=1.2), linear(1.1), **worse))
    assert "No network beats" not in advise(summary(*alone, fused(validation=1.0), linear(1.1), **worse))


def test_networks_that_lose_to_a_constant_are_named():
    worse = {"primary": "mae", "metric_name": "mae", "higher_is_better": False}
    worse["known"] = [{"name": "mean of train", "value": 1.2}, {"name": "median of train", "value": 1.18}]
    rows = [row("text", ["text"], 1.3, 1.3, best_single=True), fused(validation=1.2, mean=1.19)]
    said = "No network beats the median of train as a constant, 1.18 mae on test [known]."
    assert said in advise(summary(*rows, **worse)).replace("1.180", "1.18")
    rows[1]["mean"] = 1.17
    assert "as a constant" not in advise(summary(*rows, **worse))


def test_a_modality_whose_network_stays_behind_a_linear_model_is_named():
    fits = [row("logistic on statistics of text", ["text"], 0.83, 0.83, kind="fit"),
            row("logistic on statistics of audio", ["audio"], 0.5, 0.5, kind="fit")]  # fmt: skip
    text = advise(summary(*singles(), fused(), *fits))
    assert "Of TEXT alone the network stays behind a fit without one: 80.0 % [text: validation] against 83.0 %" in text
    assert "Of AUDIO alone" not in text


def test_only_fusions_of_all_modalities_and_no_control_are_considered():
    table = summary(*singles(), fused(), control(0.0, -0.1, 0.1) | {"validation": 1.0})
    table["streams"] = ["audio", "text", "video"]
    with pytest.raises(UsageError, match="no finished row that fuses all modalities"):
        advise(table)
    table["streams"] = ["audio", "text"]
    assert 'USE THE FUSION "gated".' in advise(table)


def test_where_it_breaks():
    robustness = {
        "regime": "clean-trained",
        "missing": {"audio": curve(0.89, 0.70), "text": curve(0.89, 0.65), "all": curve(0.89, 0.5)},
        "noise": {"audio": curve(0.89, 0.85), "text": curve(0.89, 0.30), "all": curve(0.89, 0.5)},
        "worst_drop": {"modality": "text", "value": 0.59},
        "harmful": ["text"],
        "patterns": {"audio+text": {"ece": 0.02}, "audio": {"ece": 0.31}, "text": {"ece": 0.1}},
    }
    text = advise(summary(*singles(), fused(robustness=robustness)))
    for said in (
        "full noise on text costs 59.0 points [gated: robustness.worst_drop]",
        "Harmful fusion without audio: 70.0 % [gated: robustness.missing.audio]; TEXT alone has 81.0 % [text: mean]. "
        "Then drop audio and use TEXT alone.",
        "Without text: 65.0 % [gated: robustness.missing.text]; AUDIO alone has 61.0 % [audio: mean].",
        "With full noise on audio (SNR 30 to -10 dB): 85.0 % [gated: robustness.noise.audio]",
        "Harmful fusion with full noise on text (SNR 30 to -10 dB): 30.0 %",
        "Then drop text and use AUDIO alone.",
        "worst with only audio present: calibration error 31.0 points [gated: robustness.patterns.audio.ece]",
    ):
        assert said in text
    assert '"gated" without a modality, or with a noisy one: not measured.' in advise(summary(*singles(), fused()))


def test_calibration_interaction_and_cost_with_their_units():
    cells = {"ece": 0.08, "ece_interval": [0.05, 0.09], "ece_scaled": 0.03, "temperature": 1.5, "nll": 0.5,
             "nll_scaled": 0.4}  # fmt: skip
    interaction = {
        "emap": {"gap": 0.03, "interval": [0.01, 0.05]},
        "shapley": {"audio": {"share": 0.25}, "text": {"share": 0.75}},
    }
    cost = {"params": 12_345, "params_fusion": 2_000, "flops": 3e6}
    table = summary(*singles(), fused(calibration=cells, interaction=interaction, cost=cost))
    text = advise(table, {"gated": {"step_ms": 1.234}})
    for said in (
        "calibration error 8.0 points, 95 % interval 5.0 to 9.0",
        "Divide the logits by T = 1.50",
        "from 0.500 to 0.400 nats and the error to 3.0 points",
        'EMAP gap of "gated": +3.0 points (95 % interval +1.0 to +5.0); it uses the interplay',
        "audio 25 %, text 75 % [gated: interaction.shapley]",
        "12.3 k parameters; 2 k of them in the fusion; 3 M FLOPs",
        '"gated", a training step: 1.23 ms',
        '"text", a training step: not measured.',
    ):
        assert said in text
    cells |= {"nll_scaled": 0.6}
    interaction["emap"] = {"gap": 0.0, "interval": [-0.01, 0.01]}
    text = advise(table)
    assert "Leave the logits as they are: scaling by T = 1.50" in text
    assert "no interplay of the modalities is shown" in text


def test_what_the_table_lacks_is_said():
    text = advise(summary(*singles(), fused(), missing_parts=["joint transformer"], conforming=False))
    assert "NON-CONFORMING: the protocol also asks for joint transformer" in text
    few = summary(*singles(), fused(), unit="item", groups=3)
    few["rows"][-1]["gain"]["unit"] = "item"
    text = advise(few)
    assert "400 test items; 3 groups are too few to draw" in text
    assert "They speak for these groups only." in text


def test_another_single_modality_than_validation_chose():
    """Better than text, which validation chose, and not than audio: neither is advised; or worse than audio: said."""
    gains = {"text": {**gain(0.18, 0.12, 0.24), "p": 0.001}, "audio": {**gain(0.02, -0.02, 0.06, "audio"), "p": 0.3}}
    unsure = fused(gain=gain(0.02, -0.02, 0.06, "audio", verdict="inconclusive"), gains=gains)
    text = advise(summary(*singles(), unsure))
    assert text.splitlines()[2] == (
        'NOT DECIDED: "gated" is better than TEXT alone, which validation prefers, but a gain over "audio" is not '
        'shown on test. Choose between "gated" and "audio" on more validation data.'
    )
    assert 'Over "text" alone: +18.0 points (95 % interval +12.0 to +24.0) [gated: gains].' in text
    assert "against each of 2 single modalities: inconclusive" in text
    below = {**gain(-0.17, -0.2, -0.14, "audio", verdict="worse"), "below": ["audio"]}
    gains["text"] |= {"mean": -0.01, "lower": -0.05, "p": 0.6}
    assert headline(*singles(), fused(gain=below, gains=gains)) == 'USE TEXT alone: "gated" is worse than "audio".'


def test_no_single_modality_no_verdict():
    assert headline(fused(gain=None)).startswith("NOT DECIDED: no single modality was run")


def test_an_error_is_better_lower():
    rows = [row("text", ["text"], 0.9, 0.9, best_single=True), fused("gated", 0.5, 0.5), fused("FiLM", 0.7, 0.4)]
    text = advise(summary(*rows, primary="mae", metric_name="mae", higher_is_better=False))
    assert 'USE THE FUSION "gated".' in text
    assert '"gated" reaches 0.500 mae' in text
    assert "+0.080 mae (+ is better) (95 % interval" in text


def test_sections_each_get_their_advice():
    others = [{**one, "section": "in context", "validation": one["validation"] - 0.1} for one in [*singles(), fused()]]
    text = advise(summary(*others, *singles(), fused("FiLM")))
    assert 'USE THE FUSION "FiLM".' in text.splitlines()[2]
    assert '- "in context": USE THE FUSION "gated".' in text


@pytest.mark.parametrize("make", [bare_summary, empty_summary, full_summary])
@pytest.mark.parametrize("name", ["cmu_mosi", "digits"])
def test_tables_of_every_age_get_advice(make, name):
    """Fields that are not there, null, or filled; what is null is not measured, and nothing is altered."""
    table = make(name)
    before = copy.deepcopy(table)
    text = advise(table)
    assert table == before
    assert text.split("\n")[2].startswith(("USE ", "NOT DECIDED"))
    for word in ("None", "nan", "null"):
        assert word not in text
    if make is bare_summary:
        assert "not measured" in text
        assert choose(table)[0].row["name"] in text
    assert max(map(len, text.splitlines())) < 400


def test_pooled_folds_are_refused():
    pooled = json.loads('{"table": "x", "folds": [1], "rows": [], "primary": "accuracy"}')
    with pytest.raises(UsageError, match="of pooled folds take the folder of one fold"):
        advise(pooled)


@pytest.mark.parametrize("make", [bare_summary, empty_summary, full_summary])
@pytest.mark.parametrize("name", ["cmu_mosi", "uci_mfeat"])
def test_a_sentence_stands_on_one_line_and_blocks_are_one_line_apart(make, name):
    _, _, _, *blocks = advise(make(name)).removesuffix("\n").split("\n\n")
    for block in blocks:
        title, *lines = block.split("\n")
        assert title and not title.startswith("-") and lines
        assert all(re.match(r"- \S.*\S.*[.\]]$", line) and "  " not in line and " ." not in line for line in lines)
