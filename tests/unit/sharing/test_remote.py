"""Addresses of remotes, what the environment says of them, and remotes that are folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from fatwheel.errors import FormatError, UsageError
from fatwheel.sharing import remote as remote_module
from fatwheel.sharing.parcel import Trust
from fatwheel.sharing.remote import READ, FolderPlace, Remote, parse_address, remote_of
from fatwheel.sharing.uses import Count, all_uses, look_at, note_use

from ...helpers.sharingbench import FakePlace, failing
from ...helpers.signingkeys import Keys

NAME = "slice/" + "ab" * 32
SECRET = "hunter2"


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3://bucket", "s3://bucket"),
        ("gs://bucket/x", "gs://bucket/x"),
        ("az://container/x", "az://container/x"),
        ("https://host:8443/a", "https://host:8443/a"),
        (f"https://me:{SECRET}@host/a", "https://host/a"),
        (f"https://{SECRET}@host/a", "https://host/a"),
        ("file:///mnt/a%20b", "/mnt/a b"),
        ("/mnt/team", "/mnt/team"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(words: str, shown: str) -> None:
    address = parse_address(words, "FATWHEEL_REMOTE")
    assert address.shown == shown
    assert SECRET not in repr(address)


def test_a_folder_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_address("team", "--remote").path == tmp_path / "team"
    assert parse_address("~/team", "--remote").path == Path.home() / "team"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ftp://host/x", "ftp:// is not a kind of remote"),
        ("s3:bucket", "this is not an address of a remote"),
        ("s3://", "names no host or bucket"),
        ("https:///x", "names no host or bucket"),
        ("https://host:port/x", "this is not an address of a remote"),
        ("https://host/x?sig=" + SECRET, "has no `?` or `#`"),
        (f"me:{SECRET}@host/x", "this is not an address of a remote"),
        (f"my_ci:{SECRET}@host/x", "this is not an address of a remote"),
        (f"//me:{SECRET}@host/x", "this is not an address of a remote"),
        (f"https://me:/{SECRET}@host/x", "there is an @ behind the host"),
        (f"https://{SECRET[:3]}/{SECRET}@host/x", "there is an @ behind the host"),
        (f"https://me:8/{SECRET}@host/x", "there is an @ behind the host"),
        (f"s3://key:{SECRET}@bucket/x", "a user or a password in this address"),
        (f"https://me:{SECRET}@host:x/", "this is not an address of a remote"),
        ("https://[/x", "this is not an address of a remote"),
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(words: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(words, "FATWHEEL_REMOTE")
    assert said in caught.value.what
    assert SECRET not in str(caught.value)


def test_a_password_is_not_taken_from_a_command_line() -> None:
    """Where others can read it."""
    with pytest.raises(UsageError) as caught:
        remote_of(f"https://me:{SECRET}@host/x", {})
    assert caught.value.where == "--remote"
    assert "FATWHEEL_REMOTE=https://USER:PASSWORD@HOST/PATH" in (caught.value.hint or "")
    assert SECRET not in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        remote_of(str(tmp_path / "file"), {})


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError) as caught:
        remote_of("s3://bucket/x", {})
    assert "fatwheel[remote]" in (caught.value.hint or "")


def test_a_folder_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    assert remote_of(str(tmp_path), {})


# -- clouds ----------------------------------------------------------------------------------------


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of clouds."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "AZURITE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    return monkeypatch


ENDPOINTS = [
    ("s3://bucket/x", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"),
    ("s3://bucket/x", "AWS_ENDPOINT_URL_S3", "AWS_ALLOW_HTTP"),
    ("gs://bucket/x", "GOOGLE_BASE_URL", "GOOGLE_ALLOW_HTTP"),
    ("az://container/x", "AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP"),
    ("az://container/x", "AZURE_ENDPOINT", "AZURE_ALLOW_HTTP"),
]


@pytest.mark.parametrize(("address", "variable", "_allows"), ENDPOINTS)
@pytest.mark.parametrize(
    "url",
    [
        "localhost:9000", "http://", "http://a b", "ftp://host", f"https://me:{SECRET}@host",
        "https://host:90000", "https://host<1>", "https://host/<1>", "https://h\u00f6st",
        "https://1.2.3.400", "https://[::::]",
    ],
)  # fmt: skip
def test_a_server_that_is_no_url_is_refused_at_once(
    clouds: pytest.MonkeyPatch, address: str, variable: str, _allows: str, url: str
) -> None:
    """obstore would panic at the first request, which no `except Exception` sees."""
    clouds.setenv(variable, url)
    with pytest.raises(UsageError, match="this is not the URL of a server") as caught:
        remote_of(address, {})
    assert caught.value.where == variable
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["HTTPS://my_host.example:65535/a%20b/~c", "https://192.0.2.1", "https://[::ffff:192.0.2.1]"],
)
def test_a_server_may_have_any_name_that_is_one(clouds: pytest.MonkeyPatch, url: str) -> None:
    clouds.setenv("AWS_ENDPOINT_URL", url)
    assert remote_of("s3://bucket/x", {})


@pytest.mark.parametrize(("address", "variable", "allows"), ENDPOINTS)
def test_a_server_without_tls_must_be_allowed_for_its_cloud(
    clouds: pytest.MonkeyPatch, address: str, variable: str, allows: str
) -> None:
    clouds.setenv("AZURE_STORAGE_ACCOUNT_NAME", "builders")
    for name in {one[2] for one in ENDPOINTS} - {allows}:
        clouds.setenv(name, "true")
    clouds.setenv(variable, "https://[::1]:9000/x")
    assert remote_of(address, {})
    clouds.setenv(variable, "http://[::1]:9000/x")
    with pytest.raises(UsageError, match="without TLS") as caught:
        remote_of(address, {})
    assert (caught.value.where, caught.value.hint) == (variable, f"{allows}=true allows it")
    clouds.setenv(allows, "true")
    assert remote_of(address, {})


@pytest.mark.parametrize(
    ("address", "variables", "named"),
    [
        ("az://container/x", {}, "AZURE_STORAGE_ACCOUNT_NAME"),
        (
            "az://container/x",
            {"AZURE_STORAGE_ACCOUNT_NAME": "x", "AZURE_STORAGE_ACCOUNT_KEY": f"{SECRET}!"},
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
        (
            "gs://bucket/x",
            {"GOOGLE_SERVICE_ACCOUNT_KEY": f'"{{\\"private_key\\":\\"{SECRET}\\"}}"'},
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
    ],
)
def test_credentials_that_cannot_be_used_are_named_and_not_shown(
    clouds: pytest.MonkeyPatch, address: str, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        clouds.setenv(name, value)
    with pytest.raises(UsageError, match="this remote cannot be used") as caught:
        remote_of(address, {})
    assert named in (caught.value.hint or "")
    assert SECRET not in str(caught.value)


# As obstore words them, whatever the cloud.
_NO_CREDENTIALS = """Generic GCS error: Error performing token request: Error performing GET \
http://169.254.169.254/computeMetadata/v1/token?audience=x in 2.1s, after 1 retries - HTTP error: \
error sending request

