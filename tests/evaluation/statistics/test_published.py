"""Published numbers: the status at its very bounds, tolerances by hand, and conventions that are never compared."""

import numpy as np
import pytest
import scipy.stats

from mmjax.errors import UsageError
from mmjax.evaluation.scores import score
from mmjax.evaluation.statistics.published import STATUSES, check_metric, judge, metrics

PAPER = {"value": 75.0, "source": "a paper, table 1", "checked": True, "metric": "accuracy", "split": "test"}


@pytest.mark.parametrize(
    ("ours", "status"),
    [
        (0.75, "reproduced"),
        (0.74, "reproduced"),  # just at the tolerance, below and above
        (0.76, "reproduced"),
        (0.7399, "close"),
        (0.7601, "close"),
        (0.73, "close"),  # just at twice the tolerance
        (0.77, "close"),
        (0.7299, "not reproduced"),
        (0.7701, "not reproduced"),
    ],
)
def test_the_status_at_its_bounds(ours, status):
    """One point either way is a reproduction, two are close; the bounds themselves belong to the better status."""
    found = judge(PAPER, [ours])
    assert found["status"] == status and found["tolerance"] == 1.0 and found["status"] in STATUSES
    assert {name: found[name] for name in PAPER} == PAPER and found["reason"] == ""


def test_noise_never_makes_a_reproduction():
    """The faults it mends: 6.9 points off read `reproduced (± 7.0)`, an interval that holds the number `not`."""
    spread = [0.70, 0.74, 0.78]  # mean 74, s.d. 4 points: ± 9.94
    half = 4.302653 * 4 / np.sqrt(3)
    far = judge({**PAPER, "value": 80.9}, spread)
    assert far["status"] == "consistent (wide)" and far["tolerance"] == 1.0
    assert far["difference"] == pytest.approx(-6.9)
    np.testing.assert_allclose(far["difference_interval"], [-6.9 - half, -6.9 + half], rtol=1e-6)
    assert judge({**PAPER, "value": 74.2}, spread)["status"] == "consistent (wide)"  # near by luck
    assert judge({**PAPER, "value": 90.1}, spread)["status"] == "not reproduced"
    tight = [0.738, 0.740, 0.742]  # ± 0.50
    assert judge({**PAPER, "value": 74.9}, tight)["status"] == "reproduced"
    assert judge({**PAPER, "value": 75.4}, tight)["status"] == "close"
    assert judge({**PAPER, "value": 76.1}, tight)["status"] == "not reproduced"
    own = judge({**PAPER, "value": 75.4, "tolerance": 1.5, "reason": "fewer videos"}, tight)
    assert (own["status"], own["tolerance"], own["reason"]) == ("reproduced", 1.5, "fewer videos")


def test_a_published_deviation_widens_the_interval():
    """Welch's: 4 points over 3 runs of ours, 3 points over 5 of theirs; of one run theirs counts as exact."""
    spread = [0.70, 0.74, 0.78]
    ours, theirs = 16 / 3, 9 / 5
    freedom = (ours + theirs) ** 2 / (ours**2 / 2 + theirs**2 / 4)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(ours + theirs)
    published = judge({**PAPER, "sd": 3.0, "runs": 5}, spread)
    np.testing.assert_allclose(published["difference_interval"], [-1 - half, -1 + half])
    same = judge({**PAPER, "sd": 1.0}, [0.74] * 3)
    np.testing.assert_allclose(same["difference_interval"], [-1 - 1.959964, -1 + 1.959964], rtol=1e-6)
    assert same["status"] == "consistent (wide)" and judge(PAPER, [0.74] * 3)["status"] == "reproduced"


def test_an_errors_tolerance_is_a_hundredth_of_the_published_number():
    paper = {**PAPER, "value": 2.0, "metric": "mae"}
    assert judge(paper, [1.98], score("mae"))["status"] == "reproduced"
    assert judge(paper, [2.03], score("mae"))["status"] == "close"
    assert judge(paper, [2.05], score("mae"))["status"] == "not reproduced"
    assert judge(paper, [2.0], score("mae"))["tolerance"] == pytest.approx(0.02)


def test_what_cannot_run_says_why_and_nothing_published_is_no_target():
    found = judge({**PAPER, "cannot_run": "its features were never published"}, [0.75])
    assert (found["status"], found["tolerance"]) == ("cannot run", None)
    assert found["reason"] == "its features were never published"
    for values in (None, [], np.zeros(0)):
        found = judge(PAPER, values)
        assert (found["status"], found["reason"]) == ("cannot run", "not run") and found["value"] == 75.0
    assert judge(None, [0.5]) is None


def test_two_conventions_are_not_compared():
    for metric in metrics():
        check_metric(metric, metric, "row")
    with pytest.raises(UsageError, match=r"'late' measures acc2_has0 .*neutral items kept.*reports acc2_non0") as error:
        check_metric("acc2_has0", "acc2_non0", "late")
    assert "not compared" in str(error.value) and "\n" not in str(error.value)
    for names in (("acc2", "acc2_has0"), ("acc2_has0", "acc2")):
        with pytest.raises(UsageError, match=r"'late': 'acc2' is no metric with a convention.*acc2_has0"):
            check_metric(*names, "late")
