"""Run a SavedModel by Python TensorFlow."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.feeds import fitting_arrays
from apps.remarks import FirstRuns
from apps.signatures import ModelError, one_line, read_signatures, readable, signature_named


class PythonModel:
    """A SavedModel run by Python TensorFlow."""

    runtime = "python"

    def __init__(self, directory: Path, op_libraries: Sequence[str | Path], threads: int | None, optimise: bool):
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ModelError(f"TensorFlow cannot be imported ({error}): pip install tensorflow") from None
        self._tf, self._first_runs = tf, FirstRuns()
        del optimise  # this runtime optimises in any case
        self.signatures = read_signatures(directory)
        if threads:
            # Too late once TensorFlow has run something in this process: then its own setting stays.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                if threads > 1:
                    tf.config.threading.set_inter_op_parallelism_threads(threads)
        try:
            for library in op_libraries:
                tf.load_op_library(str(library))
            # The loaded object must live as long as its functions.
            with readable(directory) as place:
                self._loaded = tf.saved_model.load(str(place))
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise ModelError(f"{directory}: cannot be loaded: {one_line(str(error))}") from None

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs of a signature by name; see `load`."""
        chosen = signature_named(self.signatures, signature)
        arrays = fitting_arrays(signature, chosen, inputs)
        tf = self._tf
        tensors = {
            key: tf.constant(array.tolist() if array.dtype == object else array, chosen.inputs[key].dtype, array.shape)
            for key, array in arrays.items()
        }
        try:
            with self._first_runs.of(signature):
                outputs = self._loaded.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            raise ModelError(one_line(error.message)) from None
        return {key: np.asarray(value.numpy()) for key, value in outputs.items()}
