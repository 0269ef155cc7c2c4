"""Asynchronous training: each worker takes the next batch when it is ready; the weights lie on parameter servers.

One process, the chief, is the run: it reads the data in the plan's order, hands out batches, saves, validates. A worker
reads the weights, computes the gradients of its batch and applies them, whatever the others have done meanwhile. So a
slow worker delays nobody, a fallen one costs its own step, which another one makes, and it may come back; but gradients
may be of weights some steps old, and two runs are never the same to the last digit.
A server that is asked to leave takes weights with it: so it tells the chief, which saves and leaves first.
Source: Dean et al. 2012, "Large Scale Distributed Deep Networks", section 4.1, Downpour SGD.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from bigkeras.step import Step
from bigkeras.workers import LostWorker

AHEAD = 2  # batches for each worker that are handed out before one is done
POLL = 0.2  # seconds
# Seconds that a process which is asked to leave still waits for the chief to leave first.
STAYS = {"worker": 10.0, "ps": 30.0}


def serve() -> None:
    """What a worker or parameter server does: answers the chief, until it is told to leave (SIGTERM or SIGINT).

    It stays, some seconds at most, while the chief is there: the chief, asked to leave too, cannot save without it.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    # Fewer threads, and a worker on a small machine waits for itself for ever.
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=max(4, os.cpu_count() or 1))
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=resolver.task_type,
        task_index=resolver.task_id,
        protocol=resolver.rpc_layer or "grpc",
        config=config,
        start=True,
    )
    name = f"{resolver.task_type} {resolver.task_id}"
    # The server has threads of its own, which do not end with this one.
    leave, asked = threading.Event(), []

    def note(signum: int, frame: Any) -> None:
        asked.append(signum)
        leave.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    print(f"{name}: ready", file=sys.stderr, flush=True)
    leave.wait()
    print(f"{name}: {signal.Signals(asked[0]).name}: leaves with the chief, or soon", file=sys.stderr, flush=True)
    if resolver.task_type == "ps":
        _say_leaving(server, resolver.task_id)
    _outstay(resolver.cluster_spec().as_dict()["chief"][0], STAYS[resolver.task_type])
    # Not 0: the launcher brings a worker back that the chief still wants.
    os._exit(128 + asked[0])


def _outstay(address: str, seconds: float) -> None:
    """Waits until nothing listens at the chief's address, but not longer."""
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            socket.create_connection((host, int(port)), timeout=2).close()
            time.sleep(POLL)


def _mark(index: int) -> Any:
    """The handle of the variable on a parameter server that is there when the server is asked to leave."""
    with tf.device(f"/job:ps/replica:0/task:{index}/device:CPU:0"):
        return tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=[], shared_name="leaving", container="")


def _say_leaving(server: tf.distribute.Server, index: int) -> None:
    """Sets the mark on this server, for the chief to see."""
    with tf.Graph().as_default():
        told = tf.raw_ops.AssignVariableOp(resource=_mark(index), value=tf.constant(True))
        # It waits for no other process.
        alone = tf.compat.v1.ConfigProto(device_filters=[f"/job:ps/task:{index}"])
        with tf.compat.v1.Session(server.target, config=alone) as session:
            session.run(told)


def _leaving(index: int) -> bool:
    """Whether parameter server `index` has been asked to leave; asked by the chief."""
    return bool(tf.raw_ops.VarIsInitializedOp(resource=_mark(index)).numpy())


class Asynchronous:
    """Has the steps of a `Step` made by the workers of a ParameterServerStrategy.

    To be made once, when the step has been made in the strategy's scope: from then on its train function hands out
    batches, and everything else, such as validation, goes on in this process.
    """

    def __init__(self, step: Step, strategy: Any, workers: int):
        self.step, self.strategy = step, strategy
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        self.room = threading.Semaphore(AHEAD * workers)
        self.readers = ThreadPoolExecutor(AHEAD * workers)
        self.done: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self.number = 0
        self.loss = 0.0
        _count_every_step(step.optimizer)
        # To fit this is one device: the batches are handed out here.
        step._distribute_strategy = tf.distribute.get_strategy()
        step.train_function = self.call
        object.__setattr__(step, "make_train_function", lambda force=False: None)
        step.settle = self.settle
        self.remote = tf.function(self._remote)

    def call(self, iterator: Any) -> dict[str, Any]:
        """Hands out the next batch; the loss is that of the last step that has come back."""
        batch = next(iterator)
        self.room.acquire()
        self._raise()
        if self.number == 0:
            self.number = int(self.step.optimizer.iterations.numpy())
        self.number += 1
        number = tf.constant(self.number, tf.int64)
        self.readers.submit(self._fetch, self.coordinator.schedule(self.remote, args=(batch, number)))
        self.step.steps_left -= 1
        if self.step.steps_left == 0:
            self.settle()
        self._take()
        return {"loss": self.loss}

    def lookout(self, asked: list[int], say: Callable[[str], None], patience: float) -> "Lookout":
        """What looks after the workers and servers while the run goes."""
        cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
        return Lookout(self.coordinator._cluster.workers, cluster, asked, say, patience)

    def settle(self) -> None:
        """Waits for all steps that were handed out, and counts them."""
        self.coordinator.join()
        for _ in range(self.readers._max_workers):
            self.room.acquire()
        for _ in range(self.readers._max_workers):
            self.room.release()
        self._raise()
        self._take()

    def _remote(self, batch: Any, number: Any) -> dict[str, Any]:
        """A step on a worker: its loss, and for each tracker the weighted sum of what it is the mean of."""
        measured: dict[str, Any] = {}
        step = self.step

        def count(losses: Any, labels: Any, logits: Any, weights: Any) -> None:
            measured["weights"] = measured.get("weights", 0.0) + tf.reduce_sum(weights)
            for name, values in step._measured(losses, labels, logits).items():
                total = tf.reduce_sum(tf.cast(values, tf.float32) * weights)
                measured[name] = measured.get(name, 0.0) + total

        with _replaced(step, "_count", count), _replaced(step, "number", number):
            last = self.strategy.run(step.train_step, args=(batch,))
        return {"last": last, **measured}

    def _fetch(self, remote: Any) -> None:
        try:
            self.done.append({name: float(value) for name, value in _fetched(remote).items()})
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.room.release()

    def _take(self) -> None:
        """What has come back goes into the trackers, here alone: two workers that add at a time would lose counts."""
        while self.done:
            sums = self.done.pop(0)
            weights = sums.pop("weights")
            self.loss = sums.pop("last")
            for name, total in sums.items():
                self.step.trackers[name].update_state(total / max(weights, 1e-9), weights)

    def _raise(self) -> None:
        if self.errors:
            raise self.errors[0]


