"""The examples of a run that cannot be read: noted where they are met, known to all workers, and counted."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bigkeras.data.bad import reason
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.run import write_csv
from bigkeras.tasks.task import Task
from bigkeras.workers import Workers


class Unreadable:
    """Why each example cannot be read, by its name: `noted` by this worker or told of, `shared` by all workers."""

    def __init__(self, splits: Splits, limit: float, directory: Path, task: Task | None = None):
        """`limit`: the greatest share of the examples that may be so; `directory`: where they are listed.

        `task`: None before there is one, when nothing but rows of tables has been read.
        """
        self.splits, self.task, self.limit, self.directory = splits, task, limit, directory
        self.noted: dict[str, str] = dict(splits.bad)
        self.shared = dict(self.noted)  # in one order
        self.checked = 0  # of those

    def restore(self, known: dict[str, str]) -> None:
        """Takes in what a checkpoint knows."""
        self.noted.update(known)
        self.shared.update(known)

    def note(self, source: Source, index: int) -> None:
        """Notes an example; called from the pipeline's threads."""
        name = source.name(index)
        if name not in self.noted:
            assert self.task is not None  # what is learned from has one
            self.noted[name] = reason(source, index, self.task.prepare)

    def fresh(self) -> dict[str, str]:
        """What the other workers do not know of yet."""
        return {name: why for name, why in list(self.noted.items()) if name not in self.shared}

    def share(self, fresh: dict[str, str], workers: Workers) -> None:
        """Has every worker know of what each one has in `fresh`; all must call it."""
        for worker in range(workers.count):
            self.restore(json.loads(workers.told(json.dumps(fresh).encode(), worker)))

    def check(self) -> None:
        """Raises DataError, on all workers alike, where they are too many."""
        if len(self.shared) == self.checked:
            return
        self.checked = len(self.shared)
        splits, found = self.splits, self._rows_of(self.shared)
        # Of texts every row was read; pictures of the test split are read when it is scored.
        tested: Any = () if self.task and self.task.kind == "image" else splits.test or ()
        train = splits.labelled or splits.train  # without what a teacher answers
        total = splits.read or len(train) + len(splits.validation or ()) + len(tested) + len(splits.bad)
        if found > self.limit * total:
            first = "; ".join(f"{name}: {why}" for name, why in list(self.shared.items())[:3])
            raise DataError(
                f"{found} of {total} examples cannot be read, more than max_bad_fraction={self.limit:g} "
                f"allows; the first: {first}; all are in {self.directory / 'bad_samples.csv'}"
            )

    def _rows_of(self, names: Iterable[str]) -> int:
        """How many examples have these names: several rows of a table may name one picture."""
        before = Counter(name for name, _ in self.splits.bad)
        sources = [self.splits.train, *filter(None, [self.splits.validation])]
        fresh = set(names) - before.keys()
        found = (source.name(i) for source in sources for i in range(len(source))) if fresh else ()
        times = Counter(name for name in found if name in fresh)
        return before.total() + sum(max(times[name], 1) for name in fresh)

    def write(self) -> None:
        """Writes bad_samples.csv: these, and what is left out on purpose. Raises RunError."""
        # Of a unit with several translations, several are of one name.
        listed = {*self.splits.ignored, *self.noted.items()}
        rows = [{"sample": name, "reason": why} for name, why in sorted(listed)]
        write_csv(self.directory / "bad_samples.csv", rows, ("sample", "reason"))
