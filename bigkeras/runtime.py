"""What the machine decides: devices, which strategy, precision. The strategies themselves: strategies.py."""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ON_JAX = ("auto", "one", "data_parallel", "model_parallel")
STRATEGIES = ("auto", "one", "mirrored", "multiworker", "parameter_server", "tpu")
# A TPU waits for its host between two calls; but a signal waits for the call, and all are to have left after 30 s.
TPU_STEPS_PER_CALL = 8


LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")  # by which Keras ends every training early


class MachineError(ValueError):
    """What was asked for is not to be had on this machine; one line that says what is."""


def out_of_memory(error: BaseException) -> bool:
    """Whether TensorFlow or JAX raises the error for want of a device's memory, and not of a disk's."""
    raised = type(error).__name__ in ("ResourceExhaustedError", "XlaRuntimeError", "JaxRuntimeError")
    return raised and re.search("RESOURCE_EXHAUSTED|OOM|alloca|[Oo]ut of memory", str(error)) is not None


@dataclass(frozen=True)
class Machine:
    """What the command line says of the machine; a recipe means the same training on every one.

    `replicas`: how many devices `mirrored` takes; None takes all GPUs, and on a machine without any two virtual CPUs.
    `shards`: over how many devices `model_parallel`, on JAX, parts a layer; the others part the batch.
    `tpu`: the name or address of the TPU for `tpu`; None takes what the environment names, or the one in this machine.
    `steps_per_call`: train steps in one call from the host. `xla`: compile the step. None takes what the device profits
    from (`settled`). `checkpoint_seconds`: the time between two checkpoints. `patience_seconds`: without a step, after
    which a worker asks who holds up the others.
    """

    strategy: str = "auto"
    replicas: int | None = None
    tpu: str | None = None
    shards: int = 2
    steps_per_call: int | None = None
    xla: bool | None = None
    checkpoint_seconds: float = 60.0
    patience_seconds: float = 60.0
    profile: bool = False

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise MachineError(f"--replicas {self.replicas}: at least 1")
        if self.steps_per_call is not None and self.steps_per_call < 1:
            raise MachineError(f"--steps-per-call {self.steps_per_call}: at least 1")
        if not self.checkpoint_seconds >= 0:
            raise MachineError(f"--checkpoint-seconds {self.checkpoint_seconds}: at least 0")
        if not 0 < self.patience_seconds < math.inf:
            raise MachineError(f"--patience-seconds {self.patience_seconds}: a number above 0")


def on_jax() -> bool:
    """Whether Keras runs on JAX."""
    return keras_backend(os.environ) == "jax"


def choose_on_jax(machine: Machine) -> str:
    """The strategy of a Machine on Keras' JAX backend. Raises MachineError where it cannot be had."""
    import keras

    try:
        count = len(keras.distribution.list_devices())
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        reason = (str(error).splitlines() or ["no such device"])[0]
        raise MachineError(f"JAX finds no device{f' for JAX_PLATFORMS={asked}' * bool(asked)}: {reason}") from None
    if machine.strategy not in ON_JAX:
        raise MachineError(f"--strategy {machine.strategy}: on JAX one of {', '.join(ON_JAX)}")
    if machine.replicas is not None:
        raise MachineError(f"--replicas {machine.replicas}: on JAX data_parallel takes every device; leave it out")
    if machine.tpu is not None:
        raise MachineError(f"--tpu {machine.tpu}: JAX takes the TPU of its own machine; leave it out")
    if machine.profile:
        raise MachineError("--profile: there is none on JAX; leave it out")
    chosen = machine.strategy
    if chosen == "auto":
        chosen = "data_parallel" if count > 1 else "one"
    _check_shards(machine, chosen)
    _check_patience(machine, chosen)
    if chosen == "model_parallel" and (machine.shards < 1 or count % machine.shards):
        raise MachineError(f"--shards {machine.shards}: does not divide the {count} devices that JAX sees")
    if (machine.steps_per_call or 1) > 1:
        raise MachineError(f"--steps-per-call {machine.steps_per_call}: on JAX every call makes one step; leave it out")
    if machine.xla is False:
        raise MachineError("--no-xla: JAX compiles every step; leave it out")
    return chosen


def _check_shards(machine: Machine, strategy: str) -> None:
    """Raises MachineError for another number of shards than the usual one where nothing would heed it."""
    if strategy != "model_parallel" and machine.shards != Machine.shards:
        raise MachineError(
            f"--shards {machine.shards}: is for --strategy model_parallel, on JAX; this run takes {strategy}"
        )


def _check_patience(machine: Machine, strategy: str) -> None:
    """Raises MachineError for another patience than the usual one where there is no other worker to wait for."""
    if strategy not in ("multiworker", "parameter_server") and machine.patience_seconds != Machine.patience_seconds:
        raise MachineError(
            f"--patience-seconds {machine.patience_seconds:g}: is for several workers; this run takes {strategy}"
        )


