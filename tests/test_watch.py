"""Who is named when workers wait: two watches in one process, their steps noted by hand."""

import json
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from bigkeras import watch
from bigkeras.watch import own_address

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


def entered(addresses, monkeypatch, patience=0.2):
    """The chief's watch, the other worker's, and what each says."""
    monkeypatch.setattr(watch, "addresses", lambda workers: addresses)
    told_by, said = {0: queue.Queue(), 1: queue.Queue()}, (queue.Queue(), queue.Queue())
    step = SimpleNamespace(xla=False, clock=None)
    watches = [watch.Watch(Worker(i, told_by), step, said[i].put, patience) for i in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(watch.Watch.__enter__, watches))
    return *watches, *said


@pytest.fixture
def two(monkeypatch):
    """The chief's watch, the other worker's, and what the chief says."""
    *watches, said, _ = entered(ADDRESSES, monkeypatch)
    yield *watches, said
    for each in watches:
        each.__exit__()


def test_a_worker_behind_an_address_of_another_machine_trains_without_the_watch(monkeypatch):
    # 192.0.2.0/24 is for documentation (RFC 5737): no machine's, as the outer address of a container is not.
    chief, other, by_chief, by_other = entered([ADDRESSES[0], "192.0.2.1:1002"], monkeypatch)
    assert by_other.get(timeout=60).startswith("192.0.2.1: ")
    assert by_chief.empty() and not chief.places and not other.places
    for each in (chief, other):
        each.note(0.1)
        each.__exit__()


def test_a_name_of_this_machine_alone_is_not_where_others_ask(monkeypatch):
    # Debian's /etc/hosts; 192.0.2.1 is nobody's, but there is a way to it.
    known = {"here": "127.0.1.1", "there": "192.0.2.1", "beside": "127.0.0.1"}
    monkeypatch.setattr(socket, "gethostbyname", known.__getitem__)
    assert own_address("here", ["here:1", "beside:2"]) == "127.0.1.1"
    assert own_address("there", ["here:1", "there:2"]) == "192.0.2.1"
    connected = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, place: connected.append(place))
    monkeypatch.setattr(socket.socket, "getsockname", lambda self: ("198.51.100.7", 0))
    assert own_address("here", ["here:1", "there:2"]) == "198.51.100.7" and connected == [("192.0.2.1", 9)]


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


def test_a_group_that_stands_still_though_all_answer_is_told_of(two):
    chief, _, said = two
    chief.note(0.1)
    told = heard(said, "all workers")
    assert "s without a step, and all workers answer: it is scored, or one waits for its data" in told


def test_a_worker_that_does_not_answer_is_named_before_the_first_step_too(two):
    _, other, said = two
    other.__exit__()
    assert "worker 1 (127.0.0.1:1002) does not answer" in heard(said, "does not answer")


def test_a_worker_answers_others_when_one_is_gone_before_its_answer(two):
    _, other, _ = two
    mean, asked = other._mean, []

    def failing() -> float:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionResetError
        return mean()

    other._mean = failing
    address = other.server.getsockname()
    for _ in range(2):
        with socket.create_connection(address, timeout=60) as connection:
            answer = connection.recv(100)
    assert json.loads(answer) == [0, 0.0] and len(asked) >= 2


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
