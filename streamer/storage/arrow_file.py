"""Recordings as Arrow IPC streams: rows to bytes, and untrusted bytes to rows or an error.

Knows Arrow and folders. Knows no session. A recording is a folder of files `0000.arrows` and on;
each is a stream of its own that starts with the header. Files are not trusted: nothing in them is
executed, and no size in them is relied on.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from .recording import FORMAT, KINDS, LONGEST, Header, RecordingError, Row

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".arrows"
FILE_LIMIT = 1 << 30
"""Bytes of the largest file that is read."""
END = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow stream ends."""


def warm_up() -> None:
    """Import Arrow and make one array: the first takes up to 2 s, in which no row is written."""
    import pyarrow as pa

    pa.array([0.0])


def schema_of(header: Header) -> "pa.Schema":
    """Return the Arrow schema of a file; its metadata carries the header."""
    import pyarrow as pa

    columns = [
        ("kind", pa.utf8()),
        ("arrived", pa.float64()),
        ("at", pa.float64()),
        ("values", pa.list_(pa.float32())),
        ("text", pa.utf8()),
    ]
    return pa.schema(columns, metadata={"tamulag": header.model_dump_json()})


def batch_of(rows: Sequence[Row], schema: "pa.Schema") -> "pa.RecordBatch":
    """Return rows as one Arrow batch."""
    import pyarrow as pa

    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.record_batch(columns, schema=schema)


class Recording:
    """A recording on disk.

    Args:
        folder: Of one session, or a folder that holds such folders: then the newest is taken.

    Attributes:
        folder: Of the session.
        sessions: How many there were to choose from.
        header: Of the first file.
        cut: Where the last file ends within a batch, as after a power cut or a kill; None: it
            does not, or it was not read that far.

    Raises:
        RecordingError: If there is none, or it is of another format.
    """

    def __init__(self, folder: Path) -> None:
        found = _sessions_in(folder)
        self.folder, self.sessions = found[-1], len(found)
        self.files = sorted(self.folder.glob(f"*{SUFFIX}"))
        self.header = _header(self.files[0])
        self.cut: str | None = None

    def rows(self) -> Iterator[Row]:
        """Yield every row in order, a file at a time; a torn end of the last file is left out.

        Raises:
            RecordingError: If a file is damaged, missing, or of another session.
        """
        for part, file in enumerate(self.files):
            header = _header(file)
            if header != self.header.model_copy(update={"part": part}):
                raise RecordingError(
                    f"recording {file} is part {header.part} of session {header.session}, expected "
                    f"part {part} of {self.header.session}: a file is missing or of elsewhere"
                )
            try:
                yield from _rows(file)
            except _Torn as torn:
                if file != self.files[-1]:
                    raise RecordingError(f"recording {torn}: put the file back") from torn
                self.cut = str(torn)


class _Torn(Exception):
    """A file ends or breaks within a batch."""


def _sessions_in(folder: Path) -> list[Path]:
    """Return the folders of sessions, the newest last: names begin with the time."""
    if not folder.is_dir():
        raise RecordingError(f"recording {folder} not found: name the folder given to --record")
    if any(folder.glob(f"*{SUFFIX}")):
        return [folder]
    inside = sorted({file.parent for file in folder.glob(f"*/*{SUFFIX}")})
    if not inside:
        raise RecordingError(f"recording {folder} holds no {SUFFIX} file: name another folder")
    return inside


def _messages(file: Path) -> Iterator["pa.Message"]:
    """Yield the Arrow messages of a file from memory, so that no size in it is believed."""
    import pyarrow as pa

    try:
        if (size := file.stat().st_size) > FILE_LIMIT:
            raise RecordingError(
                f"recording {file} has {size} bytes: at most {FILE_LIMIT} are read"
            )
        data = file.read_bytes()
    except OSError as error:
        raise RecordingError(f"recording {file} cannot be read: {error.strerror}") from error
    try:
        yield from pa.ipc.MessageReader.open_stream(pa.py_buffer(data))
    except (pa.ArrowException, OSError) as error:
        raise _Torn(f"{file} breaks off ({type(error).__name__})") from None


def _header(file: Path) -> Header:
    import pyarrow as pa

    try:
        message = next(_messages(file), None)
        if message is None or message.type != "schema":
            raise _Torn(f"{file} has no beginning")
        schema = pa.ipc.read_schema(message)
        about = json.loads((schema.metadata or {}).get(b"tamulag", b"null"))
    except (_Torn, pa.ArrowException, OSError, ValueError, RecursionError) as error:
        why = _why(error)
        raise RecordingError(f"recording {file} is damaged or no recording: {why}") from None
    found = about.get("format") if isinstance(about, Mapping) else None
    if found != FORMAT:
        raise RecordingError(
            f"recording {file} has format {found if isinstance(found, int) else None}, "
            f"expected {FORMAT}: "
            "replay it with the version that made it"
        )
    try:
        header = Header.model_validate_json(json.dumps(about))
    except ValidationError as error:
        problem = error.errors()[0]["type"]
        raise RecordingError(f"recording {file} has a damaged header ({problem})") from None
    if not schema.equals(schema_of(header)):
        raise RecordingError(f"recording {file} has other columns than format {FORMAT}")
    return header


def _why(error: Exception) -> str:
    """Return our own reason, or the kind of another's, whose text may quote the file."""
    return str(error) if isinstance(error, _Torn) else type(error).__name__


def _rows(file: Path) -> Iterator[Row]:
    import pyarrow as pa

    messages = _messages(file)
    schema = pa.ipc.read_schema(next(messages))
    for message in messages:
        # A packed buffer could unpack to any size; this program writes none.
        if message.type != "record batch" or _is_packed(message.metadata.to_pybytes()):
            raise _Torn(f"{file} holds something that this program does not write")
        try:
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise _Torn(f"{file} is damaged ({type(error).__name__})") from None
        yield from _unpacked(batch, file)


def _unpacked(batch: "pa.RecordBatch", file: Path) -> Iterator[Row]:
    kinds, arrived, at, values, text = (batch.column(index) for index in range(5))
    flat = values.values.to_numpy()
    offsets = values.offsets.to_numpy()
    columns: Iterator[tuple[Any, ...]] = zip(
        kinds.to_pylist(), arrived.to_pylist(), at.to_pylist(), text.to_pylist(), strict=True
    )
    for index, (kind, came, time, words) in enumerate(columns):
        if kind not in KINDS or came is None or not abs(came) <= LONGEST:
            raise _Torn(f"{file} is damaged (a row of no known kind or time)")
        vector = None
        if values[index].is_valid:
            # A copy: it owns its memory and lies where numpy aligns arrays.
            vector = np.array(flat[offsets[index] : offsets[index + 1]], np.float32)
        yield Row(kind, came, time, vector, words)


def _is_packed(metadata: bytes) -> bool:
    """Return whether a record batch has a `compression` entry, or cannot be understood.

    `metadata` is a flatbuffer: `Message.header` is field 2, `RecordBatch.compression` field 3.
    """
    try:
        (root,) = struct.unpack_from("<I", metadata, 0)
        place = _field(metadata, root, 2)
        (step,) = struct.unpack_from("<I", metadata, place)
        return place == 0 or _field(metadata, place + step, 3) != 0
    except struct.error:
        return True


def _field(data: bytes, table: int, number: int) -> int:
    """Return the place of a flatbuffer table's field, 0 if it is not there."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", data, vtable)
    slot = 4 + 2 * number
    if slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + slot)
    return table + offset if offset else 0
