"""Asynchronous training: each worker takes the next batch when it is ready; the weights lie on parameter servers.

One process, the chief, is the run: it reads the data in the plan's order, hands out batches, saves, validates. A worker
reads the weights, computes the gradients of its batch and applies them, whatever the others have done meanwhile. So a
slow worker delays nobody, a fallen one costs its own step, which another one makes, and it may come back; but gradients
may be of weights some steps old, and two runs are never the same to the last digit.
Source: Dean et al. 2012, "Large Scale Distributed Deep Networks", section 4.1, Downpour SGD.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from bigkeras.step import Step
from bigkeras.workers import LostWorker

AHEAD = 2  # batches for each worker that are handed out before one is done


def serve() -> None:
    """What a worker or parameter server does: answers the chief, until it is told to leave (SIGTERM or SIGINT)."""
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
    print(f"{resolver.task_type} {resolver.task_id}: ready", file=sys.stderr, flush=True)
    # The server has threads of its own, which do not end with this one.
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    leave.wait()
    del server
    os._exit(0)


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
            self.done.append({name: float(value) for name, value in remote.fetch().items()})
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
