import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.measures import degradation
from mmjax.evaluation.measures.degradation import ALL, LEVELS

LINE = np.linspace(0.9, 0.5, 11)


def test_area_retention_and_effective_robustness_by_hand():
    assert degradation.area(LINE) == pytest.approx(0.7)
    assert degradation.area([1.0, 0.5, 0.0], [0, 0.25, 1]) == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert degradation.retention(LINE, 0.5) == pytest.approx((0.7 - 0.5) / 0.4)
    assert degradation.retention(np.full(11, 0.8), 0.5) == pytest.approx(1)
    assert degradation.retention(np.r_[0.9, np.full(10, 0.1)], 0.5) < 0  # below chance
    assert np.isnan(degradation.retention(np.full(11, 0.5), 0.5))
    reference = np.linspace(0.8, 0.2, 11)
    assert degradation.effective_robustness(LINE, reference) == pytest.approx(-0.2 + 0.3)
    assert degradation.effective_robustness(LINE, LINE - 0.3) == pytest.approx(0)
    seeds = np.stack([LINE, reference], axis=1)
    np.testing.assert_allclose(degradation.area(seeds), [0.7, 0.5])
    np.testing.assert_allclose(degradation.retention(seeds, 0.5), [0.5, 0], atol=1e-12)
    for curve, levels in [(LINE[:5], LEVELS), ([1, 1], [0, 0.5]), ([1, 1, 1], [0, 0, 1]), (1.0, [0, 1])]:
        with pytest.raises(UsageError, match="levels"):
            degradation.area(curve, levels)


def test_worst_drop_and_harmful_fusion_by_hand():
    curves = {"text": np.linspace(0.8, 0.55, 11), "audio": np.linspace(0.8, 0.7, 11), ALL: np.linspace(0.8, 0.1, 11)}
    assert degradation.worst_drop(curves) == ("text", pytest.approx(0.25))
    # text noisy: 0.55 is below audio alone; audio noisy: 0.70 is not below text alone
    assert degradation.harmful(curves, {"text": 0.65, "audio": 0.6}) == ["text"]
    assert degradation.harmful(curves, {"text": 0.75, "audio": 0.5}) == ["audio"]
    three = {**curves, "video": np.linspace(0.8, 0.6, 11)}
    singles = {"text": 0.5, "audio": 0.57, "video": 0.56}
    assert degradation.harmful(three, singles) == ["text"]
    # validation prefers video to audio, whose test score the row also misses, but not with the other numbers
    assert degradation.harmful(three, {**singles, "video": 0.4}, {"text": 0, "audio": 1, "video": 2}) == []
    assert degradation.harmful({"text": LINE}, {"text": 1.0}) == []  # nothing remains
    with pytest.raises(UsageError, match="'video'"):
        degradation.harmful(three, {"text": 1, "audio": 1})
    with pytest.raises(UsageError, match="at least one"):
        degradation.worst_drop({ALL: LINE})


def test_multibench_scores_by_hand():
    late = np.linspace(0.8, 0.6, 11)
    curves = {"late": late, "steep": np.linspace(0.9, 0.5, 11), "flat": np.full(11, 0.75)}
    found = degradation.multibench(curves, late)
    # areas 0.70, 0.70, 0.75; sums over levels of what is above the shifted reference: 0, -1.1, 1.1
    assert {k: v["relative"] for k, v in found.items()} == pytest.approx({"late": 0, "steep": 0, "flat": 1}, abs=1e-9)
    assert {k: v["effective"] for k, v in found.items()} == pytest.approx({"late": 0.5, "steep": 0, "flat": 1})
    assert np.isnan(degradation.multibench({"late": late}, late)["late"]["relative"])
    with pytest.raises(UsageError, match="'short'"):
        degradation.multibench({"short": late[:4]}, late)
