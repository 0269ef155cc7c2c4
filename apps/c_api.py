"""Run a SavedModel by TensorFlow's C API, through ctypes on the native library of the installed wheel.

`import tensorflow` takes 5 to 10 seconds; this library loads in a fraction of one. The API is TensorFlow's stable one:
tensorflow/c/c_api.h, tf_tensor.h and tf_tstring.h say what each function does and who owns what.
"""

import contextlib
import ctypes
import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.native import lend_symbols
from apps.pruning import pruned
from apps.remarks import FirstRuns
from apps.signatures import (
    DTYPES,
    NUMBERS,
    ModelError,
    Tensor,
    one_line,
    read_signatures,
    readable,
    signature_named,
)

if TYPE_CHECKING:
    import numpy as np

STRING_BYTES = 24  # sizeof(TF_TString)


class _Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class CModel:
    """A SavedModel run by TensorFlow's C API."""

    runtime = "c"

    def __init__(
        self,
        directory: Path,
        library: Callable[[], ctypes.CDLL],
        op_libraries: Sequence[str | Path],
        threads: int | None,
        optimise: bool,
        only: Collection[str] = (),
    ):
        self.signatures = read_signatures(directory)
        config = _session_config(threads, optimise)
        with pruned(directory, self.signatures, only) as folder:
            self._c = c = _typed(library())
            if any(Path(operations).name.startswith("_fast_") for operations in op_libraries):
                lend_symbols()
            for operations in op_libraries:
                with _status(c, f"{operations}: ") as status:
                    c.TF_LoadLibrary(os.fsencode(operations), status)
            try:
                session, graph = _load(c, folder, config)
            except ModelError:
                # What is wrong with the file, or something in the graph that was cut out and is needed all the same.
                session, graph = _load(c, directory, config)
        self._graph, self._session, self._first_runs, self._only = graph, session, FirstRuns(), only
        self.close = weakref.finalize(self, _close, c, session, graph)
        # At exit the system takes everything back, and faster.
        self.close.atexit = False

    def run(self, signature: str, inputs: Mapping[str, Any]) -> "dict[str, np.ndarray]":
        """The outputs of a signature by name; see `load`. May be called from several threads."""
        from apps.feeds import fitting_arrays  # and with it NumPy, which is not waited for until now

        c, chosen = self._c, signature_named(self.signatures, signature)
        if not self.close.alive:
            raise ModelError("the model is closed")
        if self._only and signature not in self._only:
            raise ModelError(f"signature {signature!r} was left out when the model was loaded")
        arrays = fitting_arrays(signature, chosen, inputs)
        feeds = (_Output * len(arrays))(*(self._output(chosen.inputs[key]) for key in arrays))
        fetches = (_Output * len(chosen.outputs))(*(self._output(tensor) for tensor in chosen.outputs.values()))
        values = (ctypes.c_void_p * len(feeds))()
        results = (ctypes.c_void_p * len(fetches))()
        try:
            for place, (key, array) in enumerate(arrays.items()):
                values[place] = _to_tensor(c, array, chosen.inputs[key].dtype)
            with self._first_runs.of(signature), _status(c) as status:
                c.TF_SessionRun(self._session, None, feeds, values, len(feeds), fetches, results, len(fetches),
                                None, 0, None, status)  # fmt: skip
            return {key: _from_tensor(c, result) for key, result in zip(chosen.outputs, results, strict=True)}
        finally:
            for value in filter(None, values):
                _delete_input(c, value)
            for result in filter(None, results):
                c.TF_DeleteTensor(result)

    def _output(self, tensor: Tensor) -> _Output:
        operation, _, index = tensor.name.partition(":")
        pointer = self._c.TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer:
            raise ModelError(f"the graph has no operation {operation!r}, which its signature names")
        return _Output(pointer, int(index or 0))


def _load(c: ctypes.CDLL, directory: Path, config: bytes) -> tuple[Any, Any]:
    """The session and the graph of a SavedModel. Raises ModelError."""
    options, graph = c.TF_NewSessionOptions(), c.TF_NewGraph()
    try:
        with _status(c) as status:
            c.TF_SetConfig(options, config, len(config), status)
        tags = (ctypes.c_char_p * 1)(b"serve")
        with readable(directory) as place, _status(c, f"{directory}: cannot be loaded: ") as status:
            path = os.fsencode(place)
            return c.TF_LoadSessionFromSavedModel(options, None, path, tags, 1, graph, None, status), graph
    except ModelError:
        c.TF_DeleteGraph(graph)
        raise
    finally:
        c.TF_DeleteSessionOptions(options)


