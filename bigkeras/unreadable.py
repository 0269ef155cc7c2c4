"""The examples of a run that cannot be read: noted where they are met, known to all workers, and counted."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigkeras.data.bad import reason
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.run import write_csv
from bigkeras.tasks.task import Task
from bigkeras.workers import Workers

FILE = "bad_samples.csv"  # of a run directory


class Unreadable:
    """Why each example cannot be read, by its name: `noted` by this worker or told of, `shared` by all workers."""

    def __init__(self, splits: Splits, task: Task, limit: float, directory: Path):
        """`limit`: the greatest share of the examples that may be so; `directory`: where they are listed."""
        self.splits, self.task, self.limit, self.directory = splits, task, limit, directory
        self.noted: dict[str, str] = dict(splits.bad)
        self.shared = dict(self.noted)  # in the order in which all workers have learned of them
        self.checked = 0  # how many of these `check` has seen
        self.times: Counter[str] | None = None  # how many examples have each name

    def learn(self, known: Mapping[str, str]) -> None:
        """Takes in what a checkpoint or another worker knows."""
        self.noted.update(known)
        self.shared.update(known)

    def note(self, source: Source, index: int) -> None:
        """Notes an example; called from the pipeline's threads."""
        name = source.name(index)
        if name not in self.noted:
            self.noted[name] = reason(source, index, self.task.prepare)

    def fresh(self) -> dict[str, str]:
        """What the other workers do not know of yet."""
        return {name: why for name, why in list(self.noted.items()) if name not in self.shared}

    def share(self, fresh: dict[str, str], workers: Workers) -> None:
        """Has every worker know of what each one has in `fresh`; all must call it."""
        for worker in range(workers.count):
            self.learn(json.loads(workers.told(json.dumps(fresh).encode(), worker)))

    def check(self) -> None:
        """Raises DataError, on all workers alike, where they are too many."""
        if len(self.shared) == self.checked:
            return
        self.checked = len(self.shared)
        # Pictures of the test split are read when it is scored; of texts every row was read.
        tested = self.task.kind != "image"
        check_share(self.splits, self._count(), self.shared, self.limit, self.directory, tested=tested)

    def _count(self) -> int:
        """How many examples are known to be unreadable: several rows of a table may name one picture."""
        before = {name for name, _ in self.splits.bad}
        fresh = [name for name in self.shared if name not in before]
        if fresh and self.times is None:  # once: there may be a million
            sources = [self.splits.train, *filter(None, [self.splits.validation])]
            self.times = Counter(source.name(i) for source in sources for i in range(len(source)))
        times = self.times or Counter()
        return len(self.splits.bad) + sum(max(times[name], 1) for name in fresh)

    def write(self) -> None:
        """Writes bad_samples.csv. Raises RunError."""
        write_listed(self.splits, self.noted, self.directory)


def check_share(
    splits: Splits, found: int, named: Mapping[str, str], limit: float, directory: Path, *, tested: bool = True
) -> None:
    """Raises DataError where `found` examples, the `named` ones, are more than a share `limit` of all that was read.

    `tested`: whether the test split was read.
    """
    parts: list[Any] = [splits.labelled or splits.train, splits.validation]  # without what a teacher answers
    total = splits.read or sum(len(part or ()) for part in [*parts, splits.test if tested else ()]) + len(splits.bad)
    if found > limit * total:
        first = "; ".join(f"{name}: {why}" for name, why in list(named.items())[:3])
        raise DataError(
            f"{found} of {total} examples cannot be read, more than max_bad_fraction={limit:g} allows; the first: "
            f"{first}; all are in {directory / FILE}"
        )


def write_listed(splits: Splits, named: Mapping[str, str], directory: Path) -> None:
    """Writes bad_samples.csv: the `named` ones, and what is left out on purpose. Raises RunError."""
    # Of a unit with several translations, several are of one name.
    listed = {*splits.ignored, *named.items()}
    rows = [{"sample": name, "reason": why} for name, why in sorted(listed)]
    write_csv(directory / FILE, rows, ("sample", "reason"))
