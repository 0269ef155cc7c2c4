"""What the tests share: a quiet TensorFlow, the real data where it lies, a folder of digits, the command line."""

import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import ROOT, surroundings

NO_DATA = "BIGKERAS_DATA is not set and ../shared/data is not there: this test reads real data sets"

# Before TensorFlow, Keras or matplotlib is imported; processes that tests start inherit it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # what is equal on two devices is tried on CPUs; Slurm says others
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"
# What makes every run here one of many workers, or ends it early.
for name in ("TF_CONFIG", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
    os.environ.pop(name, None)
if "BIGKERAS_DATA" not in os.environ and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["BIGKERAS_DATA"] = str(ROOT.parent / "shared" / "data")


# A script that starts the tests with & has SIGINT ignored, in processes that tests start and interrupt, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Result(NamedTuple):
    """How a process ended: exit status and what it printed."""

    rc: int
    stdout: str
    stderr: str


def sow() -> None:
    """Weights and draws are the same at each run, whichever tests ran before; Keras' own seeds come from `random`."""
    random.seed(0)
    keras = sys.modules.get("keras")
    if keras:
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def graphs_of_other_files_are_gone():
    """Keras and TensorFlow hold what they have traced; collecting garbage goes through all of it."""
    sow()
    yield
    keras = sys.modules.get("keras")
    if keras:
        keras.backend.clear_session()
    gc.collect()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    sow()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (mnist, cifar10, …); the test is skipped where there is none."""
    folder = os.environ.get("BIGKERAS_DATA")
    if not folder:
        pytest.skip(NO_DATA)
    if not Path(folder).is_dir():
        pytest.skip(f"BIGKERAS_DATA={folder}: no such folder")
    return Path(folder)


@pytest.fixture(scope="session")
def has_data(real_data: Path) -> Callable[..., Path]:
    """The folder of real data sets if it has one of these folders in it; else the test is skipped."""

    def folder(*names: str) -> Path:
        if not any((real_data / name).is_dir() for name in names):
            pytest.skip(f"{real_data} has no {' or '.join(names)}")
        return real_data

    return folder


@pytest.fixture
def ending() -> Iterator[Callable[[subprocess.Popen], subprocess.Popen]]:
    """Gives back a process that the test starts; one that still runs after the test is asked to leave."""
    processes: list[subprocess.Popen] = []

    def kept(process: subprocess.Popen) -> subprocess.Popen:
        processes.append(process)
        return process

    yield kept
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(300)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 grey 8×8 PNGs, 20 in each of the sub-folders 0 … 9: scikit-learn's digits. Do not write to it."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir()
        for number, index in enumerate((digits.target == label).nonzero()[0][:20]):
            pixels = (digits.images[index] * 255 / 16).astype("uint8")
            Image.fromarray(pixels).save(folder / str(label) / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., Result]:
    """Runs `python -m bigkeras …` in a process of its own: run_cli("list") → Result(rc, stdout, stderr)."""

    def run(*arguments: object, timeout: float = 300, cwd: Path = ROOT, **environment: str) -> Result:
        command = [sys.executable, "-m", "bigkeras", *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=surroundings(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def pytest_configure(config: pytest.Config) -> None:
    """Two logical CPUs, so that a test can have two replicas; to be asked for before TensorFlow's first operation."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
