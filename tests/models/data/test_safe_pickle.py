"""Pickles are read as data: what is data comes back, what is not is refused and never runs."""

import builtins
import os
import pickle
import struct
import subprocess
from collections import OrderedDict, deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamulag.models.data import safe_pickle as module
from tamulag.models.data.safe_pickle import UnsafePickle, unboxed, unpickle

PROTOCOLS = [0, 1, 2, 3, 4, 5]
ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float64 columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "turned axes": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "big endian": np.arange(4, dtype=">i4"),
    "nothing": np.zeros((0, 5), np.float32),
    "flags": np.array([True, False]),
    "text": np.array(["grüße", "b"]),
    "one number": np.array(2.5),
}


def written(folder: Path, content: bytes) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(content)
    return path


def read(folder: Path, content: object, protocol: int = 4) -> object:
    return unpickle(written(folder, pickle.dumps(content, protocol)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_array_comes_back(tmp_path: Path, name: str, protocol: int) -> None:
    """Values, shape and type survive, whatever numpy wrote them with."""
    array = unboxed(read(tmp_path, ARRAYS[name], protocol))
    assert isinstance(array, np.ndarray)
    assert array.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers_come_back(tmp_path: Path, protocol: int) -> None:
    """Dicts, lists, tuples and sets of numbers, text, bytes and None, shared parts included."""
    shared = [1, -(2**70), 2.5, True, None, "ü", b"\x00\xff", b""]
    content = {"a": shared, "b": (shared, (), (1, 2), (1, 2, 3, 4)), "c": {1, 2}, 3: {}}
    assert read(tmp_path, content, protocol) == content


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_numpy_and_collections_add_comes_back(tmp_path: Path, protocol: int) -> None:
    """Scalars are plain numbers, an ordered dict is a dict, an array of objects is a list."""
    content = {"n": np.float64(2.5), "s": np.str_("ab"), "d": OrderedDict(a=1)}
    assert read(tmp_path, content, protocol) == {"n": 2.5, "s": "ab", "d": {"a": 1}}
    names = np.array(["ann", None], object)
    assert unboxed(read(tmp_path, names, protocol)) == ["ann", None]


@pytest.mark.parametrize("module_name", ["numpy.core", "numpy._core"])
def test_files_of_old_and_new_numpy_are_read(tmp_path: Path, module_name: str) -> None:
    """Both numpy 1 and numpy 2 write the same array under different names."""
    content = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core", module_name.encode())
    array = unboxed(unpickle(written(tmp_path, content)))
    np.testing.assert_array_equal(np.asarray(array), np.arange(3.0))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def attacks(trace: Path) -> dict[str, object]:
    """Return objects whose unpickling would make a file."""
    code = f"open({str(trace)!r}, 'w').close()"
    shell = f"touch {trace}"
    return {
        "system": Call(os.system, shell),
        "eval": Call(builtins.eval, code.replace(".close()", "")),
        "exec": Call(builtins.exec, code),
        "subprocess": Call(subprocess.call, ["touch", str(trace)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "numpy": Call(np.save, str(trace), np.zeros(1)),
        "nested": {"train": [{"text": np.zeros(2), "id": [("a", Call(os.system, shell))]}]},
        "key": {Call(os.system, shell): 1},
        "in an array": np.array([Call(os.system, shell)], object),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", attacks(Path("x")))
def test_call_is_refused_and_does_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    """No function of a file is called; the standard unpickler would have left a trace."""
    trace = tmp_path / "trace"
    with pytest.raises(UnsafePickle):
        read(tmp_path, attacks(trace)[name], protocol)
    assert not trace.exists()


def test_attacks_of_this_file_work(tmp_path: Path) -> None:
    """The test above would notice: these pickles do run in the standard unpickler."""
    trace = tmp_path / "trace"
    for name in ("system", "exec", "nested"):
        pickle.loads(pickle.dumps(attacks(trace)[name]))
        assert trace.exists()
        trace.unlink()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(deque([1]), id="deque"),
        pytest.param(Fraction(1, 2), id="fraction"),
        pytest.param(Path("a"), id="path"),
        pytest.param(os.system, id="function"),
        pytest.param(np.zeros(1, "M8[s]"), id="time"),
        pytest.param(np.zeros(1, [("a", "f4")]), id="structured"),
        pytest.param({(1, 2): 3}, id="tuple as key"),
        pytest.param(frozenset([1]), id="frozen set"),
        pytest.param(np.ma.masked_array([1.0]), id="masked array"),
    ],
)
def test_what_the_field_does_not_use_is_refused(tmp_path: Path, content: object) -> None:
    """Less to admit is less to get wrong."""
    with pytest.raises(UnsafePickle):
        read(tmp_path, content)


def op(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


DTYPE = text("numpy") + text("dtype") + b"\x93"
RECONSTRUCT = text("numpy._core.multiarray") + text("_reconstruct") + b"\x93"
NDARRAY = text("numpy") + text("ndarray") + b"\x93"
OBJECTS = DTYPE + text("O8") + b"\x85R"
EMPTY = RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            op(EMPTY, b"(K\x01K\x01\x85", OBJECTS, b"\x89C\x08AAAAAAAAtb"), id="objects from bytes"
        ),
        pytest.param(op(DTYPE, b"K\x00\x85R"), id="type without a name"),
        pytest.param(op(DTYPE, b"N}\x86b"), id="state for a type"),
        pytest.param(op(NDARRAY, b")R"), id="call of the array type"),
        pytest.param(op(RECONSTRUCT, DTYPE, b"K\x00\x85C\x01b\x87R"), id="array of another class"),
        pytest.param(op(text("numpy.core.multiarray"), text("fromfile"), b"\x93"), id="fromfile"),
        pytest.param(op(text("numpy"), text("load"), b"\x93"), id="load"),
        pytest.param(
            op(text("collections"), text("OrderedDict"), b"\x93", b"](N)\x86e\x85R"),
            id="ordered dict of pairs",
        ),
        pytest.param(op(b"\x82\x01"), id="extension"),
        pytest.param(op(b"N)\x81"), id="new object"),
        pytest.param(op(b"Pabc\n"), id="persistent"),
        pytest.param(op(b"(ios\nsystem\n"), id="instance"),
        pytest.param(op(b"N" * 3), id="three values"),
        pytest.param(op(b"t"), id="no mark"),
        pytest.param(op(b"(N0("), id="odd marks"),
        pytest.param(op(b"N\x87"), id="short tuple"),
        pytest.param(op(b"h\x07"), id="empty memo"),
        pytest.param(op(b"}(K\x01u"), id="key without a value"),
        pytest.param(b"", id="empty file"),
        pytest.param(b"\x80\x04N", id="no end"),
        pytest.param(b"PK\x03\x04 a zip", id="zip"),
    ],
)
def test_hand_made_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    """Each opcode is checked by itself: what it takes from the stack may be anything."""
    with pytest.raises(UnsafePickle):
        unpickle(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(op(b"\x8e" + struct.pack("<Q", 2**50), b"abc"), id="bytes"),
        pytest.param(op(b"\x8d" + struct.pack("<Q", 2**62), b"abc"), id="text"),
        pytest.param(op(b"\x95" + struct.pack("<Q", 2**60), b"N"), id="frame"),
        pytest.param(op(b"Nr" + struct.pack("<I", 2**32 - 1)), id="memo"),
        pytest.param(op(b"(" * 100_000 + b"N" + b"\x85" * 100_000), id="depth"),
        pytest.param(op(b"}" + b")" + b"\x85" * 300_000 + b"Ns"), id="deep key"),
    ],
)
def test_claim_of_much_memory_costs_none(tmp_path: Path, content: bytes) -> None:
    """A small file that claims terabytes, or nests without end, is refused or read in no time."""
    try:
        unpickle(written(tmp_path, content))
    except UnsafePickle:
        return