def settled(machine: Machine, compilable: bool = True) -> Machine:
    """The Machine with what was left to its device: how many steps a call from the host makes, and XLA.

    A TPU profits from several steps, and TPUStrategy compiles whatever it runs. Elsewhere `xla` stays None if all is
    `compilable`: Keras decides, knowing the layers (`Step.begin`). It compiles on one GPU, but neither on several
    devices nor on a CPU, where XLA makes convolutions slower (docs/performance.md).
    """
    tpu = choose(machine.strategy)[0] == "tpu"
    if tpu and machine.xla is False:
        raise MachineError("--no-xla: on a TPU every step is compiled; leave it out")
    steps = machine.steps_per_call or (TPU_STEPS_PER_CALL if tpu else 1)
    own = True if tpu else None if compilable else False
    return replace(machine, steps_per_call=steps, xla=own if machine.xla is None else machine.xla)


def check_backend() -> None:
    """Raises MachineError if Keras would run on another backend than TensorFlow."""
    backend = keras_backend(os.environ)
    if backend == "tensorflow":
        return
    if os.environ.get("KERAS_BACKEND"):
        raise MachineError(
            f"KERAS_BACKEND={backend}: this command needs TensorFlow; unset it or set KERAS_BACKEND=tensorflow"
        )
    raise MachineError(
        f"keras.json asks for the backend {backend}: this needs TensorFlow; set KERAS_BACKEND=tensorflow"
    )


def check_limits(epochs: int | None, steps: int | None) -> None:
    """Raises MachineError where Keras is told to end every training early: a run's epochs are whole, and all made."""
    for name, value in zip(LIMITS, (epochs, steps), strict=True):
        if value is not None:
            raise MachineError(
                f"{name}={value}: unset it; --set epochs=N and --set data.limit_train=N make a short run"
            )


def check_numbers() -> None:
    """Raises MachineError for limits of Keras' that are no numbers, with which it cannot be imported."""
    for name in LIMITS:
        value = os.environ.get(name, "0")
        if not value.strip().isdecimal():
            raise MachineError(f"{name}={value!r}: no number: unset it")


def check_layout(layout: str) -> None:
    """Raises MachineError where Keras is told to take the channels of pictures before their rows."""
    if layout != "channels_last":
        raise MachineError(
            f"keras.json asks for image_data_format {layout}: say channels_last there, as pictures are laid out here"
        )


def check_jax() -> None:
    """Raises MachineError if JAX, on which Keras would run, is not installed."""
    if find_spec("jax") is None:
        raise MachineError("KERAS_BACKEND=jax: not installed: pip install '.[jax]', or set KERAS_BACKEND=tensorflow")


def keras_backend(environment: Mapping[str, str]) -> str:
    """The backend that Keras would take: KERAS_BACKEND, else that of keras.json, else TensorFlow."""
    if environment.get("KERAS_BACKEND"):
        return environment["KERAS_BACKEND"]
    home = Path(os.path.expanduser(environment.get("KERAS_HOME") or "~/.keras"))
    try:
        return str(json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def chosen(machine: Machine) -> str:
    """The strategy that a Machine takes here. Raises MachineError for what that strategy would not heed."""
    import tensorflow as tf

    name, _ = choose(machine.strategy)
    _check_shards(machine, name)
    _check_patience(machine, name)
    if name == "parameter_server" and (machine.steps_per_call or 1) > 1:
        raise MachineError(f"--steps-per-call {machine.steps_per_call}: parameter_server hands out one step in a call")
    if name == "parameter_server" and machine.xla:
        raise MachineError("--xla: parameter_server compiles no step; leave it out")
    between = name == "multiworker" or (name == "mirrored" and machine.replicas != 1)
    gpus = len(tf.config.list_physical_devices("GPU"))
    if machine.xla and between and not gpus:
        raise MachineError(f"--xla: on CPUs XLA cannot add up over the replicas of {name}; leave it out")
    if machine.xla and between and gpus > 1:
        count = machine.replicas or gpus
        raise MachineError(f"--xla: XLA compiles a step for one device, and {name} takes {count} here; leave it out")
    return name


def choose(name: str = "auto") -> tuple[str, str]:
    """The strategy that `name` means here, and why."""
    if name in ("data_parallel", "model_parallel"):
        raise MachineError(f"--strategy {name}: is for JAX: KERAS_BACKEND=jax bigkeras train …")
    if name not in STRATEGIES:
        raise MachineError(f"--strategy {name}: one of {', '.join(STRATEGIES)}")
    if name != "auto":
        return name, "asked for"
    jobs = cluster()
    if "ps" in jobs:
        return "parameter_server", "TF_CONFIG names parameter servers"
    workers = sum(map(len, jobs.values()))
    if workers > 1:
        return "multiworker", f"TF_CONFIG names {workers} workers"
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus > 1:
        return "mirrored", f"{gpus} GPUs"
    return "one", "one GPU" if gpus else "no GPU: the CPU, all its cores"


def fastest_precision(strategy: str = "one") -> tuple[str, str]:
    """The precision in which the device of a `strategy` that `choose` gave computes fastest, and why: "auto"."""
    if on_jax():
        return _fastest_on_jax()
    if strategy == "tpu":
        return "mixed_bfloat16", "a TPU"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return _fastest_on_gpu(tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0)))
    if "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags():
        return "mixed_bfloat16", "the CPU has bfloat16 arithmetic"
    return "float32", "no GPU, and this CPU has no bfloat16 arithmetic"


