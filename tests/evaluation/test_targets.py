"""Published numbers: the status at its very bounds, tolerances by hand, and conventions that are never compared."""

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.targets import METRICS, STATUSES, check_metric, judge

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


def test_the_tolerance_is_a_point_or_two_standard_deviations_or_what_the_row_says():
    spread = [0.70, 0.74, 0.78]  # mean 74, s.d. 4 points: tolerance 8
    assert judge({**PAPER, "value": 82.0}, spread)["tolerance"] == pytest.approx(8.0)
    assert judge({**PAPER, "value": 81.9}, spread)["status"] == "reproduced"
    assert judge({**PAPER, "value": 82.1}, spread)["status"] == "close"
    assert judge({**PAPER, "value": 90.1}, spread)["status"] == "not reproduced"
    same = judge({**PAPER, "value": 76.0, "tolerance": 0.5, "reason": "fewer videos"}, spread)
    assert (same["status"], same["tolerance"], same["reason"]) == ("not reproduced", 0.5, "fewer videos")


def test_an_errors_tolerance_is_a_hundredth_of_the_published_number():
    paper = {**PAPER, "value": 2.0, "metric": "mae"}
    assert judge(paper, [1.98], scale=1.0)["status"] == "reproduced"
    assert judge(paper, [2.03], scale=1.0)["status"] == "close"
    assert judge(paper, [2.05], scale=1.0)["status"] == "not reproduced"
    assert judge(paper, [2.0], scale=1.0)["tolerance"] == pytest.approx(0.02)


def test_what_cannot_run_says_why_and_nothing_published_is_no_target():
    found = judge({**PAPER, "cannot_run": "its features were never published"}, [0.75])
    assert (found["status"], found["tolerance"]) == ("cannot run", None)
    assert found["reason"] == "its features were never published"
    for values in (None, [], np.zeros(0)):
        found = judge(PAPER, values)
        assert (found["status"], found["reason"]) == ("cannot run", "not run") and found["value"] == 75.0
    assert judge(None, [0.5]) is None


def test_two_conventions_are_not_compared():
    for metric in METRICS:
        check_metric(metric, metric, "row")
    with pytest.raises(UsageError, match=r"'late' measures acc2_has0 .*neutral items kept.*reports acc2_non0") as error:
        check_metric("acc2_has0", "acc2_non0", "late")
    assert "not compared" in str(error.value) and "\n" not in str(error.value)
    for names in (("acc2", "acc2_has0"), ("acc2_has0", "acc2")):
        with pytest.raises(UsageError, match=r"'late': 'acc2' is no metric with a convention.*acc2_has0"):
            check_metric(*names, "late")
