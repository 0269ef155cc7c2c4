"""Keeping standard error for what concerns a person: TensorFlow's native code writes there, too."""

import contextlib
import os
import threading
from collections.abc import Iterator

# Two threads that turn standard error away at once would never turn it back.
_TURNED = threading.RLock()


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Hides what TensorFlow's native code says meanwhile, unless TF_CPP_MIN_LOG_LEVEL=0 asks for all of it.

    Some of these lines (oneDNN, CUDA) come whatever that variable says (TensorFlow 2.21), so standard error is turned
    away as a file descriptor.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    with _TURNED:
        try:
            kept = os.dup(2)
        except OSError:  # standard error is closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


class FirstRuns:
    """A model optimises its graph when a signature first runs, and remarks on it then, and only then."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    @contextlib.contextmanager
    def of(self, signature: str) -> Iterator[None]:
        """Hides the remarks if this is the signature's first run; others wait for its end, and then run at once."""
        if signature not in self._seen:
            with without_remarks():
                if signature not in self._seen:
                    yield
                    self._seen.add(signature)
                    return
        yield
