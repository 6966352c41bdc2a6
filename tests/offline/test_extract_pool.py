"""Many media files go through the front end in several processes, and a stop loses little."""

import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from support.sound_files import tone
from tamulag.models.data.clips import DataError
from tamulag.streamer.core.sample import Word
from tamulag.streamer.features import audio
from tamulag.streamer.offline import extract_pool as module
from tamulag.streamer.offline.extract import MediaFeatures, play, stack_inputs
from tamulag.streamer.offline.extract_pool import extract_all, load_features, save_features


def run(
    files: list[Path], folder: Path, workers: int = 1
) -> tuple[dict[Path, Path], list[tuple[Path, str | None]]]:
    told: list[tuple[Path, str | None]] = []
    found = extract_all(
        files,
        folder,
        speech="none",
        workers=workers,
        done=lambda file, why: told.append((file, why)),
    )
    return found, told


def same(one: MediaFeatures, other: MediaFeatures, *, within: float = 0.0) -> None:
    assert (one.length, one.utterances) == (other.length, other.utterances)
    assert one.values.keys() == other.values.keys()
    for name, values in one.values.items():
        np.testing.assert_allclose(other.values[name], values, atol=within, rtol=0)
        np.testing.assert_array_equal(other.ticks[name], one.ticks[name])


def test_part_comes_back_as_it_was(tmp_path: Path) -> None:
    """Values to the bit, ticks, words and length."""
    words = ((Word("so", 0.1, 0.25), Word("gut ✓", 0.25, 1 / 3)), (Word("well", 2.0, 2.5),))
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(4, 3)).astype(np.float32)
    part = MediaFeatures({"audio": audio}, {"audio": np.arange(4)}, words, 150)
    for number, kept in enumerate((part, MediaFeatures({}, {}))):
        save_features(kept, tmp_path / f"{number}.safetensors")
        same(load_features(tmp_path / f"{number}.safetensors"), kept)
    assert not list(tmp_path.glob("*.partial"))


def test_workers_load_no_torch(tmp_path: Path) -> None:
    """Neither those of a cluster: to load it takes longer than to play a clip."""
    code = (
        "import sys; from pathlib import Path; "
        "from tamulag.streamer.offline import extract_pool, extract_ray; "
        "extract_pool.play(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tone(tmp_path / "a.wav"))]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no tensors at all"])
def test_damaged_part_is_reported(tmp_path: Path, content: bytes) -> None:
    """The message names the file and what to do."""
    path = tmp_path / "part.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part\.safetensors is damaged .*delete it"):
        load_features(path)


def test_files_are_played_by_the_front_end(tmp_path: Path) -> None:
    """A file that is named twice is played once; each file is told when it is done."""
    one, other = tone(tmp_path / "a.wav"), tone(tmp_path / "b.wav", pitch=300)
    found, told = run([one, other, one], tmp_path / "parts")
    assert told == [(one, None), (other, None)]
    same(load_features(found[one]), stack_inputs(play(one)))
    assert load_features(found[one]).length == 25


def test_unreadable_files_are_reported_and_left_out(tmp_path: Path) -> None:
    """One bad file does not stop the others; it is tried again the next time."""
    good, bad = tone(tmp_path / "a.wav"), tmp_path / "b.mp4"
    bad.write_text("no film")
    missing = tmp_path / "c.mp4"
    for _ in range(2):
        found, told = run([bad, good, missing], tmp_path / "parts")
        assert list(found) == [good]
        problems = {file: why for file, why in told if why}
        assert problems.keys() == {bad, missing}
        assert all(str(file) in why for file, why in problems.items())


