"""The agent as a Python object: real model, the voice and portrait of the demo."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from tamulag.streamer import (
    Agent,
    Camera,
    ConfigError,
    Estimate,
    JsonLines,
    MediaFile,
    SourceError,
    TamulagError,
    WebSocket,
)
from tamulag.streamer.app.build_agent import demo_files

LIMIT = 120.0


def clip(seconds: float = 3.0, **options: float) -> Agent:
    """Return an agent that scores the start of the demo at full speed, without words."""
    portrait, speech = demo_files()
    media = MediaFile(speech, speed="max", still=portrait)
    return Agent([media], asr="none", duration=seconds, **options)  # type: ignore[arg-type]


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run to the end, within a limit; no thread of ours is left."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await main()

    asyncio.run(limited())
    for thread in threading.enumerate():
        if thread.name.startswith("tamulag."):
            thread.join(5)
            assert not thread.is_alive(), thread.name


def test_estimates_of_a_file_come_in_order_and_end_with_it() -> None:
    """One each hop; voice and face are there, words are off."""
    found: list[Estimate] = []
    agent = clip(3.0, hop=0.5)

    async def main() -> None:
        async with agent:
            found.extend([estimate async for estimate in agent.estimates()])

    run(main)
    assert [estimate.end for estimate in found] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert agent.dropped == 0
    last = found[-1]
    assert last.sentiment is not None
    assert last.interval is not None
    assert last.interval[0] <= last.sentiment <= last.interval[1]
    assert {name: part.status for name, part in last.modalities.items()} == {
        "text": "off",
        "audio": "ok",
        "vision": "ok",
    }


def test_a_file_at_full_speed_waits_for_a_slow_reader() -> None:
    """Nothing is dropped though only one may wait."""
    ends: list[float] = []
    agent = clip(2.0, hop=0.1, queue=1)

    async def main() -> None:
        async with agent:
            async for estimate in agent.estimates():
                ends.append(estimate.end)
                await asyncio.sleep(0.02)

    run(main)
    assert ends == [pytest.approx(0.1 * (k + 1)) for k in range(20)]
    assert agent.dropped == 0


def test_live_the_newest_estimates_win() -> None:
    """Who reads late gets the newest; the others are counted."""
    portrait, speech = demo_files()
    agent = Agent([MediaFile(speech, still=portrait)], asr="none", duration=2.0, hop=0.1, queue=2)
    ends: list[float] = []

    async def main() -> None:
        async with agent:
            async with asyncio.timeout(20):
                while agent.dropped < 4:  # noqa: ASYNC110 (bounded above)
                    await asyncio.sleep(0.05)
            ends.extend([estimate.end async for estimate in agent.estimates()])

    run(main)
    assert ends == sorted(ends)
    assert ends[0] > 0.45  # the first four were dropped
    assert ends[-1] == pytest.approx(2.0, abs=0.25)  # on a busy machine the hop is doubled


def test_an_output_gets_the_same_scores(tmp_path: Path) -> None:
    """`wait` is for a program that reads no estimates itself."""
    portrait, speech = demo_files()
    path = tmp_path / "scores.jsonl"
    media = MediaFile(speech, speed="max", still=portrait)
    agent = Agent([media], [JsonLines(path)], asr="none", duration=2.0)

    async def main() -> None:
        async with agent:
            await agent.wait()

    run(main)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    scores = [line for line in lines if line["type"] == "sentiment"]
    assert [score["window"]["end"] for score in scores] == [0.5, 1.0, 1.5, 2.0]
    assert lines[-1]["type"] == "session_end"


def test_leaving_stops_in_order() -> None:
    """Also in the middle of the estimates: the session ends, and what was open is closed."""
    agent = clip(30.0)

    async def main() -> None:
        async with agent:
            async for _ in agent.estimates():
                break

    run(main)


def test_stop_ends_the_estimates() -> None:
    """What is still held comes first."""
    agent = clip(30.0)
    ends: list[float] = []

    async def main() -> None:
        async with agent:
            async for estimate in agent.estimates():
                ends.append(estimate.end)
                agent.stop()

    run(main)
    assert ends
    assert ends[-1] < 30.0


def test_a_bug_of_the_program_leaves_the_block_as_it_is() -> None:
    """And everything is closed behind it."""
    agent = clip(30.0)

    async def main() -> None:
        async with agent:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


@pytest.mark.parametrize("source", [Camera(77), MediaFile("/no/such/file.mp4")])
def test_what_cannot_be_opened_is_raised_on_entering(source: Camera | MediaFile) -> None:
    """As one error of the tree, not as a group; its text has the remedy."""

    async def main() -> None:
        async with Agent([source], asr="none"):
            pytest.fail("it was entered")

    with pytest.raises(SourceError, match=r"devices|check the path"):
        run(main)


def test_a_run_that_fails_ends_the_estimates_with_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once, though it is known at the end of the block as well."""
    from tamulag.streamer.core.session import Session

    def fail(self: Session, item: object) -> list[Estimate]:
        raise TamulagError("the disk is full: make room")

    monkeypatch.setattr(Session, "push", fail)
    agent = clip(30.0)

    async def main() -> None:
        async with agent:
            async for _ in agent.estimates():
                pass
            pytest.fail("it went on")

    with pytest.raises(TamulagError, match="make room"):
        run(main)


