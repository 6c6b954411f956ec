"""Cells of what was measured, against numbers worked out by hand on a row of two modalities and four items."""

import numpy as np
import pytest

from mmjax.evaluation.report.analyses import interaction_cells, pattern_cells, robustness_cells
from mmjax.evaluation.scores import score
from mmjax.evaluation.statistics.significance import seed_interval

TARGET = np.asarray([0, 0, 1, 1])


def outputs(*right, margin=2.0):
    """Logits ``[seeds, items, 2]`` of seeds that get these items right, one string of 0 and 1 a seed."""
    answers = np.asarray([[int(x) for x in one] for one in right]) == 1
    said = np.where(answers, TARGET, 1 - TARGET)
    return (margin * np.eye(2)[said]).astype(np.float32)


def row():
    """Three seeds: all right with both modalities, three of four with text, half with audio, a quarter with none."""
    return {
        "pattern/audio+text": outputs("1111", "1111", "1111"),
        "pattern/text": outputs("1110", "1101", "1011"),
        "pattern/audio": outputs("1100", "1010", "0110"),
        "pattern/": outputs("1000", "0100", "0010"),
    }


def swept(clean, *levels):
    """``[levels, draws, seeds]``: scores of each level, the two draws a tenth apart, the seeds equal."""
    values = [[clean, clean], *([level - 0.05, level + 0.05] for level in levels)]
    return np.repeat(np.asarray(values)[:, :, None], 3, axis=2)


GIVEN = {"metric": score("accuracy"), "chance": 0.5, "reference": None, "singles": {"audio": 0.6, "text": 0.8},
         "chosen_by": {"audio": 0.6, "text": 0.8}, "scales": {"audio": "SNR 30 to -10 dB"},
         "regime": "clean-trained"}  # fmt: skip


def test_every_pattern_has_its_score_interval_and_calibration_error():
    cells = pattern_cells(row(), TARGET, score("accuracy"))
    assert set(cells) == {"audio+text", "text", "audio"}  # of nothing there is no cell
    assert {name: cell["mean"] for name, cell in cells.items()} == {"audio+text": 1, "text": 0.75, "audio": 0.5}
    confidence = 1 / (1 + np.exp(-2.0))
    # All items have one confidence and share a bin: the calibration error is its distance to the share right.
    for name, share in (("audio+text", 1), ("text", 0.75), ("audio", 0.5)):
        assert cells[name]["ece"] == pytest.approx(abs(share - confidence), abs=1e-6)
        assert cells[name]["interval"] == (share, share)
    numbers = {name: logits[..., 1] for name, logits in row().items()}
    assert all("ece" not in cell for cell in pattern_cells(numbers, TARGET, score("mae")).values())
    alone = pattern_cells({name: logits[:1] for name, logits in row().items()}, TARGET, score("accuracy"))
    assert alone["text"] == {"mean": 0.75, "interval": None, "ece": pytest.approx(confidence - 0.75)}  # one seed


def test_a_curve_of_noise_by_hand():
    analysis = row() | {"noise/audio": swept(1.0, 0.9, 0.6), "noise/all": swept(1.0, 0.7, 0.5)}
    found = robustness_cells(analysis, TARGET, **GIVEN)
    audio = found["noise"]["audio"]
    assert audio["levels"] == [0, 0.5, 1] and audio["scale"] == "SNR 30 to -10 dB"
    np.testing.assert_allclose(audio["mean"], [1, 0.9, 0.6])
    assert audio["area"] == pytest.approx((1 / 2 + 0.9 + 0.6 / 2) / 2)
    assert audio["retention"] == pytest.approx((0.85 - 0.5) / 0.5)
    assert audio["effective"] is None  # nothing to compare with
    assert found["noise"]["all"]["scale"] == "each at this severity"
    assert found["worst_drop"] == {"modality": "audio", "value": pytest.approx(0.4)}
    assert found["regime"] == "clean-trained"


def test_the_interval_of_a_curve_is_over_seeds_of_the_mean_over_draws():
    draws = np.random.default_rng(0).uniform(0.5, 1, (2, 4, 3))
    found = robustness_cells(row() | {"noise/text": draws}, TARGET, **GIVEN)["noise"]["text"]
    for level in range(2):
        np.testing.assert_allclose(found["interval"][level], seed_interval(draws[level].mean(0)))
        np.testing.assert_allclose(found["mean"][level], draws[level].mean())


def test_missing_modalities_by_hand():
    """Of one modality a straight line to the score without it; of all, the patterns' scores by their chances."""
    missing = robustness_cells(row(), TARGET, **GIVEN)["missing"]
    p = np.asarray(missing["text"]["levels"])
    np.testing.assert_allclose(p, np.linspace(0, 1, 11), atol=1e-12)
    np.testing.assert_allclose(missing["text"]["mean"], 1 - p / 2)
    np.testing.assert_allclose(missing["audio"]["mean"], 1 - p / 4)
    np.testing.assert_allclose(
        missing["all"]["mean"], (1 - p) ** 2 + p * (1 - p) * (0.75 + 0.5) + p**2 * 0.25, atol=1e-12
    )
    assert missing["text"]["area"] == pytest.approx(0.75) and missing["audio"]["retention"] == pytest.approx(0.75)


