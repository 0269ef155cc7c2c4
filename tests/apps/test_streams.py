"""Lines are answered as they come, and all of them in order."""

import os
import threading

import pytest

from apps.streams import LETTERS, groups, is_live


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