def _fastest_on_gpu(capability: tuple[int, int]) -> tuple[str, str]:
    told = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return "mixed_bfloat16", told
    if capability >= (7, 0):
        return "mixed_float16", f"{told}, without bfloat16"
    return "float32", told


def _fastest_on_jax() -> tuple[str, str]:
    import jax

    device = jax.devices()[0]
    if device.platform == "tpu":
        return "mixed_bfloat16", "a TPU"
    if device.platform == "gpu":
        told = str(getattr(device, "compute_capability", ""))  # of AMD's a name, as gfx942
        found = re.fullmatch(r"(\d+)\.(\d+)", told)
        return _fastest_on_gpu((int(found[1]), int(found[2]))) if found else ("float32", f"a GPU called {told or '?'}")
    return "float32", "JAX on a CPU"


def plan(name: str = "auto") -> dict[str, Any]:
    """What a run would take here: strategy, replicas, precision and the reasons."""
    import tensorflow as tf

    chosen, reason = choose(name)
    gpus = tf.config.list_physical_devices("GPU")
    precision, why = fastest_precision(chosen)
    replicas = len(gpus) if chosen == "mirrored" and gpus else 2 if chosen == "mirrored" else 1
    if chosen == "multiworker":
        replicas = max(1, len(gpus)) * sum(map(len, cluster().values()))
    return {
        "strategy": chosen,
        "replicas": replicas,
        "precision": precision,
        "reason": f"{chosen}: {reason}; {precision}: {why}",
    }


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """The dtype policy of the layers made inside; the only place that sets it."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def environment() -> dict[str, Any]:
    """Versions, devices and the git commit: what a run ran on, as JSON values."""
    import platform
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    import tensorflow as tf

    packages = {}
    for name in ("bigkeras", "tensorflow", "keras", "numpy", "pillow", "scikit-learn"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    root, git = Path(__file__).parents[1], ""
    if (root / ".git").exists():  # installed, it may lie within a repository that is another project's
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            git = subprocess.run(
                ["git", "describe", "--always", "--dirty", "--abbrev=12"],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=10,
            ).stdout.strip()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": packages,
        "devices": [f"{d.device_type}:{d.name}" for d in tf.config.list_physical_devices()],
        "git_commit": git or None,
    }


def cluster() -> dict[str, list[str]]:
    """The workers that TF_CONFIG names: {job: addresses}; empty where it names none."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return {}
    try:
        values = json.loads(text)
        workers, task = values.get("cluster") or {}, values.get("task") or {}
        jobs = {job: _addresses(listed) for job, listed in workers.items()}
        if workers and not 0 <= task["index"] < len(jobs[task["type"]]):
            raise IndexError(task["index"])
    except (ValueError, TypeError, AttributeError, LookupError):
        example = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        raise MachineError(f"TF_CONFIG={text}: not of the form {example}") from None
    others = set(jobs) - {"chief", "worker", "ps"}
    if others:
        raise MachineError(f"TF_CONFIG names the job {min(others)}: there are the jobs chief, worker and ps only")
    return jobs


def _addresses(listed: Any) -> list[str]:
    """The list of a job's addresses. Raises TypeError for anything else, such as one address alone."""
    if not isinstance(listed, list) or not all(isinstance(address, str) for address in listed):
        raise TypeError(listed)
    return listed


def role() -> str:
    """What this process is in the cluster of TF_CONFIG: "chief", "worker" or "ps"; "" outside of one."""
    return str(json.loads(os.environ["TF_CONFIG"])["task"]["type"]) if cluster() else ""


def asynchronous_workers() -> int:
    """How many workers a cluster with parameter servers has; the chief is none of them."""
    return len(cluster().get("worker", []))


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((set(line.split()) for line in file if line.startswith(("flags", "Features"))), set())
    except OSError:
        return set()


def _processor() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
