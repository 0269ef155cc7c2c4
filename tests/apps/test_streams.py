"""Lines are answered as they come, and all of them in order."""

import threading

import pytest

from apps.streams import groups


@pytest.mark.parametrize("live", [True, False])
def test_all_lines_come_in_order_and_no_group_is_too_large(live):
    parts = list(groups(iter(range(1000)), 32, live))
    assert [line for part in parts for line in part] == list(range(1000))
    assert max(map(len, parts)) <= 32


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