def test_effective_robustness_is_what_falls_less_than_the_reference():
    analysis = row() | {"noise/text": swept(1.0, 0.8, 0.6)}
    reference = row() | {"noise/text": swept(0.9, 0.6, 0.4)}
    found = robustness_cells(analysis, TARGET, **{**GIVEN, "reference": reference})
    fallen, theirs = np.asarray([0, -0.2, -0.4]), np.asarray([0, -0.3, -0.5])
    over = fallen - theirs
    assert found["noise"]["text"]["effective"] == pytest.approx((over[0] / 2 + over[1] + over[2] / 2) / 2)
    assert found["missing"]["text"]["effective"] == pytest.approx(0)  # the same patterns
    # A reference of other modalities is not a curve to compare with.
    fewer = {name: values for name, values in reference.items() if "audio" not in name}
    found = robustness_cells(analysis, TARGET, **{**GIVEN, "reference": fewer})
    assert found["missing"]["text"]["effective"] is None


@pytest.mark.parametrize(
    ("audio", "text", "singles", "expected"),
    [
        (0.79, 0.61, {"audio": 0.6, "text": 0.8}, ["audio"]),  # without audio text alone would be better
        (0.81, 0.59, {"audio": 0.6, "text": 0.8}, ["text"]),
        (0.80, 0.60, {"audio": 0.6, "text": 0.8}, []),  # no worse is not harmful
        (0.10, 0.10, {"audio": 0.6}, None),  # a single is not known: nothing is said
    ],
)
def test_harmful_modalities(audio, text, singles, expected):
    analysis = row() | {"noise/audio": swept(1.0, audio), "noise/text": swept(1.0, text), "noise/all": swept(1.0, 0.0)}
    found = robustness_cells(analysis, TARGET, **{**GIVEN, "singles": singles})
    assert found["harmful"] == expected


def test_of_one_modality_nothing_is_worst_or_harmful():
    analysis = {"pattern/text": row()["pattern/text"], "pattern/": row()["pattern/"], "noise/text": swept(0.75, 0.5)}
    found = robustness_cells(analysis, TARGET, **GIVEN)
    assert found["worst_drop"] is None and found["harmful"] is None and set(found["missing"]) == {"text"}
    np.testing.assert_allclose(found["missing"]["text"]["mean"][-1], 0.25)


def test_without_noise_patterns_are_there_and_nothing_is_said_of_noise():
    found = robustness_cells(row(), TARGET, **GIVEN)
    assert found["noise"] == {} and found["worst_drop"] is None and found["harmful"] is None
    assert set(found["patterns"]) == {"audio+text", "audio", "text"}
    assert set(found["missing"]) == {"audio", "text", "all"}


def test_scores_are_minus_errors_and_have_no_retention():
    target = np.asarray([0.0, 1.0])
    analysis = {
        "pattern/a": np.asarray([[0.5, 0.5], [0.0, 1.0]], np.float32),
        "pattern/": np.asarray([[1.0, 1.0], [1.0, 1.0]], np.float32),
        "noise/a": -np.asarray([[[0.5, 0.0]], [[1.0, 1.0]]]),
    }
    found = robustness_cells(analysis, target, **{**GIVEN, "metric": score("mae"), "chance": 0.0})
    assert found["patterns"]["a"]["mean"] == -0.25 and "ece" not in found["patterns"]["a"]
    np.testing.assert_allclose(found["noise"]["a"]["mean"], [-0.25, -1])
    assert np.isnan(found["noise"]["a"]["retention"])  # null in table.json


def test_interaction_cells_by_hand():
    analysis = {
        "emap/score": np.asarray([[0.7, 0.8], [0.6, 0.7], [0.8, 0.9]]),
        "emap/gap": np.asarray([[0.1, 0.0], [0.2, 0.1], [0.0, 0.1]]),
        "emap/items": np.asarray(20),
        "shapley/values": np.asarray([[0.1, 0.3], [0.2, 0.2], [-0.1, 0.3]]),
        "shapley/rule": np.asarray("permutation"),
        "perceptual/values": np.asarray([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]]),
    }
    found = interaction_cells(analysis, ["text", "audio"])  # in whatever order: modalities are sorted on disk
    assert found["emap"]["score"] == pytest.approx(0.75) and found["emap"]["gap"] == pytest.approx(1 / 12)
    np.testing.assert_allclose(found["emap"]["interval"], seed_interval([0.05, 0.15, 0.05]))
    assert (found["emap"]["n"], found["emap"]["draws"], found["emap"]["seeds"]) == (20, 2, 3)
    audio, text = found["shapley"]["audio"], found["shapley"]["text"]
    assert audio["value"] == pytest.approx(0.2 / 3) and text["value"] == pytest.approx(0.8 / 3)
    assert audio["share"] == pytest.approx((0.25 + 0.5 - 0.25) / 3)  # over the sum of sizes, seed by seed
    assert text["share"] == pytest.approx((0.75 + 0.5 + 0.75) / 3)
    np.testing.assert_allclose(audio["interval"], seed_interval([0.1, 0.2, -0.1]))
    assert found["shapley_rule"] == "permutation"
    assert found["perceptual"]["audio"]["value"] == pytest.approx(0.2)
    assert found["perceptual"]["text"]["value"] == 0.5
    assert interaction_cells(row(), ["audio", "text"]) is None


def test_a_model_that_ignores_everything_has_no_shares():
    nothing = {
        "emap/score": np.full((1, 1), 0.5),
        "emap/gap": np.zeros((1, 1)),
        "emap/items": np.asarray(4),
        "shapley/values": np.zeros((1, 2)),
        "shapley/rule": np.asarray("null"),
        "perceptual/values": np.zeros((1, 2)),
    }
    found = interaction_cells(nothing, ["a", "b"])
    assert {cell["share"] for cell in found["shapley"].values()} == {0.0} and found["emap"]["interval"] is None