Debug source:
Generic { source: TokenRequest { inner: Http(HttpError { kind: Timeout }) } }"""
_BROKEN = """Generic S3 error: Error performing GET http://host/slice/a507405403f in 2s, after 2 \
retries - Server returned non-2xx status code: 500 Internal Server Error: """
_NOT_ALLOWED = """Generic GCS error: Error performing GET http://host/x in 61µs - HTTP error: \
builder error

Debug source:
Generic { inner: Http(HttpError { source: reqwest::Error { source: BadScheme } }) }"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            _NO_CREDENTIALS,
            "the build goes on without gs://bucket/x: there are no credentials, in the environment "
            "(GOOGLE_APPLICATION_CREDENTIALS) or of this machine (169.254.169.254): "
            "there is no answer in time",
        ),
        (
            _BROKEN,
            "nothing more is read from gs://bucket/x in this build: 500 Internal Server Error to "
            "GET http://host/slice/a507405403f",
        ),
        (
            _NOT_ALLOWED,
            "the build goes on without gs://bucket/x: it is without TLS, which AWS_ALLOW_HTTP or "
            "GOOGLE_ALLOW_HTTP or AZURE_ALLOW_HTTP=true allows",
        ),
    ],
)
def test_what_a_cloud_or_the_library_says_is_told_in_words(
    clouds: pytest.MonkeyPatch, tmp_path: Path, error: str, said: str
) -> None:
    def fail(*_: object) -> None:
        raise GenericError(error)

    clouds.setattr("obstore.get", fail)
    found = remote_of("gs://bucket/x", {})
    assert found
    notes: list[str] = []
    found.tell = notes.append
    assert not found.get(NAME, tmp_path / "came", 100)
    assert notes == [said]


