"""What a caller gives a signature, as arrays of its dtypes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from apps.signatures import NUMBERS, ModelError, Signature


def fitting_arrays(name: str, signature: Signature, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inputs as arrays of the signature's dtypes; raises ModelError that names what does not fit."""
    if set(inputs) != set(signature.inputs):
        wanted, given = (", ".join(sorted(names)) for names in (signature.inputs, inputs))
        raise ModelError(f"{name} takes {wanted}, not {given or 'nothing'}")
    arrays = {}
    for key, value in inputs.items():
        expected = signature.inputs[key]
        if expected.dtype not in NUMBERS:
            raise ModelError(f"{name}: {key} is of {expected.dtype}, which this module does not feed")
        if expected.dtype == "string":
            array = _strings(f"{name}: {key}", value)
        else:
            try:
                array = np.asarray(value)
            except ValueError:
                raise ModelError(f"{name}: {key}: its rows have different lengths") from None
            if array.size and not np.can_cast(array.dtype, expected.dtype, "same_kind"):
                raise ModelError(f"{name}: {key} must be {expected.dtype}, not {array.dtype}")
            cast = np.ascontiguousarray(array, dtype=expected.dtype).reshape(array.shape)
            if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
                raise ModelError(f"{name}: {key} has numbers that {expected.dtype} does not hold")
            array = cast
        shape = expected.shape
        if shape is not None and (
            len(shape) != array.ndim or any(s not in (None, n) for s, n in zip(shape, array.shape, strict=True))
        ):
            sizes = ", ".join("any" if s is None else str(s) for s in shape)
            raise ModelError(f"{name}: {key} must have the shape ({sizes}), not {array.shape}")
        arrays[key] = array
    return arrays


def _strings(name: str, value: Any) -> np.ndarray:
    """An object array of bytes, from bytes, str (as UTF-8) or nested lists or arrays of them."""
    array = np.array(value, dtype=object)
    for index, item in np.ndenumerate(array):
        if isinstance(item, str):
            try:
                array[index] = item.encode("utf-8", "surrogateescape")  # a file's name may be no UTF-8
            except UnicodeEncodeError:
                raise ModelError(f"{name}: {item[:60]!r} holds half a character") from None
        elif not isinstance(item, bytes):
            raise ModelError(f"{name} holds bytes or str, not {type(item).__name__}")
    return array
