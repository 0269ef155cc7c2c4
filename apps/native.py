"""TensorFlow's native library: where the installed wheel has it, and opening it while something else is done."""

import contextlib
import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from apps.signatures import ModelError

LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")


def library_path() -> Path | None:
    """TensorFlow's native library in the installed wheel, found without importing TensorFlow; None if there is none."""
    spec = importlib.util.find_spec("tensorflow")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((p for folder in folders for name in LIBRARIES if (p := Path(folder, name)).is_file()), None)


@contextlib.contextmanager
def opening() -> Iterator[Callable[[], ctypes.CDLL]]:
    """Opens the library in a thread; what it gives waits for it and returns it, or raises ModelError.

    It takes a quarter of a second, mostly the linker's, in which a graph can be cut. The thread then imports NumPy, for
    the first arrays: while a library opens, the linker lets no other one be opened. The context does not end before the
    thread, for what the library says meanwhile belongs to it.
    """
    path = library_path()
    if path is None:
        raise ModelError("the C runtime needs TensorFlow's native library, which is not here: use --runtime python")
    # NumPy sets this while it is imported, and to set one while TensorFlow may read another is not safe.
    os.environ.setdefault("OPENBLAS_MAIN_FREE", "1")
    with ThreadPoolExecutor(1) as thread:  # which does the one after the other
        opened = thread.submit(_open_lazily, path)
        thread.submit(importlib.import_module, "numpy")  # who needs it says that it is not there
        yield opened.result


def lend_symbols() -> None:
    """Has libraries that are opened from now on use what TensorFlow's, which is open, has of what they hold themselves.

    TensorFlow Text's have their own copy of protobuf's maps, which hash by an address of their own: of WordPiece's they
    find no attribute of an operation then, and end the process (seen with 2.21). Python's TensorFlow lends its symbols.
    """
    path = library_path()
    if path is not None:
        _opened(path, os.RTLD_LAZY | os.RTLD_GLOBAL | os.RTLD_NOLOAD)


def _open_lazily(path: Path) -> ctypes.CDLL:
    """The library, its symbols looked up when they are called; ctypes itself looks them all up first (0.3 s more)."""
    return ctypes.CDLL(str(path), handle=_opened(path, os.RTLD_LAZY | os.RTLD_LOCAL))


def _opened(path: Path, flags: int) -> int:
    """The handle of a library that is opened so. Raises ModelError."""
    try:
        own = ctypes.CDLL(None)
        own.dlopen.restype, own.dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        own.dlerror.restype = ctypes.c_char_p
        handle = own.dlopen(os.fsencode(path), flags)
        if not handle:
            raise OSError((own.dlerror() or b"no reason").decode("utf-8", "replace"))
        return handle
    except (OSError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be loaded: {error}") from None