@pytest.mark.parametrize("wrong", [{"AWS_REGION": "eu west"}, {"AWS_SESSION_TOKEN": f"{SECRET}\n"}])
def test_a_panic_of_the_library_ends_no_build(
    clouds: pytest.MonkeyPatch, tmp_path: Path, wrong: dict[str, str]
) -> None:
    """It is no `Exception`, and what brings obstore to it is not all known: here a region of which
    there is no host, and a token that ends with its line."""
    variables = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": SECRET, **wrong}
    for name, value in variables.items():
        clouds.setenv(name, value)
    found = remote_of("s3://bucket/x", {"FATWHEEL_REMOTE_MODE": "write"})
    assert found
    notes: list[str] = []
    found.tell = notes.append
    assert "cannot be used" in found.probe()
    assert not found.get(NAME, tmp_path / "came", 100)
    assert not found.put(NAME, Path(__file__))
    [note] = notes
    assert note.startswith("the build goes on without s3://bucket/x: it cannot be used")
    assert SECRET not in note


# -- modes and keys --------------------------------------------------------------------------------


def test_nothing_is_shared_unless_a_remote_is_named(tmp_path: Path) -> None:
    assert remote_of(None, {}) is None
    assert remote_of(None, {"FATWHEEL_REMOTE": ""}) is None
    named = remote_of(str(tmp_path / "one"), {"FATWHEEL_REMOTE": str(tmp_path / "other")})
    assert named
    assert named.in_words == f"{tmp_path / 'one'}, read and written, not signed"


def test_only_two_modes_are_known(tmp_path: Path) -> None:
    found = remote_of(str(tmp_path), {"FATWHEEL_REMOTE_MODE": "read"})
    assert found
    assert not found.writes
    with pytest.raises(UsageError) as caught:
        remote_of(str(tmp_path), {"FATWHEEL_REMOTE_MODE": "readonly"})
    assert (caught.value.where, caught.value.hint) == ("FATWHEEL_REMOTE_MODE", "valid: read, write")


