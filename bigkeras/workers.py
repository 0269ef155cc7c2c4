"""What several workers (processes, each with a share of every batch) agree on between their steps.

Each of them runs the same program. One, the chief, writes the run directory; what it reads there and what goes wrong
for it, the others are told. All of it goes through the strategy's own collective operations, so there is nothing
else to configure, and the run directory need not be seen by the others. One worker alone agrees with itself.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

# Bytes are sent in pieces of this size: a checkpoint may be large.
PIECE = 2**24


class ChiefError(ValueError):
    """What went wrong for the chief, as the other workers are told."""


class LostWorker(ValueError):
    """Another worker is gone; the group must be started again."""


class Workers:
    """The workers of a strategy: `count` of them, of which this process is number `index`; number 0 is the chief."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.count, self.index = strategy, 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            order = [(kind, i) for kind, tasks in _jobs(resolver) for i in range(len(tasks))]
            self.count = len(order)
            self.index = order.index((resolver.task_type, resolver.task_id)) if order else 0
        self.local_replicas = strategy.num_replicas_in_sync // self.count

    @property
    def chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.index == 0

    def sums(self, numbers: list[float]) -> list[float]:
        """Each number summed over the workers; float64. All workers must call it, with lists of one length."""
        return list(numbers) if self.count == 1 else [float(n) for n in self._sum(np.array(numbers, np.float64))]

    def told(self, data: bytes, worker: int = 0) -> bytes:
        """The bytes that worker number `worker` gives, on every worker; what the others give is not looked at."""
        if self.count == 1:
            return data
        mine = data if self.index == worker else b""
        (size,) = self.sums([len(mine)])
        # Numbers that a sum with zeros leaves as they are, whatever the devices do with odd bit patterns.
        padded = mine + bytes(-len(mine) % 4)
        words = np.frombuffer(padded, np.uint32) if mine else np.zeros(-(-int(size) // 4), np.uint32)
        pieces = [words[i : i + PIECE // 4].astype(np.float64) for i in range(0, len(words), PIECE // 4)]
        received = [self._sum(piece).astype(np.uint32).tobytes() for piece in pieces]
        return b"".join(received)[: int(size)]

    def by_chief(self, function: Callable[[], Any]) -> Any:
        """What `function` gives on the chief, JSON values, on every worker; the others do not call it.

        An error that a user can mend (ValueError, OSError) is raised on every worker, as ChiefError on the others.
        """
        if self.count == 1:
            return function()
        answer, failed = None, None
        if self.chief:
            try:
                answer = function()
            except (ValueError, OSError) as error:
                failed = error
        told = self.told(json.dumps([answer, None if failed is None else str(failed)]).encode())
        if failed is not None:
            raise failed
        answer, message = json.loads(told)
        if message is not None:
            raise ChiefError(message)
        return answer

    def _sum(self, numbers: np.ndarray) -> np.ndarray:
        def of_replica(context: Any) -> tf.Tensor:
            first = context.replica_id_in_sync_group % self.local_replicas == 0
            return tf.constant(numbers if first else np.zeros_like(numbers))

        values = self.strategy.experimental_distribute_values_from_function(of_replica)
        return self.strategy.reduce("SUM", values, axis=None).numpy()


@contextlib.contextmanager
def lost_workers(workers: Workers) -> Iterator[None]:
    """Makes one line of the several errors that TensorFlow raises when another worker is gone, or has other devices."""
    try:
        yield
    except tf.errors.InternalError as error:
        if workers.count == 1 or not re.search("joining a group|device type", str(error)):
            raise
        gpus = len(tf.config.list_logical_devices("GPU"))
        raise LostWorker(
            f"this worker sees {gpus} GPU{'s' * (gpus != 1)}, and others another number: all must see the same "
            "(CUDA_VISIBLE_DEVICES, nvidia-smi, bigkeras doctor)"
        ) from None
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if workers.count == 1:
            raise
        # The first task that the message names may be this one's own device.
        seen = r"(?:remote target|alive failed,|heartbeats\):)\s*/job:(\w+)/replica:\d+/task:(\d+)"
        found = re.search(seen, str(error))
        who = f"{found[1]} {found[2]}" if found else "another worker"
        raise LostWorker(
            f"{who} is gone or does not answer; start all {workers.count} workers again: "
            "the run goes on from its last checkpoint"
        ) from None


def addresses(workers: Workers) -> list[str]:
    """host:port of each worker, in the order of their numbers."""
    if workers.count == 1:
        return ["localhost:0"]
    return [address for _, tasks in _jobs(workers.strategy.cluster_resolver) for address in tasks]


def _jobs(resolver: Any) -> list[tuple[str, list[str]]]:
    """The jobs of a cluster in the order of the ranks: a job called chief comes first."""
    return sorted(resolver.cluster_spec().as_dict().items(), key=lambda job: (job[0] != "chief", job[0]))