def test_second_run_plays_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is kept; only what was not done, or has changed since, is played."""
    files = [tone(tmp_path / f"{name}.wav") for name in "abc"]
    run(files[:2], tmp_path / "parts")
    played: list[Path] = []

    def noted(path: Path, speech: str) -> list[object]:
        played.append(path)
        return []

    monkeypatch.setattr(module, "play", noted)
    found, told = run(files, tmp_path / "parts")
    assert played == [files[2]]
    assert set(found) == {file for file, _ in told} == set(files)
    tone(files[0], seconds=0.7)
    run(files, tmp_path / "parts")
    assert played == [files[2], files[0]]


def test_half_written_part_is_made_again(tmp_path: Path) -> None:
    """A part that cannot be read does not count as done."""
    file = tone(tmp_path / "a.wav")
    found, _ = run([file], tmp_path / "parts")
    found[file].write_bytes(found[file].read_bytes()[:-9])
    again, _ = run([file], tmp_path / "parts")
    assert load_features(again[file]).length == 25


def test_parts_of_another_front_end_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feature more or less is told by the names."""
    file = tone(tmp_path / "a.wav")
    found, _ = run([file], tmp_path / "parts")
    monkeypatch.setattr(audio, "FEATURE_NAMES", ("energy",))
    again, _ = run([file], tmp_path / "parts")
    assert again[file] != found[file]


def test_recognised_words_are_another_part(tmp_path: Path) -> None:
    """What was made without a recogniser is not taken for what has one."""
    file = tone(tmp_path / "a.wav")
    found, _ = run([file], tmp_path / "parts")
    with_words = extract_all(
        [file], tmp_path / "parts", speech="moonshine", workers=1, done=lambda *_: None
    )
    assert with_words[file] != found[file]


@pytest.mark.data
def test_workers_give_what_one_process_gives(data: Path, tmp_path: Path) -> None:
    """Two processes, a face each, and the same numbers; no process is left.

    The speech detector's native code rounds the last bit as memory happens to lie.
    """
    files = [tmp_path / name for name in ("bbaf2n.mpg", "lbax4n.mpg")]
    for file in files:
        shutil.copy(data / "clips" / file.name, file)
    found, told = run(files, tmp_path / "two", workers=2)
    assert sorted(told) == [(file, None) for file in files]
    for file in files:
        same(load_features(found[file]), stack_inputs(play(file)), within=1e-5)
    assert not workers_of(psutil.Process())


def test_dead_worker_is_reported(tmp_path: Path) -> None:
    """The message says that the next run goes on."""
    todo = {tone(tmp_path / f"{n}.wav", seconds=60): tmp_path / n for n in "ab"}

    def kill_one() -> None:
        for worker in workers_of(psutil.Process(), wait_for=2)[:1]:
            worker.kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(DataError, match=r"worker process died.*run the command again"):
        list(module._in_processes(todo, "none", 2))
    killer.join(20)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Even if it is killed, nobody stays behind."""
    program = """
        import sys
        from pathlib import Path
        from tamulag.streamer.offline.extract_pool import extract_all

        if __name__ == "__main__":
            files = [Path(name) for name in sys.argv[2:]]
            extract_all(files, Path(sys.argv[1]), speech="none", workers=2, done=lambda *_: None)
    """
    (tmp_path / "main.py").write_text(textwrap.dedent(program))
    files = [tone(tmp_path / f"{n}.wav", seconds=60 if n else 0.1) for n in range(4)]
    parts = tmp_path / "parts"
    with subprocess.Popen([sys.executable, tmp_path / "main.py", parts, *files]) as process:
        workers = workers_of(psutil.Process(process.pid), wait_for=2)
        wait_for_file(parts)
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=10)
    for left in alive:
        left.kill()
    assert not alive


def workers_of(process: psutil.Process, *, wait_for: int = 0) -> list[psutil.Process]:
    """Return the worker processes that live, after waiting for as many, 20 s at most."""
    limit = time.monotonic() + 20
    while True:
        workers = [child for child in process.children(recursive=True) if is_worker(child)]
        if len(workers) >= wait_for or time.monotonic() > limit:
            return workers
        time.sleep(0.05)


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def wait_for_file(folder: Path) -> None:
    limit = time.monotonic() + 20
    while not list(folder.glob("*.safetensors")) and time.monotonic() < limit:
        time.sleep(0.05)
