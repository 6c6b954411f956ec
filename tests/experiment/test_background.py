"""Work done ahead: the order stays, errors come in their turn, and what is not wanted any more is not begun."""

import contextlib
import threading
import time

import pytest

from mmjax.experiment.background import map_ahead


def test_results_come_in_the_order_of_the_items_whatever_takes_longest():
    def slowly(number):
        time.sleep(0.03 if number == 0 else 0.0)
        return 10 * number

    assert [(item, result()) for item, result in map_ahead(slowly, range(5))] == [(n, 10 * n) for n in range(5)]
    assert list(map_ahead(slowly, [])) == []


def test_the_next_ones_are_begun_while_one_is_in_use_and_no_more():
    begun, both = [], threading.Event()

    def noted(number):
        begun.append(number)
        if len(begun) == 3:
            both.set()

    with contextlib.closing(map_ahead(noted, range(10), count=2)) as coming:
        next(coming)
        assert both.wait(10) and sorted(begun) == [0, 1, 2]
    assert len(begun) == 3  # left early: the rest is not begun


def test_an_error_comes_when_its_item_does():
    def odd(number):
        if number == 1:
            raise ValueError("one")
        return number

    coming = map_ahead(odd, range(3))
    assert next(coming)[1]() == 0
    with pytest.raises(ValueError, match="one"):
        next(coming)[1]()
    assert next(coming)[1]() == 2
