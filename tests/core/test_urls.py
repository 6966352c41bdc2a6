import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamulag.streamer.core.urls import SCHEMES, redacted

SECRET = "ZQ%sQZ"
"""Marks a secret, so that no host or path holds it by chance."""

secrets = st.text(max_size=12).map(lambda text: SECRET % text)
words = st.from_regex(r"[a-y0-9][a-y0-9._-]{0,8}", fullmatch=True)
hosts = st.builds("{}{}".format, words, st.sampled_from(["", ":554", ":8080"]))
paths = st.lists(words, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))


@given(st.sampled_from(SCHEMES), secrets, secrets, hosts, paths)
@example("rtsp", "ZQadminQZ", "ZQp@ss2wordQZ", "h", "/a")
@example("rtsp", "ZQadminQZ", "ZQp/a?s#sQZ", "h", "/a")
def test_user_and_password_are_never_shown(
    scheme: str, user: str, password: str, host: str, path: str
) -> None:
    """Whatever they hold, escaped or not; the text still tells the scheme."""
    text = redacted(f"{scheme}://{user}:{password}@{host}{path}")
    assert text in (f"{scheme}://{host}{path}", f"{scheme}://...")


@given(st.sampled_from(SCHEMES), hosts, paths, st.sampled_from("?#;&"), words, secrets)
@example("http", "h", "/cam.mjpg", "?", "user=admin&pwd", "ZQhunter2secretQZ")
def test_parameters_are_never_shown(
    scheme: str, host: str, path: str, mark: str, key: str, password: str
) -> None:
    """Neither a query, a fragment nor parameters of the path."""
    text = redacted(f"{scheme}://{host}{path}{mark}{key}={password}")
    assert text in (f"{scheme}://{host}{path}", f"{scheme}://...")


@given(secrets, secrets, hosts)
def test_an_unfinished_address_shows_no_password(user: str, password: str, host: str) -> None:
    """Who forgets the scheme, or one of its slashes, has not given the password away."""
    for start in ("", "rtsp:", "rtsp:/"):
        assert redacted(f"{start}{user}:{password}@{host}") == "..."


@given(hosts, paths)
def test_an_address_without_a_secret_is_shown_as_it_is(host: str, path: str) -> None:
    """Who reads the log still finds the camera."""
    assert redacted(f"rtsp://{host}{path}") == f"rtsp://{host}{path}"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("http://u:p@[::1]:80/a", "http://[::1]:80/a"),
        ("rtsp://h:554/user=me&password=pw&stream=0.sdp?", "rtsp://h:554/user"),
        ("http://h/mail?to=me@x&pwd=pw", "http://..."),
        ("u:p://h/a", "..."),
        ("0", "0"),
        ("/dev/video0", "/dev/video0"),
        ("talk@home.mp4", "talk@home.mp4"),
        (r"C:\me@home.mp4", r"C:\me@home.mp4"),
    ],
)
def test_what_is_shown(address: str, text: str) -> None:
    """Devices and files keep their names; what is doubtful is redacted."""
    assert redacted(address) == text
