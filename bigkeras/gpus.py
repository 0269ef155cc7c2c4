"""The NVIDIA GPUs of this machine, and why TensorFlow does not see them. Imports no TensorFlow."""

import contextlib
import ctypes
import os
import site
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The first driver that runs programs of a CUDA major version: docs.nvidia.com/cuda/cuda-toolkit-release-notes.
FIRST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
# Other numbers than CUDA's own: what TensorFlow opens when it looks for devices.
LIBRARIES = {
    12: ("libcudart.so.12", "libcublas.so.12", "libcufft.so.11", "libcurand.so.10", "libcusolver.so.11")
    + ("libcusparse.so.12",)
}


@dataclass(frozen=True)
class Gpu:
    """A GPU in the machine; what the driver says of it is None where no driver answers."""

    name: str
    driver: str | None = None
    memory: str | None = None
    capability: str | None = None


@dataclass(frozen=True)
class Build:
    """How TensorFlow was built: with CUDA or not, CUDA's and cuDNN's versions, the GPU architectures it holds."""

    with_cuda: bool
    cuda: str = ""
    cudnn: str = ""
    capabilities: tuple[str, ...] = ()


def find_gpus() -> list[Gpu]:
    """All NVIDIA GPUs: from the driver's nvidia-smi, else from the driver's files, else from the PCI bus."""
    return _from_nvidia_smi() or _from_proc() or _from_pci()


def missing_libraries(build: Build, folders: Sequence[Path] | None = None) -> list[str]:
    """The CUDA libraries that neither the system's loader nor pip's nvidia packages hold."""
    major = _number(build.cuda)
    names = LIBRARIES.get(major, (f"libcudart.so.{major}", f"libcublas.so.{major}"))
    packaged = [Path(p) / "nvidia" for p in site.getsitepackages()] if folders is None else folders
    return [n for n in (*names, f"libcudnn.so.{_number(build.cudnn)}") if not _can_open(n, packaged)]


def reasons(gpus: Sequence[Gpu], build: Build, missing: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Why TensorFlow sees none of the GPUs, each with what to do; the first one to mend comes first."""
    found = []
    if all(gpu.driver is None for gpu in gpus):
        found.append("no NVIDIA driver is loaded: install one, and look whether nvidia-smi answers")
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and (not visible.strip() or visible.strip().startswith("-")):
        found.append(f'CUDA_VISIBLE_DEVICES="{visible}" hides them: unset it')
    if not build.with_cuda:
        brings = "pip install '.[gpu]' in the checkout (on Windows, inside WSL 2)"
        found.append(f"this TensorFlow was built without CUDA: {brings}")
        return found
    first = FIRST_DRIVER.get(_number(build.cuda))
    drivers = [gpu.driver for gpu in gpus if gpu.driver]
    if first and drivers and _version(drivers[0]) < first:
        wanted = ".".join(map(str, first))
        found.append(f"the driver {drivers[0]} is too old for CUDA {build.cuda}: {wanted} or newer")
    if missing:
        found.append(f"CUDA libraries are missing ({', '.join(missing)}): pip install '.[gpu]' in the checkout")
    oldest = min((_capability(c) for c in build.capabilities), default=0)
    for gpu in gpus:
        if gpu.capability and _capability(gpu.capability) < oldest:
            found.append(f"{gpu.name} has compute capability {gpu.capability}; TensorFlow's begin at {oldest / 10:.1f}")
    if visible and not found:
        found.append(f"CUDA_VISIBLE_DEVICES={visible} may name devices that are not there: unset it")
    return found or [
        "unknown; TensorFlow's own messages: TF_CPP_MIN_LOG_LEVEL=0 python -c "
        "'import tensorflow as tf; tf.config.list_physical_devices()'"
    ]


def build_of(tensorflow: Any) -> Build:
    """The Build of an imported TensorFlow."""
    info = tensorflow.sysconfig.get_build_info()
    return Build(
        with_cuda=bool(info.get("is_cuda_build")),
        cuda=str(info.get("cuda_version", "")),
        cudnn=str(info.get("cudnn_version", "")),
        capabilities=tuple(info.get("cuda_compute_capabilities", ())),
    )


def _from_nvidia_smi() -> list[Gpu]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [Gpu(*row) for row in rows if len(row) == 4] if done.returncode == 0 else []


def _from_proc(root: Path = Path("/proc/driver/nvidia")) -> list[Gpu]:
    gpus = []
    for path in sorted(root.glob("gpus/*/information")):
        with contextlib.suppress(OSError):
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            gpus.append(Gpu(lines.get("Model", "NVIDIA GPU").strip(), _proc_driver(root)))
    return gpus


def _proc_driver(root: Path) -> str | None:
    try:
        words = (root / "version").read_text().split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and word.count(".") in (1, 2)), None)


def _from_pci(root: Path = Path("/sys/bus/pci/devices")) -> list[Gpu]:
    """Display controllers (class 0x03) of NVIDIA (vendor 0x10de): there also without any driver."""
    gpus = []
    for device in sorted(root.glob("*")):
        with contextlib.suppress(OSError):
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text()
            if vendor == "0x10de" and kind.startswith("0x03"):
                gpus.append(Gpu(f"NVIDIA GPU at {device.name}"))
    return gpus


def _can_open(name: str, packaged: Sequence[Path]) -> bool:
    # TensorFlow's wheel finds pip's nvidia packages by its own search path, which the loader here does not know.
    if any(any(folder.glob(f"*/lib/{name}")) for folder in packaged):
        return True
    try:
        ctypes.CDLL(name, mode=os.RTLD_LAZY if hasattr(os, "RTLD_LAZY") else ctypes.DEFAULT_MODE)
    except OSError:
        return False
    return True


def _number(version: str) -> int:
    head = version.split(".")[0]
    return int(head) if head.isdigit() else 0


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _capability(text: str) -> int:
    """ "sm_89", "compute_89" and "8.9" → 89."""
    return int("".join(c for c in text if c.isdigit()) or 0)
