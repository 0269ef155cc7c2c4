"""Killed at random moments, on two replicas and on two workers: the same command again ends in the same weights."""

import json
import os
import signal
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
from processes import lives

from bigkeras.launch import FALLEN_GRACE, configurations
from bigkeras.recipe import Choice
from bigkeras.recipes import RECIPES
from bigkeras.signals import Log
from bigkeras.train import fit

KILLS, STEPS = 2, 6  # so many steps an epoch
RECIPE = RECIPES["digits"].override(
    **{
        "epochs": 10,
        "batch_size": 250,
        "ema": 0.9,
        "augmentation": (),
        "optimizer": Choice("sgd", {"learning_rate": 0.05}),
        "model": Choice("simple_cnn", {"width": 4, "dropout": 0.0}),
    }
)


def newest(run: Path) -> int:
    """The step of the last checkpoint of a run; 0 where there is none."""
    return max((int(path.stem.removeprefix("step-")) for path in run.glob("checkpoints/step-*.npz")), default=0)


def wait_for_a_moment(run: Path, number: int, random: np.random.Generator) -> None:
    """Until the run has come some steps on; in the second life, any moment of its start."""
    goal = newest(run) + random.integers(1, 12)
    deadline = time.monotonic() + (random.uniform(0, 3) if number == 1 else 120)
    while newest(run) < goal and time.monotonic() < deadline:
        time.sleep(0.002)


def weights(run: Path) -> list[np.ndarray]:
    return keras.models.load_model(run / "last.keras", compile=False).get_weights()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_on_two_replicas_that_was_killed_ends_as_one_that_was_not(tmp_path):
    recipe, run, whole = tmp_path / "recipe.json", tmp_path / "run", tmp_path / "whole"
    RECIPE.save(recipe)
    random = np.random.default_rng(1)
    with lives(recipe, "mirrored") as (one,):
        for number in range(KILLS):
            process = one.begin(run)
            wait_for_a_moment(run, number, random)
            os.kill(process, signal.SIGKILL)
            assert one.ended() == -signal.SIGKILL
        assert 0 < newest(run) < RECIPE.epochs * STEPS
        for directory in (run, whole):
            one.begin(directory)
            assert one.ended() == 0, one.told()
    assert json.loads((run / "environment.json").read_text())["run"]["replicas"] > 1
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(run), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_that_were_killed_end_in_the_weights_of_one_device(tmp_path):
    recipe, run = tmp_path / "recipe.json", tmp_path / "run"
    RECIPE.save(recipe)
    random = np.random.default_rng(2)
    with lives(recipe, "multiworker", 2) as both:

        def begin() -> list[psutil.Process]:
            configured = [values["TF_CONFIG"].replace(" ", "") for values in configurations(2)]
            return [psutil.Process(one.begin(run, config)) for one, config in zip(both, configured, strict=True)]

        for number in range(KILLS):
            processes, victim = begin(), int(random.integers(2))
            wait_for_a_moment(run, number, random)
            processes[victim].kill()
            # As the launcher does with those whose fellow has fallen.
            _, left = psutil.wait_procs(processes, timeout=FALLEN_GRACE)
            for process in left:
                process.kill()
            assert [one.ended() for one in both][victim] == -signal.SIGKILL
        assert 0 < newest(run) < RECIPE.epochs * STEPS
        begin()
        assert [one.ended() for one in both] == [0, 0]
    fit(RECIPE, tmp_path / "one", log=Log(quiet=True))
    for a, b in zip(weights(tmp_path / "one"), weights(run), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
