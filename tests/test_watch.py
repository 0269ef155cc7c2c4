"""Who is named when workers wait: two watches in one process, their steps noted by hand."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from bigkeras import watch

ADDRESSES = ["127.0.0.1:1001", "127.0.0.1:1002"]


class Worker:
    """Worker `index` of two, as far as a watch asks: what a worker tells is in `told_by`."""

    count = 2

    def __init__(self, index: int, told_by: dict[int, queue.Queue]):
        self.index, self.chief, self.told_by = index, index == 0, told_by

    def told(self, data: bytes, worker: int) -> bytes:
        if worker != self.index:
            return self.told_by[worker].get(timeout=60)
        self.told_by[worker].put(data)
        return data


@pytest.fixture
def two(monkeypatch):
    """The chief's watch, the other worker's, and what the chief says."""
    monkeypatch.setattr(watch, "addresses", lambda workers: ADDRESSES)
    told_by, said = {0: queue.Queue(), 1: queue.Queue()}, queue.Queue()
    step = SimpleNamespace(xla=False, clock=None)
    watches = [watch.Watch(Worker(i, told_by), step, said.put if i == 0 else str, 0.2) for i in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(watch.Watch.__enter__, watches))
    yield *watches, said
    for each in watches:
        each.__exit__()


def heard(said: queue.Queue, what: str) -> str:
    """The first line that holds `what`; queue.Empty where none comes."""
    while what not in (line := said.get(timeout=60)):
        pass
    return line


def test_a_worker_with_twice_the_time_for_its_part_is_slow(two):
    chief, other, said = two
    for _ in range(watch.RECENT):
        chief.note(0.1)
        other.note(0.5)
    assert heard(said, "slow") == "worker 1 (127.0.0.1:1002) is slow: 0.5 s for its part of a step, others 0.1 s"


def test_a_worker_that_does_not_answer_is_named(two):
    chief, other, said = two
    chief.note(0.1)
    other.__exit__()
    assert "worker 1 (127.0.0.1:1002) does not answer" in heard(said, "does not answer")


def test_a_worker_that_does_not_answer_is_named_before_the_first_step_too(two):
    _, other, said = two
    other.__exit__()
    assert "worker 1 (127.0.0.1:1002) does not answer" in heard(said, "does not answer")


def test_workers_that_answer_and_are_alike_are_not_named(two):
    chief, other, said = two
    asked, ask = threading.Semaphore(0), chief._asked

    def counted(index: int):
        asked.release()
        return ask(index)

    chief._asked = counted
    for _ in range(watch.RECENT):
        chief.note(0.1)
        other.note(0.19)
    for _ in range(5):
        assert asked.acquire(timeout=60)
    assert not any("slow" in line for line in said.queue)
