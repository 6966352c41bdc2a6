"""Read pickled numpy arrays and plain containers; nothing in a file can run.

Knows the opcodes of pickles. The standard unpickler imports and calls what a file names, and even
if it may name numpy alone, a forged state of a dtype makes numpy read pointers out of the file.
So it is not used: `pickletools` cuts the file into opcodes, only those that build data are carried
out, and the few functions that a pickled array names are replaced by code of this file.
"""

import mmap
import pickletools
import re
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..nn.errors import TamulagError

MAX_BYTES = 32 * 2**30
MAX_OPCODES = 20_000_000
"""The largest file of the field, CMU-MOSEI, takes less than a million."""

NUMBER_OR_TEXT = re.compile(r"[?biufSU]\d{0,9}")
"""Codes of the types whose bytes mean nothing but values."""


class UnsafePickle(TamulagError):
    """A pickle holds what is not data, or is damaged."""


class Name(Enum):
    """What a file may name."""

    RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
    BUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
    SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
    NDARRAY = ("numpy ndarray",)
    DTYPE = ("numpy dtype",)
    ENCODE = ("_codecs encode",)
    BYTES = ("__builtin__ bytes", "builtins bytes")
    DICT = ("collections OrderedDict",)
    SET = ("__builtin__ set", "builtins set")


NAMES = {spelling: name for name in Name for spelling in name.value}


@dataclass(eq=False)
class _Type:
    """A dtype: its code comes first, its byte order later."""

    code: str
    order: str = "="

    def dtype(self) -> np.dtype[np.generic]:
        if not NUMBER_OR_TEXT.fullmatch(self.code) or self.order not in "<>|=":
            raise UnsafePickle(f"values of type {self.code[:20]!r}")
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class Boxed:
    """An array: it is named first and filled later."""

    array: npt.NDArray[np.generic] | list[object] | None = None
    """A list for an array of objects."""