def test_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on bytes and on opcodes."""
    path = written(tmp_path, pickle.dumps([1] * 50))
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(UnsafePickle, match="expected 1 to 10"):
        unpickle(path)
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_OPCODES", 10)
    with pytest.raises(UnsafePickle, match="more than 10 opcodes"):
        unpickle(path)


SEEDS = [
    pickle.dumps({"a": ARRAYS, "b": [np.float32(1), {1}, ("x", None)]}, protocol)
    for protocol in (0, 2, 4, 5)
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(content) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                content[place] = draw(st.integers(0, 255))
            case 1:
                content[place:place] = draw(st.binary(min_size=1, max_size=4))
            case 2:
                del content[place : place + draw(st.integers(1, 20))]
            case 3:
                other = draw(st.integers(0, len(content) - 1))
                content[place:place] = content[other : other + draw(st.integers(1, 40))]
        if not content:
            return b"."
    return bytes(content)


def harmless(content: bytes) -> Any:
    with TemporaryDirectory() as folder:
        try:
            return unpickle(written(Path(folder), content))
        except UnsafePickle:
            return None


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_damaged_pickle_is_data_or_refused(content: bytes) -> None:
    """Nothing but `UnsafePickle` ever comes out of a damaged file."""
    harmless(content)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_random_bytes_are_data_or_refused(content: bytes) -> None:
    """Nor out of a file that is no pickle."""
    harmless(b"\x80\x04" + content + b".")
