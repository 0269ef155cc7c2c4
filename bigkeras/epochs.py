"""What a run does with its epochs, on TensorFlow and on JAX alike: goes on, learns the rest, and leaves all behind."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from bigkeras import checkpoint
from bigkeras.control import Control, Diverged
from bigkeras.data.source import DataError
from bigkeras.models.pretrained import renew_constants
from bigkeras.signals import Interrupted


def go_on(control: Control, restored: tuple[checkpoint.Position, Any]) -> None:
    """Goes on from what `checkpoint.restore` gave, and says so."""
    position, broken = restored
    renew_constants(control.step.network)
    control.resume(position)
    passed_over = "".join(f"; {name} is broken" for name in broken)
    control.log.say(f"going on at epoch {position.epoch + 1}, step {position.step}{passed_over}")


def begin_anew(control: Control) -> None:
    """Where there is no checkpoint: keeps the best model of a run whose checkpoints are gone, and says so."""

    def kept_model() -> bool:
        best, before = control.directory / "best.keras", control.directory / "best.before.keras"
        there = best.exists() and not before.exists()  # where it is, this is one of a few steps
        if there:
            best.replace(before)
        return there

    if control.workers.by_chief(kept_model):
        control.log.say("no checkpoint to go on from: begins anew; the best model of before is best.before.keras")


@contextlib.contextmanager
def kept(control: Control) -> Iterator[None]:
    """Around the training: what it has learned is saved at its end, and where it ends before its time.

    Raises what ended it; Diverged where a checkpoint's weights would be no numbers.
    """
    try:
        yield
    except (Interrupted, Diverged, DataError) as error:
        control.leave(error)
        raise
    except checkpoint.NotFinite as error:
        failed = control.diverged(f"{error} is not finite")
        control.leave(failed)
        raise failed from None
    except BaseException:  # as of a full disk: nothing more can be saved
        control.close_bars()
        raise
    control.save_last()


def learn(control: Control, train: Any, validation: Any, validation_steps: int | None) -> None:
    """Learns the rest of an epoch that was left, or all epochs that remain."""
    step, epoch, done = control.step, control.position.epoch, control.position.step
    callbacks = control.callbacks()
    if done == control.steps:  # it was left in its validation, or after its last step
        called = keras.callbacks.CallbackList(callbacks, model=step)
        logs = dict(step.get_metrics_result())
        if validation is not None:
            scores = step.evaluate(validation, steps=validation_steps, callbacks=called, verbose=0, return_dict=True)
            logs |= {f"val_{name}": score for name, score in scores.items()}
        called.on_epoch_end(epoch, logs)
        return
    step.fit(
        train,
        epochs=epoch + 1 if done else control.recipe.epochs,
        initial_epoch=epoch,
        steps_per_epoch=control.steps - done,
        validation_data=validation,
        validation_steps=validation_steps,
        callbacks=callbacks,
        shuffle=False,  # the plan has shuffled
        verbose=0,
    )
