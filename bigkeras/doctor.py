"""bigkeras doctor: what this machine has, what is wrong with it, and what a run would take here."""

import contextlib
import json as json_module
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bigkeras import gpus, remarks, runtime

ROOT = Path(__file__).resolve().parents[1]
PACKAGES: tuple[str, ...] = ("tensorflow", "keras", "numpy", "h5py", "protobuf", "tensorboard", "tensorflow-datasets")
PACKAGES += ("pillow", "scikit-learn", "matplotlib", "safetensors", "tensorflow-text", "sentencepiece", "sacrebleu")
PACKAGES += ("array_record", "charset-normalizer")
TWINS = {"tensorflow": ("tensorflow-tpu", "tensorflow-cpu")}
PYTHON = ((3, 11), (3, 13))
LOW_DISK, LOW_MEMORY = 5.0, 4.0
FLAGS = ("avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16")
MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}


def main(json: bool = False) -> int:
    """Prints the report as text or JSON; gives 1 where something is so wrong that nothing can be trained, else 0."""
    result = report()
    print(json_module.dumps(result, indent=2, ensure_ascii=False) if json else text(result))
    return int(any(check["mark"] == "fail" for check in result["checks"]))


def report() -> dict[str, Any]:
    """What was found, as JSON values.

    `checks` is a list of {"what", "mark": ok | warn | fail, "say"}; `machine`, `packages`, `gpus`, `devices` and
    `plan` (what a run would take; None where TensorFlow cannot be imported, and on JAX) are the facts behind them.
    """
    machine = look_at_machine()
    packages = look_at_packages()
    backend = runtime.keras_backend(os.environ)
    tensorflow = look_at_tensorflow(machine["cpu_flags"])
    found = gpus.find_gpus()
    checks = [
        check_python(sys.version_info[:2]),
        *check_packages(packages),
        check_backend(backend),
        check_tensorflow(tensorflow),
        *check_cluster(backend),
        check_gpus(found, tensorflow),
        *check_machine(machine),
    ]
    return {
        "checks": checks,
        "python": platform.python_version(),
        "machine": machine,
        "packages": packages,
        "keras_backend": backend,
        "gpus": [vars(gpu) for gpu in found],
        "devices": tensorflow.get("devices", []),
        "plan": tensorflow.get("plan"),
    }


def text(result: Mapping[str, Any]) -> str:
    """The report for a person: a line for each check, then what a run would take."""
    width = max(len(check["what"]) for check in result["checks"])
    lines = [f"{MARKS[c['mark']]} {c['what']:{width}}  {c['say']}" for c in result["checks"]]
    plan = result["plan"]
    if plan:
        replicas = "1 device" if plan["replicas"] == 1 else f"{plan['replicas']} devices"
        lines += ["", f"A run here: strategy {plan['strategy']} on {replicas}; fastest precision {plan['precision']}."]
        lines.append(f"  {plan['reason']}")
    return "\n".join(lines)


def check(what: str, mark: str, say: str) -> dict[str, str]:
    """One line of the report."""
    return {"what": what, "mark": mark, "say": say}


def check_python(version: tuple[int, ...]) -> dict[str, str]:
    """Whether TensorFlow has packages for this Python."""
    spoken, (first, last) = ".".join(map(str, version)), PYTHON
    if first <= tuple(version) <= last:
        return check("Python", "ok", spoken)
    return check("Python", "fail", f"{spoken}: TensorFlow has packages for {_dots(first)} to {_dots(last)}")


def look_at_packages(constraints: Path = ROOT / "constraints.txt") -> dict[str, dict[str, str | None]]:
    """{package: {"installed", "tested"}}; `tested` from constraints.txt in a checkout, else what our metadata asks."""
    tested = _pinned(constraints) or _required()
    return {name: {"installed": _installed(name), "tested": tested.get(name)} for name in PACKAGES}


def check_packages(packages: Mapping[str, Mapping[str, str | None]]) -> Iterator[dict[str, str]]:
    """A line for all that are as tested, and one for each that is not."""
    from packaging.specifiers import SpecifierSet

    good = []
    for name, values in packages.items():
        installed, tested = values["installed"], values["tested"]
        if installed is None:
            yield check(name, "fail", f"not installed; tested with {tested}: pip install . in the checkout")
        elif tested and installed not in SpecifierSet(tested, prereleases=True):
            yield check(name, "warn", f"{installed}; tested with {tested}")
        else:
            good.append(f"{name} {installed}")
    if good:
        yield check("packages", "ok", ", ".join(good))


def check_backend(backend: str) -> dict[str, str]:
    """All needs TensorFlow under Keras but training, which runs on JAX, too."""
    if backend == "tensorflow":
        return check("Keras backend", "ok", backend)
    if backend == "jax" and find_spec("jax") is None:
        say = "jax: not installed: pip install '.[jax]', or set KERAS_BACKEND=tensorflow"
        return check("Keras backend", "fail", say)
    if backend == "jax":
        say = "jax: trains; evaluation and export need tensorflow: set KERAS_BACKEND=tensorflow for them"
        return check("Keras backend", "warn", say)
    say = f"{backend}: training and export need tensorflow; set KERAS_BACKEND=tensorflow"
    return check("Keras backend", "fail", say)


