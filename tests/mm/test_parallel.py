"""Work in threads: results in order, nothing drawn too early, all stopped at once."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from mm.parallel import in_order


def test_results_come_in_the_order_of_the_items():
    first = threading.Event()

    def last_first(item: int, _) -> int:
        if item == 3:
            first.set()
        elif item == 0:
            first.wait(10)
        return 10 * item

    assert list(in_order(last_first, range(4), threads=4)) == [0, 10, 20, 30]


def test_items_are_drawn_as_they_are_needed():
    drawn = []
    items = (drawn.append(i) or i for i in range(100))
    with closing(in_order(lambda item, _: item, items, threads=2)) as results:
        assert next(results) == 0
        assert len(drawn) == 4


def test_closing_stops_what_is_in_progress():
    begun, ended = threading.Event(), []

    def until_cancelled(item: int, cancelled) -> int:
        if item:
            begun.set()
            while not cancelled():
                pass
            ended.append(item)
        return item

    with closing(in_order(until_cancelled, [0, 1, 2], threads=1)) as results:
        assert next(results) == 0
        begun.wait(10)
    assert ended == [1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_ends_the_others_and_is_raised(error):
    stopped = []

    def fails(item: int, cancelled) -> int:
        if item == 0:
            raise error
        while not cancelled():
            pass
        stopped.append(item)
        return item

    with pytest.raises(error):
        list(in_order(fails, [0, 1], threads=2))
    assert stopped in ([1], [])  # what had not begun never does


def test_no_items_no_results():
    assert list(in_order(lambda item, _: item, [], threads=2)) == []