def _typed(c: ctypes.CDLL) -> ctypes.CDLL:
    """TensorFlow's C API, with the types of the functions used here."""
    pointer, text, size, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
    types = {
        "TF_NewStatus": (pointer, []),
        "TF_GetCode": (number, [pointer]),
        "TF_Message": (text, [pointer]),
        "TF_DeleteStatus": (None, [pointer]),
        "TF_NewSessionOptions": (pointer, []),
        "TF_SetConfig": (None, [pointer, text, size, pointer]),
        "TF_DeleteSessionOptions": (None, [pointer]),
        "TF_NewGraph": (pointer, []),
        "TF_DeleteGraph": (None, [pointer]),
        "TF_GraphOperationByName": (pointer, [pointer, text]),
        "TF_LoadLibrary": (pointer, [text, pointer]),
        "TF_LoadSessionFromSavedModel": (pointer, [pointer, pointer, text, pointer, number, pointer, pointer, pointer]),
        "TF_SessionRun": (None, [pointer] * 4 + [number, pointer, pointer, number, pointer, number, pointer, pointer]),
        "TF_CloseSession": (None, [pointer, pointer]),
        "TF_DeleteSession": (None, [pointer, pointer]),
        "TF_AllocateTensor": (pointer, [number, pointer, number, size]),
        "TF_DeleteTensor": (None, [pointer]),
        "TF_TensorType": (number, [pointer]),
        "TF_NumDims": (number, [pointer]),
        "TF_Dim": (ctypes.c_int64, [pointer, number]),
        "TF_TensorByteSize": (size, [pointer]),
        "TF_TensorData": (pointer, [pointer]),
        "TF_StringInit": (None, [pointer]),
        "TF_StringCopy": (None, [pointer, text, size]),
        "TF_StringDealloc": (None, [pointer]),
        "TF_StringGetDataPointer": (pointer, [pointer]),
        "TF_StringGetSize": (size, [pointer]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


@contextlib.contextmanager
def _status(c: ctypes.CDLL, prefix: str = "") -> Iterator[int]:
    """A TF_Status for one call; raises ModelError if the call set it."""
    status = c.TF_NewStatus()
    try:
        yield status
        if c.TF_GetCode(status):
            raise ModelError(prefix + one_line(c.TF_Message(status).decode("utf-8", "replace")))
    finally:
        c.TF_DeleteStatus(status)


def _close(c: ctypes.CDLL, session: int, graph: int) -> None:
    status = c.TF_NewStatus()
    c.TF_CloseSession(session, status)
    c.TF_DeleteSession(session, status)
    c.TF_DeleteGraph(graph)
    c.TF_DeleteStatus(status)


def _to_tensor(c: ctypes.CDLL, array: "np.ndarray", dtype: str) -> int:
    """A TF_Tensor with a copy of the array; `_delete_input` gives it back."""
    strings = array.ravel().tolist() if dtype == "string" else []
    size = len(strings) * STRING_BYTES if dtype == "string" else array.nbytes
    tensor = c.TF_AllocateTensor(NUMBERS[dtype], (ctypes.c_int64 * array.ndim)(*array.shape), array.ndim, size)
    data = c.TF_TensorData(tensor)
    if dtype != "string":
        ctypes.memmove(data, array.ctypes.data, size)
    for place, item in enumerate(strings):
        c.TF_StringInit(data + place * STRING_BYTES)
        c.TF_StringCopy(data + place * STRING_BYTES, item, len(item))
    return tensor


def _delete_input(c: ctypes.CDLL, tensor: int) -> None:
    # Strings in a tensor of our own are ours to give back; those in a result belong to TensorFlow.
    if c.TF_TensorType(tensor) == NUMBERS["string"]:
        data = c.TF_TensorData(tensor)
        for place in range(c.TF_TensorByteSize(tensor) // STRING_BYTES):
            c.TF_StringDealloc(data + place * STRING_BYTES)
    c.TF_DeleteTensor(tensor)


def _from_tensor(c: ctypes.CDLL, tensor: int) -> "np.ndarray":
    """A copy of a TF_Tensor's values; strings as an object array of bytes."""
    import numpy as np

    dtype = DTYPES.get(c.TF_TensorType(tensor))
    shape = tuple(c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor)))
    if dtype is None:
        raise ModelError(f"an output is of type {c.TF_TensorType(tensor)}, which this module does not read")
    data = c.TF_TensorData(tensor)
    if dtype == "string":
        items = [data + place * STRING_BYTES for place in range(int(np.prod(shape, dtype=np.int64)))]
        texts = [ctypes.string_at(c.TF_StringGetDataPointer(i), c.TF_StringGetSize(i)) for i in items]
        return np.array(texts, dtype=object).reshape(shape)
    array = np.empty(shape, dtype)
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, data, array.nbytes)
    return array


def _session_config(threads: int | None, optimise: bool) -> bytes:
    """A serialised ConfigProto (tensorflow/core/protobuf/config.proto, rewriter_config.proto)."""
    config = b"\x32\x02\x20\x01"  # gpu_options.allow_growth, for an app shall not take a whole GPU
    if not optimise:
        config += b"\x52\x05\x52\x03\x98\x01\x01"  # graph_options.rewrite_options.disable_meta_optimizer
        # experimental: optimize_for_static_graph, disable_output_partition_graphs and disable_functional_ops_lowering:
        # no copies of the graph, and loops stay functions, a ninth of the time of a translator's first run.
        config += b"\x82\x01\x07\x60\x01\x70\x01\xa8\x01\x01"
    if not threads:
        return config
    # intra_op_parallelism_threads, inter_op_parallelism_threads: below 0 each caller's thread runs its own operations
    return config + b"\x10" + _to_varint(threads) + b"\x28" + _to_varint(threads if threads > 1 else -1)


def _to_varint(value: int) -> bytes:
    """A signed integer as protobuf writes an int32 or int64."""
    value, head = value & 0xFFFF_FFFF_FFFF_FFFF, b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])
