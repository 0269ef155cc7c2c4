"""Lines are answered as they come, and all of them in order."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.remarks import FirstRuns
from apps.streams import LETTERS, groups, is_live, side_by_side


@pytest.mark.parametrize("live", [True, False])
def test_all_lines_come_in_order_and_no_group_is_too_large(live):
    parts = list(groups(iter(range(1000)), 32, live))
    assert [line for part in parts for line in part] == list(range(1000))
    assert max(map(len, parts)) <= 32


@pytest.mark.parametrize("live", [True, False])
def test_long_lines_come_in_small_groups(live):
    lines = ["a" * LETTERS, "b", "c" * (LETTERS // 2), "d" * LETTERS, "e"]
    parts = list(groups(iter(lines), 32, live, letters=len))
    assert [line for part in parts for line in part] == lines
    assert parts[0] == lines[:1] and all(sum(map(len, part[:-1])) < LETTERS for part in parts)


def test_no_more_is_read_ahead_than_a_model_is_given():
    long, read, given = "a" * LETTERS, [], []

    def lines():
        for _ in range(64):
            read.append(len(given))
            yield long

    for part in groups(lines(), 32, live=True, letters=len):
        given += part
    # One is on its way to the model, one waits for room.
    assert len(given) == 64 and all(place - known <= 3 for place, known in enumerate(read))


def test_a_line_is_given_before_the_next_one_is_there():
    answered = threading.Event()

    def lines():
        yield "first"
        assert answered.wait(60)
        yield "second"

    found = groups(lines(), 32, live=True)
    assert next(found) == ["first"]
    answered.set()
    assert list(found) == [["second"]]


def test_what_cannot_be_read_on_is_told_after_what_was_read():
    def lines():
        yield "first"
        raise OSError("gone")

    found = groups(lines(), 32, live=True)
    assert next(found) == ["first"]
    with pytest.raises(OSError, match="gone"):
        list(found)


def test_a_pipe_is_live_and_a_file_is_not(tmp_path):
    (tmp_path / "texts.txt").write_text("one\n")
    os.mkfifo(tmp_path / "pipe")
    assert is_live([], str(tmp_path / "pipe")) and not is_live([], str(tmp_path / "texts.txt"))
    assert not is_live(["good"]) and not is_live([], str(tmp_path / "gone"))


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [2, 2]), (6, [3, 3]), (7, [2, 2, 2, 1])])
def test_things_are_shared_evenly_and_no_part_is_too_large(count, sizes):
    asked = []

    def answer(part):
        asked.append(part)
        return [2 * thing for thing in part]

    with ThreadPoolExecutor(2) as pool:
        assert side_by_side(answer, [*range(count)], 3, 2, pool) == [2 * thing for thing in range(count)]
    assert sorted(map(len, asked), reverse=True) == sizes


def test_parts_are_answered_at_once_and_what_goes_wrong_is_raised():
    both = threading.Barrier(2)

    def answer(part):
        both.wait(60)  # broken if the other part waits for this one
        return part

    with ThreadPoolExecutor(2) as pool:
        assert side_by_side(answer, [1, 2], 8, 2, pool) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda part: [1 // thing for thing in part], [1, 0], 8, 2, pool)


def test_the_first_run_is_one_and_all_others_run_at_once():
    runs, began, both = FirstRuns(), threading.Event(), threading.Barrier(2)
    order = []

    def first():
        with runs.of("serving_default"):
            began.set()
            order.append("first")

    def later():
        began.wait(60)
        with runs.of("serving_default"):
            both.wait(60)  # broken if one of the two waits for the other
            order.append("later")

    with ThreadPoolExecutor(3) as pool:
        for run in [pool.submit(later), pool.submit(later), pool.submit(first)]:
            run.result()
    assert order == ["first", "later", "later"]
