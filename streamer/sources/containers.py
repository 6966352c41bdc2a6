"""Open files and network streams: what may be opened, and what a failure means.

Knows FFmpeg's formats, protocols and errors. Knows no stamps and no pictures.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.source import SourceError
from ..core.urls import SCHEMES, redacted

if TYPE_CHECKING:
    from av import FFmpegError, VideoStream
    from av.container import InputContainer

_OPEN_LIMIT, _READ_LIMIT = 5.0, 2.0
# A playlist from the network must not read files of this machine, nor a file reach the network.
_FILE_PROTOCOLS = "file,crypto,data,fd,pipe"
_NETWORK_PROTOCOLS = ",".join((*SCHEMES, "httpproxy", "tls", "crypto", "data"))

STANDARD_INPUT = "-"
"""Path of what comes through a pipe."""

_FILMS = """
3g2 3gp 4xm asf avi dhav dv dvd f4v flic flv film_cpk gif gxf h261 h263 h264 hevc ingenient ivf
live_flv m4v matroska matroska,webm mjpeg mjpeg_2000 mov mov,mp4,m4a,3gp,3g2,mj2 mp4 mpeg mpeg1video
mpeg2video mpegts mpegtsraw mpegvideo mpjpeg mxf nsv nut nuv obu av1 ogg ogv rm roq smk svcd swf
vc1 vc1test vcd vob vvc webm wtv yuv4mpegpipe apng
"""
_SOUNDS = """
aac ac3 ac4 aiff amr amrnb amrwb ape asf au caf dsf dts dtshd eac3 flac gsm ircam latm loas mlp mp2
mp3 mpc mpc8 nistsphere oga oma opus qcp rso sbc sln sox spdif tak truehd tta voc w64 wav wsd wv
wve shn g722 g723_1 g726 g726le g728 g729 iamf
"""
_PICTURES = """
image2 jpeg_pipe jpegls_pipe jpegxl_pipe png_pipe webp_pipe bmp_pipe gif_pipe tiff_pipe pam_pipe
pbm_pipe pgm_pipe ppm_pipe psd_pipe qoi_pipe j2k_pipe ico avif
"""
_STREAMS = "hls rtsp rtp rtp_mpegts"
FORMATS = frozenset(f"{_FILMS} {_SOUNDS} {_PICTURES} {_STREAMS}".split())
"""Names of the demuxers that are used. FFmpeg has others, which make films out of texts, subtitles,
scores and lists of further inputs."""


def is_network(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def opened(path: str) -> "InputContainer":
    """Open a file or stream.

    Raises:
        SourceError: If it cannot be read; the text names the remedy.
    """
    import av

    name = f"source {redacted(path)}"
    if is_network(path):
        return streamed(path, name)
    options = {"format_whitelist": _formats(), "protocol_whitelist": _FILE_PROTOCOLS}
    try:
        with _openable(path) as place:
            # A playlist whose parts may not be opened is retried for ever without a limit.
            return av.open(place, options=options, timeout=_OPEN_LIMIT)
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror
    remedy = "check the path and that it is a film, sound or picture"
    raise SourceError(f"{name} cannot be read ({reason}): {remedy}", is_permanent=True)


def is_whole_file(path: str) -> bool:
    """Return whether a path is of a file that can be read more than once, not of a pipe."""
    try:
        return not is_network(path) and stat.S_ISREG(os.stat(_place(path)).st_mode)
    except OSError:
        return False


def _place(path: str) -> str:
    return "/dev/stdin" if path == STANDARD_INPUT else path


@contextmanager
def _openable(path: str) -> Iterator[str]:
    """Give a name of a file that FFmpeg takes: absolute, so that it is no protocol's; UTF-8."""
    if path == STANDARD_INPUT and (sys.stdin is None or sys.stdin.isatty()):
        raise OSError(errno.EINVAL, "nothing is piped into standard input")
    place = os.path.abspath(_place(path))
    try:
        place.encode()
    except UnicodeEncodeError:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield f"/dev/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield place


def streamed(url: str, name: str, options: Mapping[str, str] | None = None) -> "InputContainer":
    """Open a network stream within 5 s; each read waits at most 2 s.

    Args:
        url: Address; it may redirect, but never to a file of this machine.
        name: What is opened, without a password, for messages.
        options: Further FFmpeg options of the format.

    Raises:
        SourceError: If the URL is not of a network stream, or cannot be read.
    """
    import av

    # FFmpeg's other protocols are refused here: some read or join files of this machine.
    if url.partition("://")[0] not in SCHEMES:
        raise SourceError(
            f"{name} cannot be read: give an address of {', '.join(SCHEMES)}, "
            "or play a file by its plain path with --source (MediaFile)",
            is_permanent=True,
        )
    limits = {"format_whitelist": _formats(), "protocol_whitelist": _NETWORK_PROTOCOLS}
    chosen = {**(options or {}), **limits}
    try:
        try:
            return av.open(url, options=chosen, timeout=(_OPEN_LIMIT, _READ_LIMIT))
        except av.error.InvalidDataError:
            if pictures := _bare_pictures(url, chosen):
                return pictures
            raise
    except av.FFmpegError as error:
        reason, is_permanent = error.strerror, is_format_fault(error)
    # Without FFmpeg's own text: it quotes the address, with its password, in a traceback.
    remedy = "check that its server runs and that the address is right"
    if is_permanent:
        remedy = "it is no film, sound or picture that is known: check the address in a browser"
    raise SourceError(f"{name} cannot be read ({reason}): {remedy}", is_permanent=is_permanent)


def _bare_pictures(url: str, options: dict[str, str]) -> "InputContainer | None":
    """Open JPEGs that follow each other in anything, as of a camera without a first boundary."""
    import av

    if not url.startswith(("http://", "https://")):
        return None
    limits = (_OPEN_LIMIT, _READ_LIMIT)
    found = av.open(url, format="mjpeg", options=options, timeout=limits)
    if found.streams.video and found.streams.video[0].codec_context.width:
        return found
    found.close()
    return None


def is_format_fault(error: "FFmpegError") -> bool:
    """Return whether an error is of a stream's content: opening it again would not mend it."""
    import av

    kinds = ("InvalidData", "DemuxerNotFound", "DecoderNotFound", "PatchWelcome", "BSFNotFound")
    return isinstance(error, tuple(getattr(av.error, f"{kind}Error") for kind in kinds))


def _formats() -> str:
    import av

    return ",".join(sorted(av.formats_available & FORMATS))


def moving(container: "InputContainer") -> "list[VideoStream]":
    """Return the video tracks without cover art."""
    from av.stream import Disposition

    return [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
