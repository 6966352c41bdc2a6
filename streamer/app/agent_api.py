"""The agent as an object of Python: devices in, estimates out of an `async for`.

Knows the settings that sources and outputs are, and the life of one run. Loads the model and the
drivers only when it is entered.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, get_args

from ..aio.shutdown import leaves
from ..aio.threads import in_thread
from ..config.loader import Config, ConfigError, load
from ..core.errors import TamulagError
from .agent_parts import AgentOutput, AgentSource, Settings

if TYPE_CHECKING:
    from ..core.estimate import Estimate
    from ..publishers.estimate_queue import EstimateQueue
    from .build_agent import Built

logger = logging.getLogger("tamulag.agent")


class Agent:
    """One run from open devices to the last estimate; use it once, with `async with`.

    Entering it loads the model, opens sources and outputs and starts to score; leaving it stops
    everything in order and frees it. What a person can mend is raised as a `TamulagError`: on
    entering if something cannot be opened, at the end of `estimates` if it is lost for good.

    Args:
        sources: A `Camera`, a `Microphone` or both; or one `MediaFile` or `RemoteSender`.
        outputs: Where messages go beside `estimates`: each of `WebSocket`, `Mqtt` and `JsonLines`
            at most once.
        checkpoint: Name of a shipped checkpoint, or path of a `.safetensors` file.
        window: Seconds of the sliding window, a multiple of `hop`.
        hop: Seconds between two estimates, a multiple of 0.1.
        asr: Speech recogniser for the words: `auto`, `vosk`, `moonshine` or `none`.
        duration: Seconds of stream time after which it ends; None: when the sources end.
        threads: Threads of one model step, set for torch in the whole process.
        queue: Estimates that may wait for `estimates`; beyond that the oldest is dropped.
        config: All settings, in place of everything above; see `from_config`.

    Raises:
        ConfigError: If a value is not allowed, or nothing is to be captured.
    """

    def __init__(
        self,
        sources: Sequence[AgentSource] = (),
        outputs: Sequence[AgentOutput] = (),
        *,
        checkpoint: str | Path = "default",
        window: float = 5.0,
        hop: float = 0.5,
        asr: Literal["auto", "vosk", "moonshine", "none"] = "auto",
        duration: float | None = None,
        threads: int = 1,
        queue: int = 16,
        config: Config | None = None,
    ) -> None:
        if queue < 1:
            raise ConfigError(f"Agent: queue = {queue}: must be 1 or more")
        if config is not None and (sources or outputs):
            raise ConfigError("Agent: config holds sources and outputs: leave the others out")
        self.config = config or load(
            None,
            {
                "websocket.enabled": False,
                "model.checkpoint": str(checkpoint),
                "model.threads": threads,
                "session.window": window,
                "session.hop": hop,
                "session.duration": duration,
                "asr.engine": asr,
            }
            | _settings(sources, outputs),
            origin="Agent",
        )
        self._size = queue
        self._run: _Run | None = None

    @classmethod
    def from_config(
        cls, path: str | Path, overrides: Mapping[str, object] | None = None, *, queue: int = 16
    ) -> Self:
        """Make an agent from a TOML file, with everything that the command line can do.

        Args:
            path: Of the file; `docs/reference/configuration.md` lists its keys.
            overrides: Values by dotted key, e.g. `{"camera.device": 1}`; each wins over the file.
            queue: As for the constructor.

        Raises:
            ConfigError: If the file cannot be read, or a key or value is not allowed.
        """
        return cls(config=load(Path(path), overrides or {}, origin="overrides"), queue=queue)

    @property
    def dropped(self) -> int:
        """Estimates that were dropped because `estimates` was not read in time."""
        return self._run.queue.dropped if self._run else 0

    async def estimates(self) -> AsyncIterator["Estimate"]:
        """Yield an estimate every `hop` seconds, until the sources end or `stop` is called.

        One reader at a time. Live, the newest estimates win over a slow reader; a file at full
        speed waits for it. Numbers are rounded as in the messages.

        Raises:
            TamulagError: What ended the run, after the last estimate.
            RuntimeError: Outside of `async with`.
        """
        run = self._entered()
        async for estimate in run.queue:
            yield estimate
        await run.ended()

    async def wait(self) -> None:
        """Wait until the run ends by itself, without reading estimates: for outputs alone.

        Raises:
            TamulagError: What ended the run.
            RuntimeError: Outside of `async with`.
        """
        run = self._entered()
        run.queue.discard()
        await run.ended()

    def stop(self) -> None:
        """End the run in order: `estimates` gives what is still held, and ends."""
        self._entered().built.service.stop()

    async def __aenter__(self) -> Self:
        """Load, open and start everything.

        Raises:
            TamulagError: If something of it cannot be; nothing stays open then.
        """
        if self._run is not None:
            raise RuntimeError("an Agent runs once: make another one")
        self._run = await _start(self.config, self._size)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop in order, within some seconds, and free everything.

        Raises:
            TamulagError: What ended the run, if the block itself raised nothing.
        """
        run = self._entered()
        run.queue.discard()
        run.built.service.stop()
        try:
            await run.ended()
        except TamulagError as failure:
            if error is None:
                raise
            if failure is not error:
                logger.warning("the run had failed as well: %s", failure)

    def _entered(self) -> "_Run":
        if self._run is None:
            raise RuntimeError("this Agent is not running: use `async with Agent(...) as agent`")
        return self._run


