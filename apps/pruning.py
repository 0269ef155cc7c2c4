"""A SavedModel's graph without the signatures that nobody asks for: a smaller graph gives its first answer sooner.

TensorFlow reads, copies and checks a whole graph before it runs any of it. Messages are cut out of the protobuf file as
they stand there; graph.proto, function.proto and meta_graph.proto say which field is what.
"""

import contextlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from apps.signatures import Signature, entry, fields

# Beyond this, looking for what can go would take longer than it saves.
MOST_FUNCTIONS = 500


@contextlib.contextmanager
def pruned(directory: Path, signatures: Mapping[str, Signature], only: Collection[str]) -> Iterator[Path]:
    """A folder whose SavedModel has of `signatures`, those of `directory`, at least `only`; it ends with the context.

    Where nothing can go, or no temporary folder can be written, it is `directory` itself.
    """
    with contextlib.ExitStack() as stack:
        smaller = None
        if only:
            # Of a damaged file TensorFlow says more than this could.
            with contextlib.suppress(IndexError, KeyError, TypeError, StopIteration, UnicodeDecodeError):
                smaller = _without(directory, signatures, only)
        if smaller is not None:
            try:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="savedmodel-")))
                (folder / "saved_model.pb").write_bytes(smaller)
                for name in ("variables", "assets"):
                    if (directory / name).is_dir():
                        (folder / name).symlink_to((directory / name).resolve(), target_is_directory=True)
                directory = folder
            except OSError:
                pass  # the whole graph serves as well
        yield directory


def _without(directory: Path, signatures: Mapping[str, Signature], only: Collection[str]) -> bytes | None:
    """saved_model.pb without the other signatures and without what only they use; None where nothing can go."""
    dropped = {name: signature for name, signature in signatures.items() if name not in only}
    model = list(fields(memoryview((directory / "saved_model.pb").read_bytes())))
    if not dropped or sum(field == 2 for field, _ in model) != 1:
        return None
    meta = list(fields(next(value for field, value in model if field == 2)))
    graph = list(fields(next(value for field, value in meta if field == 2)))
    library = [list(fields(value)) for field, value in graph if field == 2]
    functions = {_name(dict(fields(f))[1]): bytes(f) for part in library for field, f in part if field == 1}
    if not functions or len(functions) > MOST_FUNCTIONS:
        return None
    nodes = {_name(value): value for field, value in graph if field == 1}
    inputs = {name: [_node(str(i, "utf-8")) for f, i in fields(node) if f == 3] for name, node in nodes.items()}
    # What no dropped signature reaches stays, whatever it may be for, and what that and the others need.
    rest = set(nodes) - _reached(_nodes(dropped.values()), inputs)
    kept = _reached(rest | _nodes(s for name, s in signatures.items() if name not in dropped), inputs)
    if len(kept) == len(nodes):
        return None
    needed = _mentioned(b"".join(bytes(nodes[name]) for name in kept), functions)
    slim_library = b"".join(
        _message(field, value) for part in library for field, value in part
        if field != 1 or _name(dict(fields(value))[1]) in needed
    )  # fmt: skip
    slim = b"".join(
        _message(field, value) for field, value in graph if field != 2 and (field != 1 or _name(value) in kept)
    )
    parts = [
        _message(field, slim + _message(2, slim_library) if field == 2 else value) for field, value in meta
        # The tree of Python objects (7) names all functions, and the C++ loader does not read it.
        if field != 7 and not (field == 5 and entry(value)[0] in dropped)
    ]  # fmt: skip
    return b"".join(_message(field, b"".join(parts) if field == 2 else value) for field, value in model)


def _reached(names: Collection[str], inputs: Mapping[str, list[str]]) -> set[str]:
    """These nodes and all that they take their inputs from."""
    found, stack = set[str](), list(names)
    while stack:
        name = stack.pop()
        if name in inputs and name not in found:
            found.add(name)
            stack += inputs[name]
    return found


def _mentioned(code: bytes, functions: Mapping[str, bytes]) -> set[str]:
    """The functions whose names stand in `code`, and in those functions, and so on."""
    found, stack = set[str](), [code]
    while stack:
        text = stack.pop()
        new = [name for name in functions if name not in found and name.encode() in text]
        found.update(new)
        stack += [functions[name] for name in new]
    return found


def _nodes(signatures: Iterable[Signature]) -> set[str]:
    return {_node(t.name) for s in signatures for t in (*s.inputs.values(), *s.outputs.values())}


def _name(message: memoryview) -> str:
    return str(next(value for field, value in fields(message) if field == 1), "utf-8")


def _node(tensor: str) -> str:
    """ "name:1" and "^name" to the name of the node."""
    return tensor.lstrip("^").partition(":")[0]


def _message(field: int, value: bytes | memoryview | int) -> bytes:
    if isinstance(value, int):
        return _varint(field << 3) + _varint(value)
    return _varint(field << 3 | 2) + _varint(len(value)) + bytes(value)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