def unpickle(path: Path) -> object:
    """Read a pickle of dicts, lists, tuples, sets, numbers, text, bytes and numpy arrays.

    Returns:
        The data; arrays may be `Boxed`, see `unboxed`.

    Raises:
        UnsafePickle: If the file holds anything else, is damaged, or is larger than `MAX_BYTES`.
        OSError: If it cannot be opened.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        size = file.seek(0, 2)
        if not 0 < size <= MAX_BYTES:
            raise UnsafePickle(f"{size} bytes: expected 1 to {MAX_BYTES}")
        # Odd escapes in a damaged text only warn.
        warnings.simplefilter("ignore")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Machine().run(content)
            except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
                raise UnsafePickle(f"damaged: {type(error).__name__} {error}") from error


def unboxed(value: object) -> object:
    """Return the array of a box, or the value itself."""
    return value.array if isinstance(value, Boxed) else value


class _Machine:
    """A stack, its marks and a memo; each opcode is one small step that builds data."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, content: mmap.mmap) -> object:
        # mmap reads like a file and never more than there is, whatever length an opcode claims.
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):  # type: ignore[arg-type]
            name = opcode.name
            if name in LITERALS:
                self.stack.append(argument)
            elif name in FRESH:
                self.stack.append(FRESH[name]())
            elif name in STEPS:
                STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise UnsafePickle(f"opcode {name} is not needed for data")
            if count > MAX_OPCODES:
                raise UnsafePickle(f"more than {MAX_OPCODES} opcodes")
        [value] = self.stack
        return value

    def collect(self) -> list[object]:
        first = self.marks.pop()
        if first > len(self.stack):
            raise UnsafePickle("a mark without its items")
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def put(self, argument: object) -> None:
        key = len(self.memo) if argument is None else argument
        assert isinstance(key, int)
        self.memo[key] = self.stack[-1]

    def get(self, argument: object) -> None:
        assert isinstance(argument, int)
        self.stack.append(self.memo[argument])

    def name(self, argument: object) -> None:
        words = [argument] if argument else [self.stack.pop(-2), self.stack.pop()]
        full = " ".join(word if isinstance(word, str) else "?" for word in words)
        if full not in NAMES:
            raise UnsafePickle(f"it names {full[:80]!r}, which is not data")
        self.stack.append(NAMES[full])

    def tuple_of(self, length: int) -> None:
        if length > len(self.stack):
            raise UnsafePickle("a tuple without its items")
        items = tuple(self.stack[-length:])
        self.stack[-length:] = [items]

    def append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += items
        elif isinstance(target, set):
            target.update(map(_key, items))
        else:
            raise UnsafePickle(f"items for a {type(target).__name__}")

    def set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise UnsafePickle(f"keys for a {type(target).__name__}")
        target.update(_pairs(items))

    def reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        call = CALLS.get(function) if isinstance(function, Name) else None
        if call is None or not isinstance(arguments, tuple):
            raise UnsafePickle(f"a call of a {type(function).__name__}")
        self.stack.append(call(*arguments))

    def build(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(state, tuple):
            raise UnsafePickle(f"a state of a {type(state).__name__}")
        if isinstance(target, _Type):
            _, target.order, *structure = state[:5]
            if structure != [None] * 3:
                raise UnsafePickle("values of a structured type")
        elif isinstance(target, Boxed):
            shape, kind, fortran, content = state[-4:]
            target.array = _array(content, kind, shape, "F" if fortran else "C")
        else:
            raise UnsafePickle(f"a state for a {type(target).__name__}")


def _key(value: object) -> Hashable:
    # A deep tuple as a key would overflow the interpreter's stack when it is hashed.
    if not isinstance(value, str | bytes | int | float | None):
        raise UnsafePickle(f"a {type(value).__name__} as a key")
    return value


def _pairs(items: list[object]) -> dict[Hashable, object]:
    return dict(zip(map(_key, items[::2]), items[1::2], strict=True))


def _array(
    content: object, kind: object, shape: object, order: object
) -> npt.NDArray[np.generic] | list[object]:
    if not isinstance(kind, _Type) or not isinstance(shape, tuple):
        raise UnsafePickle("an array without type and shape")
    if isinstance(content, list) and kind.code.startswith("O"):
        return content
    if not isinstance(content, bytes | bytearray) or order not in ("C", "F"):
        raise UnsafePickle(f"an array over a {type(content).__name__}")
    flat = np.frombuffer(content, kind.dtype())
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: object, *_: object) -> Boxed:
    if kind is not Name.NDARRAY:
        raise UnsafePickle("an array of a foreign class")
    return Boxed()


def _buffer(
    content: object, kind: object, shape: object, order: object, axes: object = None
) -> Boxed:
    array = _array(content, kind, shape, "C" if axes else order)
    if isinstance(array, np.ndarray) and isinstance(axes, tuple):
        array = np.transpose(array, axes)
    return Boxed(array)


def _dtype(code: object, *_: object) -> _Type:
    if not isinstance(code, str):
        raise UnsafePickle(f"a type named by a {type(code).__name__}")
    return _Type(code)


def _scalar(kind: object, content: object) -> object:
    values = _array(content, kind, (1,), "C")
    return values[0].item() if isinstance(values, np.ndarray) else None


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickle("text in another encoding than latin1")
    return text.encode("latin1")


def _set(items: object) -> set[Hashable]:
    if not isinstance(items, list):
        raise UnsafePickle("a set that is not made of a list")
    return set(map(_key, items))


CALLS: dict[Name, Callable[..., object]] = {
    Name.RECONSTRUCT: _reconstruct,
    Name.BUFFER: _buffer,
    Name.SCALAR: _scalar,
    Name.DTYPE: _dtype,
    Name.ENCODE: _encode,
    Name.BYTES: lambda: b"",
    Name.DICT: lambda: {},  # noqa: PIE807  (`dict` itself would take arguments)
    Name.SET: _set,
}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
FRESH: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
STEPS: dict[str, Callable[[_Machine, object], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Machine.name),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.collect())),
    "LIST": lambda machine, _: machine.stack.append(machine.collect()),
    "DICT": lambda machine, _: machine.stack.append(_pairs(machine.collect())),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.collect()),
    "ADDITEMS": lambda machine, _: machine.append(machine.collect()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.collect()),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