def test_who_believes_only_keys_must_sign_or_only_read(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    pair = Keys(tool("openssl"), tmp_path).pair("ed25519")
    public = {"FATWHEEL_REMOTE_TRUST": str(pair.public)}
    with pytest.raises(UsageError, match="must be signed, and there is no key to sign with"):
        remote_of(str(tmp_path), public)
    reader = remote_of(str(tmp_path), {**public, "FATWHEEL_REMOTE_MODE": "read"})
    signer = remote_of(str(tmp_path), {"FATWHEEL_REMOTE_SIGN": str(pair.private)})
    assert reader
    assert signer
    assert reader.trust.keys == signer.trust.keys, "who signs believes the own key"
    both = os.pathsep.join((str(pair.public), str(pair.public)))
    two = remote_of(str(tmp_path), {"FATWHEEL_REMOTE_TRUST": both, "FATWHEEL_REMOTE_MODE": "read"})
    assert two
    assert len(two.trust.keys) == 2
    with pytest.raises(UsageError) as caught:
        remote_of(str(tmp_path), {"FATWHEEL_REMOTE_TRUST": str(tmp_path / "none")})
    assert (caught.value.where or "").startswith("FATWHEEL_REMOTE_TRUST ")


# -- folders ---------------------------------------------------------------------------------------


def remote(place: object, said: list[str]) -> Remote:
    found = Remote(place, "there", writes=True, trust=Trust())  # type: ignore[arg-type]
    found.tell = said.append
    return found


def test_a_folder_keeps_what_it_gets(tmp_path: Path) -> None:
    said: list[str] = []
    found = remote(FolderPlace(tmp_path / "team"), said)
    (tmp_path / "sent").write_bytes(b"one")
    assert not found.get(NAME, tmp_path / "came", 100)
    assert found.put(NAME, tmp_path / "sent")
    assert found.get(NAME, tmp_path / "came", 100)
    assert (tmp_path / "came").read_bytes() == b"one"
    assert [path.name for path in (tmp_path / "team").rglob("*.part")] == []
    assert said == []


def test_links_and_pipes_in_a_folder_are_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "team" / "fatwheel1" / "slice"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "folder").mkdir()
    found = remote(FolderPlace(tmp_path / "team"), said)
    for name in ("pipe", "link", "folder"):
        assert not found.get(f"slice/{name}", tmp_path / "came", 1 << 20)
    assert said == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "team").mkdir(mode=0o555)
    (tmp_path / "sent").write_bytes(b"one")
    found = remote(FolderPlace(tmp_path / "team"), said)
    assert not found.put(NAME, tmp_path / "sent")
    assert not found.put(NAME, tmp_path / "sent")
    assert said == ["nothing more is written to there in this build: Permission denied"]


# -- bounds ----------------------------------------------------------------------------------------


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    place = FakePlace({f"fatwheel1/{NAME}": b"x" * 101})
    with pytest.raises(FormatError, match="it has 101 bytes, and 100 are the most"):
        remote(place, []).get(NAME, tmp_path / "came", 100)
    place.sizes = lambda data: 50
    with pytest.raises(FormatError, match="more bytes than the remote says"):
        remote(place, []).get(NAME, tmp_path / "came", 100)


def test_a_remote_that_is_slower_than_compiling_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 15))
    monkeypatch.setattr(remote_module.time, "monotonic", lambda: float(next(clock)))
    place = FakePlace({f"fatwheel1/{NAME}": b"x" * 1000})
    place.read = lambda name: (10_000_000, iter([b"x" * 1000] * 10_000))  # type: ignore[method-assign]
    said: list[str] = []
    found = remote(place, said)
    assert not found.get(NAME, tmp_path / "came", 1 << 30)
    assert not found.get(NAME, tmp_path / "came", 1 << 30)
    [note] = said
    assert note.startswith("the build goes on without there: it is too slow: ")
    assert found.ended(READ) == found.ended("write")


# -- what `invoke cache` shows ---------------------------------------------------------------------


def test_uses_are_added_up_and_do_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        note_use("there", Count(found=3, bytes_in=10))
    assert (all_uses()["there"].builds, all_uses()["there"].found) == (2, 6)
    for number in range(40):
        note_use(f"remote {number}", Count())
    assert len(all_uses()) == 20
    report = look_at(remote(FakePlace(reads=failing("it is away")), []))
    assert (report.trouble, report.use.builds) == ("it is away", 0)


@pytest.mark.parametrize("content", ["{", "[]", '{"there": {"builds": "x"}}', '{"there": 7}'])
def test_a_damaged_note_of_uses_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    note_use("there", Count())
    (tmp_path / "cache" / "remotes.json").write_text(content)
    assert all_uses() == {}
    note_use("there", Count(found=1))
    assert all_uses()["there"].found == 1
