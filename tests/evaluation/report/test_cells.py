"""How numbers stand in cells: zero, also what is rounded to it, has no sign."""

import re

import pytest

from mmjax.evaluation.report.cells import decimal
from mmjax.evaluation.report.frame import make_frame
from tests.evaluation.full import full_summary


@pytest.mark.parametrize(
    ("number", "digits", "sign", "text"),
    [
        (-0.0, 0, False, "0"),
        (-0.4, 0, False, "0"),
        (-0.04, 1, True, "0.0"),
        (0.04, 1, True, "0.0"),
        (-0.06, 1, True, "−0.1"),
        (0.06, 1, True, "+0.1"),
        (12.25, 2, False, "12.25"),
        (float("nan"), 1, True, "nan"),
    ],
)
def test_signs(number, digits, sign, text):
    assert decimal(number, digits, sign) == text


def test_no_cell_of_a_table_holds_a_zero_with_a_sign():
    summary = full_summary("cmu_mosi")
    tiny, changed = -1e-5, set()
    for row in summary["rows"]:
        for cell in [*(row.get("gains") or {}).values(), row.get("gain")]:
            if cell and cell.get("mean") is not None:
                cell.update(mean=tiny, lower=tiny, upper=-tiny)
                changed.add("gain")
        interaction = row.get("interaction") or {}
        for field, key in (("shapley", "share"), ("perceptual", "value")):
            for cell in (interaction.get(field) or {}).values():
                cell[key] = tiny
                changed.add(field)
        if interaction.get("emap"):
            interaction["emap"].update(gap=tiny, interval=[tiny, -tiny])
            changed.add("emap")
    assert changed == {"gain", "shapley", "perceptual", "emap"}
    frame = make_frame(summary, {})
    texts = [line.cell(column).text for _, lines in frame.blocks for line in lines for column in frame.columns]
    assert not [text for text in texts if re.search(r"[-−+]0(\.0+)?(?![\d.])", text)]
    assert any("0.0 [0.0, 0.0]" in text for text in texts)
