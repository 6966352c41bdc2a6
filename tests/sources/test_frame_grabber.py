import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.certificates import authority
from support.devices import mjpeg_camera, need
from tamulag.streamer.bench.rig.devices import Camera
from tamulag.streamer.bench.rig.processes import CAMERA
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.sources.frame_grabber import frame_grabber


@contextmanager
def answering(reply: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Give everybody who connects the same bytes, over TLS with `context`; yield the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            connection.settimeout(2.0)
            try:
                if context:
                    connection = context.wrap_socket(connection, server_side=True)
                if reply.startswith(b"HTTP"):
                    connection.recv(4096)
                connection.sendall(reply)
            except OSError:
                pass  # who refuses what we say hangs up
            finally:
                connection.close()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(5.0)


@contextmanager
def serving(scheme: str, content: bytes, folder: Path, lines: str = "200 OK") -> Iterator[str]:
    """Serve bytes under an address of the scheme."""
    head = f"HTTP/1.0 {lines}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    context = None
    if scheme == "https":
        pair = authority(folder / "tls").sign("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
    reply = content if scheme == "tcp" else head + content
    with answering(reply, context) as port:
        yield f"{scheme}://127.0.0.1:{port}/x.m3u8"


def playlist(segment: str) -> bytes:
    lines = ("#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXTINF:2.0,", segment)
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A second of moving pictures."""
    need(CAMERA)
    path = tmp_path / "film.ts"
    make = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=1"]
    make += ["-c:v", "mpeg2video", str(path)]
    subprocess.run(make, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize("scheme", ["tcp", "http", "https"])
def test_a_playlist_may_name_an_address(scheme: str, film: Path, tmp_path: Path) -> None:
    """A playlist of the network is read: without this the next test would prove nothing."""
    with (
        serving("http", film.read_bytes(), tmp_path) as segment,
        serving(scheme, playlist(segment.replace("m3u8", "ts")), tmp_path) as url,
    ):
        grab = frame_grabber(url)
        assert grab.grab()
        grab.release()


@pytest.mark.parametrize("scheme", ["tcp", "http", "https"])
def test_a_playlist_that_names_a_file_is_refused(scheme: str, film: Path, tmp_path: Path) -> None:
    """What answers at the camera's address cannot choose a file of this machine."""
    with (
        serving(scheme, playlist(f"file://{film}"), tmp_path) as url,
        pytest.raises(SourceError, match=r"cannot be read|has no pictures"),
    ):
        frame_grabber(url)


def test_a_redirection_to_a_file_is_refused(film: Path, tmp_path: Path) -> None:
    """Nor by sending us there."""
    moved = f"302 Found\r\nLocation: file://{film}"
    with (
        serving("http", b"", tmp_path, moved) as url,
        pytest.raises(SourceError, match="cannot be read"),
    ):
        frame_grabber(url)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"ffconcat version 1.0\nfile 'file://{}'\n", id="ffconcat"),
        pytest.param(b"v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 26\n", id="sdp"),
    ],
)
def test_other_lists_are_refused(content: bytes, film: Path, tmp_path: Path) -> None:
    """Lists of files, and what opens ports, are no camera."""
    content = content.replace(b"{}", str(film).encode())
    with (
        serving("tcp", content, tmp_path) as url,
        pytest.raises(SourceError, match="cannot be read"),
    ):
        frame_grabber(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "concat://a|b", "gopher://h/a"])
def test_other_protocols_are_refused(url: str) -> None:
    """An address is one of a network stream."""
    with pytest.raises(SourceError, match="give an address of http, https, rtsp"):
        frame_grabber(url)


def test_no_password_reaches_an_error_or_its_cause() -> None:
    """FFmpeg quotes the address in its own error, which a traceback would show."""
    with pytest.raises(SourceError, match=r"camera http://127\.0\.0\.1:9/x cannot") as caught:
        frame_grabber("http://me:first@127.0.0.1:9/x?pwd=second")
    assert "first" not in str(caught.value)
    assert "second" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_typing_error_does_not_give_the_password_away() -> None:
    """An address without its slashes is refused without repeating it."""
    with pytest.raises(SourceError, match="no index and no URL") as caught:
        frame_grabber("rtsp:me:secret@127.0.0.1/x")
    assert "secret" not in str(caught.value)


@pytest.fixture
def camera(data: Path) -> Iterator[Camera]:
    with mjpeg_camera(data / "clips" / "bbaf2n.mpg") as camera:
        yield camera


@pytest.mark.camera
@pytest.mark.data
def test_frames_are_blue_green_red(camera: Camera) -> None:
    """As OpenCV gives those of a device: a face is more red than blue."""
    grab = frame_grabber(camera.url)
    assert grab.grab()
    is_whole, frame = grab.retrieve()
    grab.release()
    assert is_whole
    image = np.asarray(frame)
    assert image.shape == (288, 360, 3)
    blue, _, red = image[100:200, 140:220].mean((0, 1))
    assert red > blue + 10


@pytest.mark.camera
@pytest.mark.data
def test_a_camera_that_ends_gives_no_more_frames(camera: Camera) -> None:
    """`grab` says so, again and again, and raises nothing."""
    grab = frame_grabber(camera.url)
    assert grab.grab()
    camera.unplug()
    assert any(not grab.grab() for _ in range(500))
    assert not grab.grab()
    assert grab.retrieve() == (False, None)
    grab.release()


def jpeg(grey: int) -> bytes:
    whole, content = cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))
    assert whole
    return content.tobytes()


@pytest.mark.parametrize("first", [b"", b"--frame\r\n"], ids=["no first boundary", "a boundary"])
def test_a_camera_is_read_with_and_without_a_first_boundary(tmp_path: Path, first: bytes) -> None:
    """Cheap cameras send the first picture at once."""
    parts = []
    for grey in range(40, 200, 8):
        picture = jpeg(grey)
        length = f"Content-Length: {len(picture)}\r\n\r\n".encode()
        parts.append(b"Content-Type: image/jpeg\r\n" + length + picture + b"\r\n--frame\r\n")
    kind = "200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame"
    with serving("http", first + b"".join(parts), tmp_path, kind) as url:
        grab = frame_grabber(url)
        seen = [grab.retrieve()[1] for _ in range(12) if grab.grab()]
        grab.release()
    assert len(seen) == 12
    assert [np.asarray(one).shape for one in seen] == [(48, 64, 3)] * 12
    assert all(np.asarray(b).mean() > np.asarray(a).mean() for a, b in pairwise(seen))


def test_a_page_of_the_web_is_no_camera(tmp_path: Path) -> None:
    """It is refused for good, with a hint."""
    page = b"<html>please log in</html>" * 200
    with (
        serving("http", page, tmp_path, "200 OK\r\nContent-Type: text/html") as url,
        pytest.raises(SourceError, match="check the address in a browser") as caught,
    ):
        frame_grabber(url)
    assert caught.value.is_permanent