def _fetched(remote: Any) -> dict[str, Any]:
    """What a step has given; where its worker falls before all is here, what it gives when it is made again."""
    while True:
        try:
            return remote.fetch()
        except tf.errors.OpError:
            # Unavailable while the worker is gone, and an invalid argument when it is back, and does not know the step.
            # One that the coordinator gives up, as of a server, has its error noted.
            if remote._error is not None:
                raise
            time.sleep(POLL)


class Lookout:
    """Begins with `with`, in the chief: sees which worker holds up the others, and which server is asked to leave.

    `say` gets a line for each thing found. `asked` gets a signal when a server is to leave, as if the chief were.
    `patience`: seconds that a worker may take for a step, until it is named; the next checkpoint waits for it.
    """

    def __init__(
        self, workers: Sequence[Any], cluster: dict[str, list[str]], asked: list[int], say: Callable, patience: float
    ):
        """`workers`: the coordinator's own; `cluster`: the addresses of each job."""
        self.cluster, self.asked, self.say, self.patience = cluster, asked, say, patience
        self.ended = threading.Event()
        self.since: dict[int, float] = {}  # when each worker has begun the step that it is at
        self.named: set[int] = set()
        for worker in workers:
            worker._process_closure = self._noted(worker.worker_index, worker._process_closure)

    def __enter__(self) -> "Lookout":
        for function in (self._look, self._ask):
            threading.Thread(target=function, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.ended.set()

    def _noted(self, index: int, process: Callable[[Any], None]) -> Callable[[Any], None]:
        """TensorFlow does not tell which worker has which step: what a worker's thread calls for each notes it."""

        def noted(closure: Any) -> None:
            self.since[index] = time.monotonic()
            try:
                process(closure)
            finally:
                del self.since[index]

        return noted

    def name_overdue(self, now: float) -> None:
        """Says, once of each, which workers have been at a step for longer than the patience."""
        for index, began in dict(self.since).items():
            if now - began > self.patience and index not in self.named:
                self.named.add(index)
                who = f"worker {index} ({self.cluster['worker'][index]})"
                self.say(f"{who}: {now - began:.0f} s at one step: it, or a parameter server, hangs or is cut off")

    def _look(self) -> None:
        while not self.ended.wait(self.patience / 4):
            self.name_overdue(time.monotonic())

    def _ask(self) -> None:
        while not self.ended.wait(5 * POLL):
            for index in range(len(self.cluster["ps"])):
                # A server that is gone is for the training to find; one may only seem so while a worker comes back.
                with contextlib.suppress(tf.errors.OpError):
                    if _leaving(index):
                        self.say(f"ps {index} is asked to leave, and the weights on it with it")
                        self.asked.append(signal.SIGTERM)
                        return


@contextlib.contextmanager
def lost_servers() -> Iterator[None]:
    """Makes one line of the errors that TensorFlow raises when a parameter server is gone."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        found = re.search(r"/job:ps/replica:\d+/task:(\d+)", str(error))
        who = f"ps {found[1]}" if found else "a parameter server"
        raise LostWorker(
            f"{who} is gone or does not answer, and the weights on it with it; start all again: "
            "the run goes on from its last checkpoint"
        ) from None


def _count_every_step(optimizer: Any) -> None:
    """Lets several workers count the optimizer's steps at a time: Keras reads, adds and writes, and loses some."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    counter = inner._iterations

    def add(value: Any) -> Any:
        return counter.value.assign_add(tf.cast(value, counter.dtype))

    counter.assign_add = add


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """The attribute is `value` inside; Keras' tracking of attributes is not asked."""
    before: Callable | None = owner.__dict__.get(name)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if before is None and name not in ("number",):
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, before)
