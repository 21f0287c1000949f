"""Items come in order whoever makes them; the bounds hold, and never stop what is next."""

from __future__ import annotations

import random
import threading
import time

import pytest

from latentcli.jobs.loader.reorder_buffer import ReorderBuffer


def test_items_come_in_order_within_the_bounds():
    window, chance, ahead, most = ReorderBuffer(4, 100), random.Random(0), [0], []
    numbers = []

    def make(number):
        time.sleep(chance.random() / 200)
        assert window.admit(number, 60)
        window.put(number, number)

    def enter():
        for _ in range(40):
            number = window.enter(1, 5)
            ahead[0] = number + 1
            numbers.append(threading.Thread(target=make, args=(number,)))
            numbers[-1].start()
        window.end()

    thread = threading.Thread(target=enter)
    thread.start()
    found = []
    for item in window.items():
        found.append(item)
        most.append(ahead[0] - len(found))
    thread.join()
    assert found == list(range(40))
    assert 1 <= max(most) <= 4


def test_bytes_wait_but_not_those_of_the_next():
    window = ReorderBuffer(10, 100)
    first, second = window.enter(1, 0), window.enter(1, 0)
    admitted = threading.Event()

    def later():
        window.admit(second, 80)
        admitted.set()

    window.admit(first, 5000)
    thread = threading.Thread(target=later)
    thread.start()
    assert not admitted.wait(0.05)
    window.put(first, "a")
    assert next(window.items()) == "a"
    assert admitted.wait(60)


def test_what_is_larger_than_the_window_passes_alone():
    window = ReorderBuffer(2, 10)
    assert window.enter(50, 500) == 0
    window.put(0, "large")
    assert next(window.items()) == "large"
    assert window.enter(50, 500) == 1


def test_a_failure_comes_first_and_an_error_in_its_place():
    window = ReorderBuffer(9, 9)
    for item in "ab":
        window.put(window.enter(1, 1), item)
    window.end(KeyError("the end"))
    items = window.items()
    assert next(items) == "a"
    window.fail(OSError("broken"))
    with pytest.raises(OSError, match="broken"):
        next(items)


@pytest.mark.parametrize(("refill", "taken"), [(1.0, 1), (0.5, 4), (0.0, 8)])
def test_who_enters_is_woken_once_there_is_room_for_several(refill, taken):
    window = ReorderBuffer(8, 100, refill)
    for number in range(8):
        window.put(window.enter(1, 0), number)
    entered = threading.Event()

    def enter():
        window.enter(1, 0)
        entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    items = window.items()
    for number in range(taken):
        assert not entered.wait(0.05)
        assert next(items) == number
    assert entered.wait(5)
    thread.join()


def test_closing_ends_all_waiting():
    window = ReorderBuffer(1, 1)
    assert window.enter(1, 1) == 0
    found = []
    thread = threading.Thread(target=lambda: found.append(window.enter(1, 1)))
    thread.start()
    window.close()
    thread.join(60)
    assert found == [None]
    assert not window.admit(0, 5)


def test_waiting_is_called_while_nothing_comes():
    window, calls = ReorderBuffer(1, 1), []

    def waiting():
        calls.append(1)
        if len(calls) == 2:
            window.end()

    assert list(window.items(waiting)) == []
    assert len(calls) == 2