def test_nothing_to_capture_is_refused_at_once() -> None:
    """With what there is to give."""
    with pytest.raises(ConfigError, match=r"no sources: give \[Camera\(0\)"):
        Agent()


def test_two_of_a_kind_are_refused() -> None:
    """One would win without a word."""
    with pytest.raises(ConfigError, match="2 of Camera"):
        Agent([Camera(0), Camera(1)])


def test_a_value_that_is_not_allowed_is_named() -> None:
    """The key of the settings, the value and what is allowed; nothing of a command line."""
    with pytest.raises(ConfigError, match=r"^Agent: session\.hop = 0\.15: must be a multiple"):
        Agent([Camera(0)], hop=0.15)
    with pytest.raises(ConfigError, match="queue = 0: must be 1 or more"):
        Agent([Camera(0)], queue=0)


def test_a_file_of_settings_makes_the_same_agent(tmp_path: Path) -> None:
    """Everything of the command line is there; overrides win."""
    path = tmp_path / "own.toml"
    path.write_text("[camera]\ndevice = 0\n[session]\nhop = 1.0\n")
    agent = Agent.from_config(path, {"camera.device": 3})
    assert (agent.config.camera.device, agent.config.session.hop) == (3, 1.0)
    with pytest.raises(ConfigError, match=r"^overrides: camera\.devise = 3: unknown key"):
        Agent.from_config(path, {"camera.devise": 3})


def test_outputs_are_off_unless_they_are_given() -> None:
    """A program of one's own opens no port by itself."""
    assert not Agent([Camera(0)]).config.websocket.enabled
    assert Agent([Camera(0)], [WebSocket(port=0)]).config.websocket.enabled


def test_an_agent_outside_of_its_block_says_how_it_is_used() -> None:
    """Instead of waiting for ever."""
    agent = clip()

    async def main() -> None:
        async for _ in agent.estimates():
            pass

    assert agent.dropped == 0
    with pytest.raises(RuntimeError, match="async with"):
        run(main)
    with pytest.raises(RuntimeError, match="async with"):
        agent.stop()


def test_leaving_while_it_loads_frees_what_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's parts are closed as soon as they are there, though nobody waits for them."""
    from tamulag.streamer.features.vision import VisionFeatures

    made: list[VisionFeatures] = []
    closed = threading.Event()
    enter, leave = VisionFeatures.__enter__, VisionFeatures.__exit__

    def opened(self: VisionFeatures) -> VisionFeatures:
        made.append(self)
        return enter(self)

    def freed(self: VisionFeatures, *error: object) -> None:
        leave(self, *error)
        closed.set()

    monkeypatch.setattr(VisionFeatures, "__enter__", opened)
    monkeypatch.setattr(VisionFeatures, "__exit__", freed)

    async def main() -> None:
        entering = asyncio.create_task(clip().__aenter__())
        while not made:  # noqa: ASYNC110 (`run` has a limit)
            await asyncio.sleep(0.001)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert await asyncio.to_thread(closed.wait, 30)

    run(main)


def test_what_is_no_source_is_refused_by_its_value() -> None:
    """An index in place of a camera, a camera in place of a list, and two ways at once."""
    with pytest.raises(ConfigError, match="0 among the sources: give Camera, Microphone"):
        Agent([0])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="put it into a list"):
        Agent(Camera(0))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leave the others out"):
        Agent([Camera(0)], config=Agent([Camera(1)]).config)