@dataclass(frozen=True)
class _Run:
    """An agent that was started, and the task that runs and frees it."""

    built: "Built"
    queue: "EstimateQueue"
    task: asyncio.Task[None]

    async def ended(self) -> None:
        """Wait for the end and raise what caused it; to be cancelled here does not cancel it."""
        await asyncio.wait([self.task])
        self.task.result()


async def _start(config: Config, size: int) -> _Run:
    """Build in a thread, run in a task, and return when everything is open."""
    loading = _Loading(config, size)
    try:
        built, queue = await in_thread("load", loading.run)
    except asyncio.CancelledError:
        loading.abandon()
        raise
    _prepare(config)
    run = _Run(built, queue, asyncio.create_task(_run_and_free(built), name="tamulag.agent"))
    opening = asyncio.create_task(queue.started.wait(), name="tamulag.opening")
    try:
        await asyncio.wait([run.task, opening], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        run.task.cancel()
        await asyncio.wait([run.task])
        raise
    finally:
        opening.cancel()
    if run.task.done():
        run.task.result()
    return run


class _Loading:
    """Builds in a thread; frees what was built if nobody waits for it any more."""

    def __init__(self, config: Config, size: int) -> None:
        self._config = config
        self._size = size
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._built: Built | None = None

    def run(self) -> tuple["Built", "EstimateQueue"]:
        """Build; called in a thread."""
        from ..publishers.estimate_queue import EstimateQueue
        from .build_agent import build

        source = self._config.source
        is_paced = source.path is None or source.speed == "1"
        queue = EstimateQueue(self._size, is_waited_for=not is_paced)
        built = build(self._config)
        built.service.outputs.add(queue)
        with self._lock:
            self._built = built
            if self._is_abandoned:
                built.resources.close()
        return built, queue

    def abandon(self) -> None:
        """Free what was built, now or when it has been."""
        with self._lock:
            self._is_abandoned = True
            if self._built is not None:
                self._built.resources.close()


def _prepare(config: Config) -> None:
    """Set torch's threads for this process, and log why employees are scored, if they are."""
    import torch

    from .build_agent import log_employee_scoring

    torch.set_num_threads(config.model.threads)
    log_employee_scoring(config)


async def _run_and_free(built: "Built") -> None:
    """Run to the end and free everything; of errors in groups raise the first, with the others."""
    try:
        await built.service.run()
    except BaseExceptionGroup as group:
        first, *others = leaves(group)
        if not all(isinstance(error, TamulagError) for error in (first, *others)):
            raise
        for other in others:
            first.add_note(str(other))
        raise first from None
    finally:
        # A thread that hangs in a driver or recogniser may still use these.
        if not built.feed.is_hanging:
            await in_thread("free", built.resources.close)


def _settings(sources: Sequence[AgentSource], outputs: Sequence[AgentOutput]) -> Settings:
    """Return all values of sources and outputs.

    Raises:
        ConfigError: If there is no source, or two of one kind.
    """
    if not sources:
        raise ConfigError(
            "Agent: no sources: give [Camera(0), Microphone()], [MediaFile(path)] or "
            "[RemoteSender()], or use Agent.from_config(path)"
        )
    parts = _checked(sources, outputs)
    kind, count = Counter(type(part).__name__ for part in parts).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"Agent: {count} of {kind}: give one of each kind at most")
    return {key: value for part in parts for key, value in part.settings().items()}


def _checked(
    sources: Sequence[AgentSource], outputs: Sequence[AgentOutput]
) -> list[AgentSource | AgentOutput]:
    """Return all parts in one list.

    Raises:
        ConfigError: If something else is among them, such as an index in place of a camera.
    """
    parts: list[AgentSource | AgentOutput] = []
    groups = (("sources", AgentSource, sources), ("outputs", AgentOutput, outputs))
    for name, kinds, given in groups:
        if not isinstance(given, Sequence):
            raise ConfigError(f"Agent: {name} = {given!r}: put it into a list")
        for part in given:
            if not isinstance(part, kinds):
                allowed = ", ".join(kind.__name__ for kind in get_args(kinds))
                raise ConfigError(f"Agent: {part!r} among the {name}: give {allowed}")
            parts.append(part)
    return parts
