"""Who holds up the others: a worker that does not answer, or takes much longer for its share of a step.

In synchronous training all wait for the last one, and a collective operation does not say for whom. So every worker
answers, from a thread of its own, how many steps it has done and how long its own part of a step takes, and the others
ask. A worker that hangs as a whole (stopped, swapped out, cut off) does not answer. Where batch normalisation is
synchronized, the workers wait for each other within their own parts, too: these waits do not count (`noted_waits`).
"""

import contextlib
import ipaddress
import json
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bigkeras.step import Step
from bigkeras.workers import Workers, addresses

ANSWER = 5.0  # seconds that a worker gets to answer, and no more than the patience
SLOW = 2.0  # times the median of the others
RECENT = 20  # steps that the time is the mean of


class Watch:
    """Begins with `with`, in every worker at the same place; does nothing where there is one worker only.

    `say` gets a line for each thing found. `patience`: seconds without a step after which the others are asked.
    """

    def __init__(self, workers: Workers, step: Step, say: Callable[[str], None], patience: float):
        self.workers, self.step, self.say, self.patience = workers, step, say, patience
        self.steps, self.at, self.own = 0, time.monotonic(), [0.0] * RECENT
        self.ended = threading.Event()
        self.places: list[tuple[str, int]] = []
        self.told: set[str] = set()
        self.heard: set[int] = set()  # who has answered: of others a firewall may be what is in the way

    def __enter__(self) -> "Watch":
        if self.workers.count == 1:
            return self
        names = addresses(self.workers)
        host = re.sub(r":\d+$", "", names[self.workers.index])
        # On the address that the others know this worker by, and no other; behind NAT it is not this machine's.
        try:
            self.server: socket.socket | None = socket.create_server((own_address(host, names), 0))
        except OSError as error:
            self.server = None
            self.say(f"{host}: {error.strerror}: a worker that hangs or is slow is not told of")
        mine = json.dumps([host, self.server.getsockname()[1] if self.server else 0]).encode()
        places = [tuple(json.loads(self.workers.told(mine, i))) for i in range(self.workers.count)]
        if not all(port for _, port in places):  # told above, by whom it concerns
            if self.server:
                self.server.close()
            return self
        self.places = places
        if not self.step.xla:  # a compiled step cannot call Python
            self.step.clock = self.note
        self.at = time.monotonic()
        threading.Thread(target=self._answer, args=(self.server,), daemon=True).start()
        threading.Thread(target=self._ask, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.ended.set()
        if self.places:
            self.step.clock = None
            assert self.server is not None  # where there are places
            self.server.close()

    def note(self, seconds: Any) -> None:
        """A step's own part is done."""
        self.own[self.steps % RECENT] = float(seconds)
        self.steps, self.at = self.steps + 1, time.monotonic()

    def _answer(self, server: socket.socket) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):  # who asked may be gone
                connection.sendall(json.dumps([self.steps, self._mean()]).encode())

    def _mean(self) -> float:
        done = min(self.steps, RECENT)
        return sum(self.own[:done]) / done if done else 0.0

    def _ask(self) -> None:
        while not self.ended.wait(self.patience / 4):
            answers = {i: self._asked(i) for i in range(self.workers.count) if i != self.workers.index}
            if self.ended.is_set():
                return
            waited = time.monotonic() - self.at
            for index, answer in answers.items():
                if answer:
                    self.heard.add(index)
                # Of a compiled step nobody knows when it was made.
                elif not self.step.xla and waited > self.patience:
                    why = "is cut off" if index in self.heard else "a firewall stands before its ports"
                    self._once(
                        f"{self._name(index)} does not answer, and {waited:.0f} s without a step: it hangs or {why}"
                    )
            stands = waited > self.patience and self.steps and not self.step.xla
            if self.workers.chief and stands and all(answers.values()):
                why = "it is scored, or one waits for its data or its device"
                self._once(f"{waited:.0f} s without a step, and all workers answer: {why}")
            if self.workers.chief:
                self._compare({self.workers.index: (self.steps, self._mean()), **answers})

    def _compare(self, answers: dict[int, tuple[int, float] | None]) -> None:
        """Says who is slow; the chief does."""
        times = {i: answer[1] for i, answer in answers.items() if answer and answer[0] >= RECENT}
        for index, seconds in times.items():
            others = [t for i, t in times.items() if i != index]
            if others and seconds > SLOW * statistics.median(others) and seconds > 0.01:
                usual = statistics.median(others)
                self._once(f"{self._name(index)} is slow: {seconds:.2g} s for its part of a step, others {usual:.2g} s")

    def _once(self, text: str) -> None:
        key = re.sub(r"[\d.e-]+ s\b.*", "", text)  # the same, with other times
        if key not in self.told:
            self.told.add(key)
            self.say(text)

    def _name(self, index: int) -> str:
        return f"worker {index} ({addresses(self.workers)[index]})"

    def _asked(self, index: int) -> tuple[int, float] | None:
        try:
            with socket.create_connection(self.places[index], timeout=min(ANSWER, self.patience)) as connection:
                steps, seconds = json.loads(connection.recv(1000))
                return int(steps), float(seconds)
        except (OSError, ValueError):
            return None


def own_address(host: str, names: Sequence[str]) -> str:
    """The address of this machine's `host` that other machines reach, by the names of all workers, with their ports.

    Debian's /etc/hosts calls the machine's own name 127.0.1.1, where nobody else is heard: then it is the address from
    which packets to the first worker elsewhere would go.
    """
    address = socket.gethostbyname(host)
    others = {re.sub(r":\d+$", "", name) for name in names} - {host}
    if not ipaddress.ip_address(address).is_loopback:
        return address
    for other in sorted(others):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            there = socket.gethostbyname(other)
            if not ipaddress.ip_address(there).is_loopback:
                asked.connect((there, 9))  # nothing is sent
                return asked.getsockname()[0]
    return address
