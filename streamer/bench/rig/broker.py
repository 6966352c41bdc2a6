"""A mosquitto on the loopback, and what a subscriber of it receives.

Knows the commands mosquitto and mosquitto_sub. Knows no agent.
"""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .probe import MessageProbe
from .processes import end, free_port, listens, wait_for

EVERYTHING = "tamulag/v1/#"
STATUS = "tamulag/v1/+/+/status"


class Broker:
    """A broker whose port stays the same over restarts.

    Args:
        folder: Takes its configuration file if there are rules.
        rules: Lines of it; none: any client of this machine may connect.
    """

    def __init__(self, folder: Path | None = None, *rules: str) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._options = ["-p", str(self.port)]
        if folder:
            config = folder / "mosquitto.conf"
            lines = [f"listener {self.port} 127.0.0.1", "log_dest none", *rules, ""]
            config.write_text("\n".join(lines))
            self._options = ["-c", str(config)]
        self.start()

    def start(self) -> None:
        """Start and wait until it listens."""
        command = ["mosquitto", *self._options]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        try:
            wait_for(lambda: listens(self.port), 10.0, "mosquitto listens")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Let it vanish, as if the power failed; may be called twice."""
        end(self._process)

    def freeze(self) -> None:
        """Let it stand still without closing anything."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def subscribed(self) -> Iterator[MessageProbe]:
        """Subscribe to everything while the block runs."""
        command = ["mosquitto_sub", "-p", str(self.port), "-t", EVERYTHING, "-q", "1", "-v"]
        quiet = subprocess.DEVNULL
        subscriber = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet)
        try:
            probe = MessageProbe("mqtt", _payloads(subscriber))
            yield probe
        finally:
            subscriber.kill()
            probe.join(5.0)
            end(subscriber)

    def retained(self) -> str:
        """Return the retained status, or an empty text if there is none within 3 s."""
        only = ["-t", STATUS, "-C", "1", "-W", "3"]
        command = ["mosquitto_sub", "-p", str(self.port), *only]
        done = subprocess.run(command, check=False, capture_output=True, timeout=10, text=True)
        return done.stdout


def _payloads(subscriber: "subprocess.Popen[bytes]") -> Iterator[str]:
    assert subscriber.stdout is not None
    for line in subscriber.stdout:
        yield line.decode().split(" ", 1)[1]


@contextmanager
def broker(folder: Path | None = None, *rules: str) -> Iterator[Broker]:
    """Run a broker while the block runs."""
    made = Broker(folder, *rules)
    try:
        yield made
    finally:
        made.kill()