def look_at_tensorflow(cpu_flags: list[str] | None) -> dict[str, Any]:
    """{"version", "devices", "build", "plan"}, or {"error"} where it cannot be imported."""
    if platform.machine() == "x86_64" and cpu_flags is not None and "avx" not in cpu_flags:
        # The import would kill this process (illegal instruction) before it could say why.
        return {"error": "this processor has no AVX, which TensorFlow's packages need"}
    try:
        remarks.import_tensorflow()
        import tensorflow as tf

        devices = [d.name.removeprefix("/physical_device:") for d in tf.config.list_physical_devices()]
        return {"version": tf.__version__, "devices": devices, "build": gpus.build_of(tf), "plan": _plan()}
    except Exception as error:
        # Whatever stands in the way of the import is what a person comes here for.
        return {
            "error": f"cannot be imported: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        }


def _plan() -> dict[str, Any] | None:
    """What a run would take on TensorFlow; None on JAX, and for a cluster that cannot be: `check_cluster` names it."""
    try:
        return None if runtime.on_jax() else runtime.plan()
    except runtime.MachineError:
        return None


def check_cluster(backend: str) -> Iterator[dict[str, str]]:
    """A line where TF_CONFIG, which TensorFlow heeds, names no cluster that can be."""
    try:
        if backend == "tensorflow":
            runtime.cluster()
    except runtime.MachineError as error:
        yield check("TF_CONFIG", "fail", str(error))


def check_tensorflow(tensorflow: Mapping[str, Any]) -> dict[str, str]:
    """Whether TensorFlow runs, and on which devices."""
    if "error" in tensorflow:
        return check("TensorFlow", "fail", tensorflow["error"])
    return check("TensorFlow", "ok", f"{tensorflow['version']}, sees {', '.join(tensorflow['devices'])}")


def check_gpus(found: list[gpus.Gpu], tensorflow: Mapping[str, Any]) -> dict[str, str]:
    """The GPUs of the machine beside those that TensorFlow sees; if it sees fewer, why."""
    if not found:
        return check("GPU", "ok", "none in this machine: runs take the CPU")
    names = ", ".join(f"{gpu.name}{f' ({gpu.memory})' if gpu.memory else ''}" for gpu in found)
    if "error" in tensorflow:
        return check("GPU", "warn", f"{names}; TensorFlow does not run, see above")
    seen = sum("GPU" in device for device in tensorflow["devices"])
    if seen:
        note = "" if seen == len(found) else f"; TensorFlow sees {seen} of {len(found)} (CUDA_VISIBLE_DEVICES?)"
        return check("GPU", "warn" if note else "ok", f"{names}, driver {found[0].driver or 'unknown'}{note}")
    build = tensorflow["build"]
    missing = gpus.missing_libraries(build) if build.with_cuda else []
    why = "; ".join(gpus.reasons(found, build, missing, os.environ))
    return check("GPU", "warn", f"{names} is here, but TensorFlow does not see it: {why}")


def look_at_machine() -> dict[str, Any]:
    """System, cores that this process may use, memory and disk in GB (10⁹ bytes), and the CPU's vector units.

    `cpu_flags` is None where the system does not tell them.
    """
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory.total / 1e9, 1),
        "memory_available_gb": round(memory.available / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "cpu_flags": _cpu_flags(),
    }


def check_machine(machine: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Cores, memory and disk."""
    flags = machine["cpu_flags"] or []
    yield check("CPU", "ok", f"{machine['cores']} cores" + (f", {', '.join(flags)}" if flags else ""))
    available, disk = machine["memory_available_gb"], machine["disk_free_gb"]
    say = f"{available:.1f} of {machine['memory_gb']:.1f} GB available"
    little = available < LOW_MEMORY
    yield check("memory", "warn" if little else "ok", say + (": little for training" if little else ""))
    full = disk < LOW_DISK
    yield check("disk", "warn" if full else "ok", f"{disk:.1f} GB free here" + (": little for runs" if full else ""))


def _cpu_flags(path: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """Those of `FLAGS` that the CPU has; None where the file does not tell."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else [flag for flag in FLAGS if flag in flags]


def _installed(name: str) -> str | None:
    """The version of a package, or of one that brings the same module under another name."""
    for package in (name, *TWINS.get(name, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return None


def _pinned(constraints: Path) -> dict[str, str]:
    """{package: "==version"} of a constraints file; empty where there is none, as in an installed package."""
    try:
        lines = constraints.read_text(encoding="utf-8").split()
    except OSError:
        return {}
    return {name.lower(): f"=={version}" for name, _, version in (line.partition("==") for line in lines) if version}


def _required() -> dict[str, str]:
    from packaging.requirements import Requirement

    try:
        found = [Requirement(line) for line in metadata.requires("bigkeras") or []]
    except metadata.PackageNotFoundError:
        return {}
    return {r.name.lower(): str(r.specifier) for r in found if r.marker is None and r.specifier}


def _dots(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
