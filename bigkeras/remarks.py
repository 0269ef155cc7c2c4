"""TensorFlow without its remarks: what its native code says of itself, and is of no use to who trains."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Imports TensorFlow and finds the devices, without the dozen lines that its libraries write about themselves.

    They are written below Python, before TensorFlow heeds TF_CPP_MIN_LOG_LEVEL; they are shown if it fails.
    """
    # By these languages' rules exported models of text would make "ı" of "I", as they do in no other.
    language = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    if language[:2].lower() in ("tr", "az", "lt"):
        os.environ["LC_ALL"] = "C.UTF-8"
    with unheard():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().addFilter(_for_users)


def begin_quietly() -> None:
    """Has TensorFlow say now, and unheard, what it says once: that oneDNN turns no whole numbers of 64 bits here.

    It calls that an error, and takes another way. To be called where the devices are settled: this is an operation.
    """
    import tensorflow as tf

    with unheard(), tf.device("/CPU:0"):
        tf.transpose(tf.zeros((2, 2), tf.int64))


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Hides what is written to stderr meanwhile, below Python, too; it is shown where that fails."""
    try:
        shown = os.dup(2)
        hidden = tempfile.TemporaryFile()  # noqa: SIM115 -- closed below
    except OSError:  # a closed stderr, or no folder for it
        hidden = None
    if hidden is None:
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _for_users(record: logging.LogRecord) -> bool:
    """Whether a remark of TensorFlow's is one: that each candidate's model is traced anew is advice to programmers."""
    return "triggered tf.function retracing" not in record.getMessage()
