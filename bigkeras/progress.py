"""How a training run shows its progress: one bar over all epochs, and a line with the results of each."""

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import keras
import numpy as np
from tqdm import tqdm

from bigkeras.data.plan import epoch_plan
from bigkeras.recipe import Recipe
from bigkeras.signals import Patient

LAST_KEYS = ("learning_rate", "examples_per_second", "tokens_per_second")
SILENCE = 60.0  # seconds between two lines of a long epoch where no bar is drawn


class ProgressBar(keras.callbacks.Callback):
    """See `progress_bar`. Keras' own draws a bar for each epoch and knows no time left."""

    def __init__(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        done: int,
        quiet: bool,
        stream: TextIO | Patient,
        unit: str = "examples",
    ):
        super().__init__()
        self.total_epochs, self.steps, self.batch_size, self.done = total_epochs, steps_per_epoch, batch_size, done
        self.quiet, self.stream, self.unit = quiet, stream, unit
        self.bar: Any = None
        self.position = done
        self.before, self.epoch_end = done, total_epochs * steps_per_epoch
        self.began: float | None = None
        self.start = self.told = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        """Draws the bar."""
        self.start = self.told = time.monotonic()
        if not self.quiet:
            self.bar = _bar(self.total_epochs * self.steps, self.done, self.batch_size, self.stream, self.unit)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes where the epoch begins, or goes on."""
        self.before, self.epoch_end = max(epoch * self.steps, self.done), (epoch + 1) * self.steps
        self.began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar; without one, a line tells a minute after the last one how far training is."""
        # Keras counts a resumed epoch from 0, too, and past its end where a call makes several steps.
        now = min(self.before + batch + 1, self.epoch_end)
        if self.bar is None:
            self._tell(now, logs or {})
            return
        drawn = self.bar.update((now - self.position) * self.batch_size)
        self.position = now
        if drawn and logs and "loss" in logs:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4g}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Prints the epoch's line, above the bar where there is one."""
        seconds = None if self.began is None else time.monotonic() - self.began
        line = epoch_line(epoch + 1, self.total_epochs, logs or {}, seconds)
        if self.bar is None:
            print(line, file=self.stream, flush=True)
        else:
            self.bar.write(line, file=self.stream)
        self.told = time.monotonic()

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves a full bar, and takes one away that is not."""
        self.close()

    def _tell(self, now: int, logs: Mapping[str, Any]) -> None:
        """A line in a log file, in which an epoch of hours would look like one that stands still."""
        clock = time.monotonic()
        if clock - self.told < SILENCE:
            return
        self.told, rate, total = clock, (now - self.done) / (clock - self.start), self.total_epochs * self.steps
        left = tqdm.format_interval((total - now) / rate)
        loss = f" | loss {float(logs['loss']):.4g}" if "loss" in logs else ""
        share = f"{math.floor(100 * now / total)} % of {total:,} steps"
        speed = rate * self.batch_size
        told = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        print(f"{share}{loss} | {told} {self.unit}/s  {left} left", file=self.stream, flush=True)

    def close(self) -> None:
        """Ends the bar; to be called where training ends by an exception, before anything is printed."""
        if self.bar is not None:
            self.bar.leave = self.bar.n >= self.bar.total
            self.bar.close()
            self.bar = None


def progress_bar(
    total_epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    *,
    done: int = 0,
    quiet: bool | None = None,
    stream: TextIO | None = None,
    unit: str = "examples",
) -> ProgressBar:
    """A callback: a bar over the whole training with time left, examples per second and loss; a line every epoch.

    `done`: steps that earlier processes did. `quiet`: no bar, only the plain line an epoch and, while one lasts, one a
    minute, without control characters; by default where `stream` (stderr) is no terminal or CI is set. `unit`: what
    `batch_size` counts.
    """
    stream = stream or sys.stderr
    if quiet is None:
        quiet = not stream.isatty() or os.environ.get("CI", "").lower() not in ("", "0", "false")
    return ProgressBar(total_epochs, steps_per_epoch, batch_size, done, quiet, Patient(stream), unit)


def epoch_line(epoch: int, total_epochs: int, logs: Mapping[str, Any], seconds: float | None = None) -> str:
    """An epoch's results in a line: training, validation, learning rate, speed.

    >>> epoch_line(3, 10, {"accuracy": 0.8, "loss": 0.5, "val_loss": 0.61234, "examples_per_second": 1234.5}, 2.0)
    'epoch  3/10 | loss 0.5000  accuracy 0.8000 | validation: loss 0.6123 | 1,234 examples/s  2.0 s'
    """
    train = {k: v for k, v in logs.items() if not k.startswith("val_") and k not in LAST_KEYS}
    validation = {k.removeprefix("val_"): v for k, v in logs.items() if k.startswith("val_")}
    last = []
    if "learning_rate" in logs:
        last.append(f"learning rate {float(logs['learning_rate']):.3g}")
    for unit in ("examples", "tokens"):
        if f"{unit}_per_second" in logs:
            last.append(f"{float(logs[f'{unit}_per_second']):,.0f} {unit}/s")
    if seconds is not None:
        last.append(f"{seconds:.1f} s")
    parts = [f"epoch {epoch:>{len(str(total_epochs))}}/{total_epochs}", _scores(train)]
    parts += [f"validation: {_scores(validation)}"] if validation else []
    return " | ".join(part for part in (*parts, "  ".join(last)) if part)


def _scores(values: Mapping[str, Any]) -> str:
    """The loss first: Keras sorts by name."""
    keys = sorted(values, key=lambda key: (key != "loss", key))
    return "  ".join(f"{key} {float(values[key]):.4f}" for key in keys)


def _bar(total: int, done: int, batch_size: int, stream: TextIO | Patient, unit: str) -> Any:
    """A tqdm bar that counts examples, or what else `unit` says, so its rate is examples per second."""
    layout = "{percentage:3.0f}% |{bar}| {elapsed} < {remaining}, {rate_noinv_fmt}{postfix}"
    # smoothing 0.05: the time left counts the validations, too.
    return tqdm(
        total=total * batch_size,
        initial=done * batch_size,
        unit=f" {unit}",
        unit_scale=True,
        bar_format=layout,
        dynamic_ncols=True,
        mininterval=0.3,
        smoothing=0.05,
        file=stream,
    )


def counted(batch_size: int, tokens: float | None, steps: int) -> int:
    """What a step counts for in rates: its examples, of sentence pairs the target's tokens.

    `tokens`: those of pairs in an epoch. A batch of them has room for `batch_size` tokens, of which some are padding.
    """
    return batch_size if tokens is None else max(1, round(tokens / steps))


def examples_of(recipe: Recipe, labels: np.ndarray) -> int:
    """How many examples an epoch has, without those that only fill its last batch."""
    plan = epoch_plan(labels, batch_size=recipe.batch_size, seed=0, epoch=0, balance=recipe.balance)
    return int(np.count_nonzero(plan.weights))
