"""What happens between the steps of a run: checkpoints, the best model, the log, early stopping."""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigkeras import checkpoint
from bigkeras.data.plan import steps_per_epoch
from bigkeras.data.source import Source, Splits
from bigkeras.data.token_pairs import TokenPairSource
from bigkeras.metrics import NO_SCORE, epoch_score, had_enough, macro_f1
from bigkeras.progress import ProgressBar, counted, examples_of, progress_bar
from bigkeras.recipe import Recipe
from bigkeras.run import RunError, write_csv
from bigkeras.runtime import Machine
from bigkeras.signals import Interrupted, Log
from bigkeras.step import Step
from bigkeras.tasks.task import Task
from bigkeras.tensorboard import Guarded, tensorboard_callbacks
from bigkeras.translator import ALIGNED, Translator, texts_of, validation_scores
from bigkeras.unreadable import Unreadable
from bigkeras.workers import ChiefError, Workers

ENDS = "the run ends without it"  # where something cannot be written, and else checkpoint.GOES_ON


class Diverged(ValueError):
    """The loss or the weights are no longer numbers; the last good weights are kept."""


class Control(keras.callbacks.Callback):
    """Knows where the run stands, and saves it.

    Best epoch and early stopping are functions of the history, which is in the checkpoint: nothing else to restore.
    """

    def __init__(
        self,
        recipe: Recipe,
        directory: Path,
        step: Step,
        splits: Splits,
        task: Task,
        log: Log,
        asked: list[int],
        machine: Machine,
        workers: Workers,
    ):
        super().__init__()
        self.recipe, self.directory, self.step, self.splits, self.log = recipe, directory, step, splits, log
        self.task, self.asked, self.machine, self.workers = task, asked, machine, workers
        lengths = task.lengths(splits.train)
        self.steps = steps_per_epoch(splits.train.labels, recipe.batch_size, recipe.balance, lengths)
        self.examples = len(splits.train)
        pairs = task.kind == "pairs"
        # Of sentence pairs, real target tokens are counted; batch_size is how many there is room for.
        self.unit = "tokens" if pairs else "examples"
        tokens = splits.train.target_tokens if isinstance(splits.train, TokenPairSource) else None
        self.counted = counted(recipe.batch_size, tokens, self.steps)
        self.of_epoch = self.steps * self.counted if pairs else examples_of(recipe, splits.train.labels)
        self.position = checkpoint.Position()
        self.unreadable = Unreadable(splits, task, recipe.max_bad_fraction, directory)
        self.finished = False
        self.asked_to_leave = 0  # the signal by which an epoch's end was the last
        self.confusion: np.ndarray | None = None  # of the last validation
        self.saved_metrics: list[np.ndarray] | None = None
        self.train_metrics: list[np.ndarray] = []
        self.saved_at = time.monotonic()
        self.began = (time.monotonic(), 0)
        self.first = 0  # step of the last call, which may make several
        self.rate = 0.0
        self.best = NO_SCORE
        self.translator: Translator | None = None
        self.twin: keras.Model | None = None
        self.samples = ""  # some translations of the last validation, as Markdown
        self.shown: list[keras.callbacks.Callback] = []

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """This one and those that only show; this one first, since it completes the logs."""
        self.shown = tensorboard_callbacks(self) if self.workers.chief else []
        goes_on = self.recipe.on_checkpoint_error == "go on"
        self.shown = [Guarded(callback, self.directory, self.log, goes_on) for callback in self.shown]
        if not self.log.quiet:
            self.shown = [self._bar(), *self.shown]
        return [self, *self.shown]

    def _bar(self) -> keras.callbacks.Callback:
        return progress_bar(self.recipe.epochs, self.steps, self.counted, done=self.total_steps, unit=self.unit)

    @property
    def total_steps(self) -> int:
        """Steps done since the run began."""
        return self.position.epoch * self.steps + self.position.step

    def resume(self, position: checkpoint.Position) -> None:
        """Goes on from a checkpoint whose variables have been restored."""
        if position.step > self.steps:
            told = f"{position.step} steps of an epoch are done, and now it has {self.steps}"
            raise RunError(f"{self.directory}: {told}: fewer examples can be read than before; take another --run-dir")
        if position.examples and position.examples != self.examples:
            told = f"{self.examples:,} training examples can be read now, before {position.examples:,}"
            raise RunError(
                f"{self.directory}: {told}, and the epochs would be others: make the files what they were, or take "
                "another --run-dir"
            )
        kept = [row for row in position.history if "best_unsaved" not in row]
        best = max([epoch_score(row, self.recipe.monitor) for row in kept], default=NO_SCORE)
        if best > NO_SCORE and not self.workers.by_chief(lambda: (self.directory / "best.keras").exists()):
            enough = had_enough(position.history, self.recipe.monitor, self.recipe.patience)
            last = enough or position.epoch >= self.recipe.epochs
            told = "the last epoch's model is kept" if last else "of the epochs to come the best one is kept"
            self.log.say(f"best.keras is gone: {told}")
            gone = position.history[:-1] if last else position.history
            history = (*({**row, "best_unsaved": 1.0} for row in gone), *position.history[len(gone) :])
            position, best = replace(position, history=history), NO_SCORE
        self.position = position
        self.unreadable.learn(position.bad)
        self.best = best
        self.finished = self._enough()
        if position.step:
            self.saved_metrics = self._metric_values()
        self.began = (time.monotonic(), position.step)  # an epoch whose steps are all done has no other beginning

    # ------------------------------------------------------------------ Keras' hooks

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """In a resumed epoch, the metrics of the steps before; fit has just reset them."""
        if self.saved_metrics is not None:
            self._set_metrics(self.saved_metrics)
            self.saved_metrics = None
        self.step.steps_left = self.steps - self.position.step
        self.began = (time.monotonic(), self.position.step)
        self.rate = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts, looks at the loss, and saves or leaves where asked."""
        done = self.steps - self.step.steps_left
        self.first = self.position.step + 1  # of the steps of this call
        self.position = checkpoint.Position(self.position.epoch, done, self.position.history, self.unreadable.noted)
        self._check_loss(logs)
        if done == self.steps:
            self._average()
        asked, due = self._agree()
        self.unreadable.check()
        if asked:
            raise Interrupted(asked)
        if due:
            self.save()

    def _average(self) -> None:
        """Takes the weights after an epoch into the mean of those after the last ones."""
        if self.recipe.average_checkpoints:
            before = max(self.recipe.epochs - self.recipe.average_checkpoints, 0)
            self.step.take_in(max(self.position.epoch + 1 - before, 1))

    def _check_loss(self, logs: Any) -> None:
        loss = float(logs["loss"])
        if not np.isfinite(loss):
            raise self.diverged(f"the loss is {loss}")

    def on_test_begin(self, logs: Any = None) -> None:
        """The examples per second of the epoch's training, and its metrics before the validation's take their place."""
        self._measure()
        self.train_metrics = self._metric_values()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Leaves in the middle of a validation too; the epoch's training counts as done."""
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        asked, _ = self._agree()
        if asked:
            self._set_metrics(self.train_metrics)
            raise Interrupted(asked)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch's row of the log, the best model, early stopping, a checkpoint."""
        self._measure()
        self.saved_metrics = None
        if self.splits.validation is not None:
            scores = self._whole_scores(epoch)
            # The chief's: where workers round differently, so may a translation, and all must decide alike.
            logs.update(self.workers.by_chief(lambda: scores))
        logs["learning_rate"] = float(self._rate_of_step(self.total_steps - 1))
        if self.rate:  # none where the steps were an earlier process'
            logs[f"{self.unit}_per_second"] = round(self.rate, 1)
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}}
        score = epoch_score(row, self.recipe.monitor)
        better = score > self.best
        if better:
            if self.save_model("best.keras"):
                self.best = score
            else:
                row["best_unsaved"] = 1.0  # best.keras holds an earlier epoch
        history = (*self.position.history, row)
        self.position = checkpoint.Position(epoch + 1, 0, history, self.unreadable.noted)
        asked, due = self._agree()
        self._write(self._write_tables)
        self.unreadable.check()
        self.finished = self._enough()
        if self.finished or asked:
            self.step.stop_training = True
        # The validation's are no part of where the run stands, and may be no numbers.
        self._set_metrics([np.zeros_like(value) for value in self._metric_values()])
        last = epoch + 1 == self.recipe.epochs
        # Before pictures are drawn, for which there may be no time; and what best.keras holds is in the history.
        if last or self.finished or due or asked or better:
            self.save()
        self.asked_to_leave = 0 if last else asked

    def leave_if_asked(self) -> None:
        """Raises Interrupted where an epoch's end was told to be the last: once all that shows it has seen it."""
        if self.asked_to_leave:
            raise Interrupted(self.asked_to_leave)

    def _whole_scores(self, epoch: int) -> dict[str, float]:
        """The scores of the validation split that are no mean over its examples."""
        validation = self.splits.validation
        if validation is None or self.task.kind == "masked_text":
            return {}
        if self.step.confusion is not None:
            self.confusion = self.step.confusion.result().numpy()
            return {"val_macro_f1": macro_f1(self.confusion)}
        last = epoch + 1 == self.recipe.epochs
        if (epoch + 1) % self.recipe.score_every and not last:
            return {}
        return self._translation_scores(validation)

    def _translation_scores(self, validation: Source) -> dict[str, float]:
        """BLEU of translations by the averaged weights."""
        self.step.swap_averages()
        try:
            # A copy decodes: the layers of the network itself would come to belong to two graphs, and not be saved.
            network = self.step.network
            self.twin = self.twin or type(network).from_config(network.get_config())
            self.twin.set_weights(network.get_weights())
            self.translator = self.translator or Translator(self.twin, self.task.preprocessor)
            scores, self.samples = validation_scores(self.translator, validation, self._leave_if_asked)
        finally:
            self.step.swap_averages()
        return scores

    def alignments(self) -> list[tuple]:
        """What the pieces of some translations of the validation split looked at; before the first validation none."""
        if self.translator is None or self.splits.validation is None:
            return []
        return self.translator.alignments(texts_of(self.splits.validation).columns["source"][:ALIGNED])

    # ------------------------------------------------------------------ saving

    def save(self, then: str = checkpoint.GOES_ON) -> bool:
        """A checkpoint of where the run stands, by the chief; all workers must call it. Whether it was written."""
        arrays = checkpoint.values(self.step.state())
        where = self.directory / "checkpoints"
        # A copy, since the pipeline's threads go on noting examples while it is written.
        position = replace(self.position, bad=dict(self.unreadable.noted), examples=self.examples)
        written = self._write(lambda: checkpoint.save(where, position, self.total_steps, arrays), then)
        self.saved_at = time.monotonic()
        return written

    def save_model(self, name: str, write: Callable | None = None) -> bool:
        """The network with averaged weights, as `.keras`, written by the chief; whether it could be.

        `write`: what has the chief write, and raises where it cannot.
        """
        self.step.swap_averages()
        try:
            written = (write or self._write)(lambda: checkpoint.write_model(self.step.network, self.directory / name))
        finally:
            self.step.swap_averages()
        return written is not False

    def _write(self, function: Callable[[], None], then: str = checkpoint.GOES_ON) -> bool:
        """Has the chief write; whether it could.

        What cannot be written ends the run, or is told, with what comes `then`, and passed over, as the recipe says:
        on every worker alike.
        """

        def write() -> None:
            checkpoint.check_there(self.directory)
            function()

        try:
            self.workers.by_chief(write)
        except (checkpoint.CheckpointError, RunError, ChiefError) as error:
            if self.recipe.on_checkpoint_error == "stop":
                raise
            self.log.say(f"{error}; {then}")
            return False
        return True

    def save_last(self) -> None:
        """The model of the last epoch, which is the best one where there is no validation split."""
        # Without these there is no run to go on with: an error ends it, whatever the recipe says.
        write = self.workers.by_chief
        write(self._write_last_tables)  # the scores are merged with them
        self.save_model("last.keras", write)
        if not write(lambda: (self.directory / "best.keras").exists()):
            self.save_model("best.keras", write)

    def _write_last_tables(self) -> None:
        checkpoint.check_there(self.directory)
        self._write_tables()

    def leave(self, error: Exception) -> None:
        """What a run that ends before its time leaves behind."""
        self.close_bars()
        try:
            self._leave(error)
        finally:
            # Pictures and traces take a while, which who asks to leave may not give.
            for callback in self.shown:
                if not isinstance(callback, ProgressBar):
                    callback.on_train_end()

    def close_bars(self) -> None:
        """Ends the bar's line, so that what is told next has its own."""
        for callback in self.shown:
            if isinstance(callback, ProgressBar):
                callback.on_train_end()

    def _leave(self, error: Exception) -> None:
        if not isinstance(error, Interrupted):
            # Not all workers need have come here; and what ends the run is told, not what follows from it.
            with contextlib.suppress(checkpoint.CheckpointError, RunError):
                if self.workers.chief:
                    checkpoint.check_there(self.directory)
                    self._write_tables()
            return
        try:
            saved = self.save(then=ENDS)
        except checkpoint.NotFinite as found:
            raise self.diverged(f"{found} is not finite") from None
        self._write(self._write_tables, then=ENDS)
        if saved:
            where = f"epoch {self.position.epoch + 1}, step {self.position.step}"
            self.log.say(f"saved at {where}; the same command goes on")

    def diverged(self, what: str) -> Diverged:
        """The error for a run whose numbers are gone."""
        kept = [p for p in (self.directory / "best.keras", self.directory / "checkpoints") if p.exists()]
        good = f"the last good weights are in {self.directory}" if kept else "no weights had been saved before"
        at = f"step {self.position.step}"
        if self.first < self.position.step:
            at = f"one of the steps {self.first} to {self.position.step}"
        return Diverged(
            f"{what} at {at} of epoch {self.position.epoch + 1}; {good}; try a lower "
            "--set optimizer.learning_rate or --set clip_norm=1, in a new --run-dir"
        )

    # ------------------------------------------------------------------ what the workers agree on

    def _agree(self) -> tuple[int, bool]:
        """The signal that any worker was asked to stop by (0 for none), and whether a checkpoint is due.

        The chief's clock counts. Also makes every worker know the bad samples of all.
        """
        due = self.workers.chief and time.monotonic() - self.saved_at >= self.machine.checkpoint_seconds
        fresh = self.unreadable.fresh()
        asked, time_to_save, news = self.workers.sums([bool(self.asked), due, len(fresh)])
        if news:
            self.unreadable.share(fresh, self.workers)
        return (self.asked or [signal.SIGTERM])[0] if asked else 0, bool(time_to_save)

    def _write_tables(self) -> None:
        self.unreadable.write()
        history = self.position.history
        if history:
            columns = dict.fromkeys(key for row in history for key in row)  # some are not measured in every epoch
            write_csv(self.directory / "log.csv", history, list(columns))

    # ------------------------------------------------------------------ the history

    def _enough(self) -> bool:
        return had_enough(self.position.history, self.recipe.monitor, self.recipe.patience)

    def _rate_of_step(self, step: int) -> Any:
        optimizer: Any = getattr(self.step.optimizer, "inner_optimizer", self.step.optimizer)
        return optimizer._learning_rate(max(step, 0))

    def _metric_values(self) -> list[np.ndarray]:
        return [v.numpy() for m in self.step.metrics for v in m.variables]

    def _set_metrics(self, values: list[np.ndarray]) -> None:
        for variable, value in zip((v for m in self.step.metrics for v in m.variables), values, strict=True):
            variable.assign(value)

    def _measure(self) -> None:
        if not self.rate:
            (began, first), now = self.began, self.steps - self.step.steps_left
            # The last batch may be filled.
            done, before = (min(steps * self.counted, self.of_epoch) for steps in (now, first))
            self.rate = (done - before) / max(time.monotonic() - began, 1e-9)
