"""Where MSVC's packages are, looked up on a server that publishes them as Microsoft does."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.parts import Parts
from fatwheel.errors import FetchError, HashMismatchError, UsageError
from fatwheel.events import silent
from fatwheel.pins.lock import LockReport, refusal
from fatwheel.pins.parts import PartsRequest, lock_parts
from fatwheel.provision.msvc import unpack
from fatwheel.toolchain.fetch import fetch

from ...helpers.msvcpackages import PACKAGES, write_packages
from ...helpers.publishers import configure
from ...helpers.webserver import Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = [name for name in PACKAGES if name.endswith(".vsix")]
IDS = {name: name.removesuffix(".vsix").removesuffix(".enu") for name in FILES}
HEADERS = "Microsoft.VC.14.38.17.8.CRT.Headers.base"


class Microsoft:
    """A release of Visual Studio, until a test changes it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder / "toolchains"
        self.packages = {path.name: path.read_bytes() for path in write_packages(folder / "made")}
        for name, content in self.packages.items():
            server.serve(f"/files/{name}", content)
        self.listed = [self.entry(name) for name in FILES]
        self.listed += [{**self.entry(FILES[1]), "language": "de-DE", "version": "0"}]
        self.publish()

    def entry(self, name: str) -> dict[str, Any]:
        """Of a catalogue, whose sizes are not those of the files."""
        digest = hashlib.sha256(self.packages[name]).hexdigest()
        url = f"{self.server.url}/files/{name}"
        entry: dict[str, Any] = {
            "id": IDS[name], "version": "14.38.33130", "type": "Vsix",
            "payloads": [{"fileName": name, "url": url, "size": 7, "sha256": digest.upper()}],
        }  # fmt: skip
        return {**entry, "language": "en-US"} if ".Res." in name else entry

    def publish(self) -> None:
        self.catalogue = b"\xef\xbb\xbf" + json.dumps({"packages": self.listed}).encode()
        wrong = {"url": f"{self.server.url}/a.vsman", "sha256": "0" * 64}
        items = [{"type": "Bootstrapper"}, {"type": "Manifest", "payloads": [wrong]}]
        self.channel = json.dumps({"channelItems": items}).encode()
        self.server.serve("/a.vsman", self.catalogue)
        self.server.serve("/a.chman", self.channel)

    def write(self, known: str = "") -> Path:
        """The part of MSVC. known: lines for the package of headers."""
        documents = {"channel": self.channel, "catalogue": self.catalogue}
        lines = [
            "# MSVC for trying things out.", 'visual_studio = "17.8.2"', 'cl = "19.38.33130"',
            'toolset = "14.38"', 'least_cuda = "11.6"', 'license = "https://host/terms"',
        ]  # fmt: skip
        for name, content in documents.items():
            url = f"{self.server.url}/a.{'chman' if name == 'channel' else 'vsman'}"
            digest = hashlib.sha256(content).hexdigest()
            lines += [f"[{name}]", f'url = "{url}"', f'sha256 = "{digest}"']
        for name in IDS.values():
            lines += ["[[payloads]]", f'name = "{name}"', *([known] if name == HEADERS else [])]
        for name in PACKAGES.keys() - IDS:
            lines += ["[[payloads]]", f'name = "{name}"', 'version = "10.0.22621.3233"']
            lines += [f'url = "{self.server.url}/files/{name}"']
        file = self.folder / "parts" / "msvc" / "14.38.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
        return file

    def lock(self, word: str = "17.8", *, write: bool = True) -> LockReport:
        request = PartsRequest.of(None, None, None, None, word)
        assert request is not None
        cache = self.folder.parent / "cache"
        [report] = lock_parts(
            request, [self.folder], cache, cache / "downloads", silent, write=write
        )
        return report


@pytest.fixture
def microsoft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Microsoft]:
    with Server() as server:
        configure(monkeypatch, server)
        monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("FATWHEEL_ACCEPT_MSVC_LICENSE", "1")
        yield Microsoft(server, tmp_path)


def test_what_is_missing_is_filled_in_and_can_be_fetched_and_unpacked(
    microsoft: Microsoft, tmp_path: Path
) -> None:
    file = microsoft.write()
    before = file.read_text().splitlines()
    report = microsoft.lock()
    assert refusal([report]) is None
    assert {name: number for name, number in report.count().items() if number} == {"filled": 8}
    assert [line for line in file.read_text().splitlines() if line in before] == before
    [headers] = [
        one for one in tomllib.loads(file.read_text())["payloads"] if one["name"] == HEADERS
    ]
    content = microsoft.packages[f"{HEADERS}.vsix"]
    assert headers == {
        "name": HEADERS,
        "version": "14.38.33130",
        "url": f"{microsoft.server.url}/files/{HEADERS}.vsix",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert not any("de-DE" in line for line in file.read_text().splitlines())
    [part] = Parts(microsoft.folder).msvcs
    paths = fetch([one.payload() for one in part.payloads], tmp_path / "downloads", silent)
    unpack(paths, tmp_path / "home")


def test_a_package_of_another_compiler_than_the_file_names(microsoft: Microsoft) -> None:
    microsoft.write()
    said = [found.note for found in microsoft.lock(write=False).findings]
    assert not any("its cl says" in note for note in said)
    for entry in microsoft.listed:
        if entry["id"] == "Microsoft.VC.14.38.17.8.Tools.HostX64.TargetX64.base":
            entry["version"] = "14.38.33133"
    microsoft.publish()
    microsoft.write()
    said = [found.note for found in microsoft.lock(write=False).findings]
    [note] = [note for note in said if "its cl says" in note]
    assert note == (
        "its cl says 19.38.33133, by its version, and the file says that it is 19.38.33130"
    )


def test_what_is_filled_in_is_right_the_next_time(microsoft: Microsoft) -> None:
    file = microsoft.write()
    microsoft.lock()
    text = file.read_text()
    report = microsoft.lock("14.38")
    assert report.count()["right"] == 8
    assert (report.written, file.read_text()) == (False, text)


def test_check_writes_nothing(microsoft: Microsoft) -> None:
    file = microsoft.write()
    text = file.read_text()
    report = microsoft.lock(write=False)
    assert report.count()["open"] == 8
    assert file.read_text() == text


def test_nothing_of_the_sdk_is_fetched_before_the_terms_are_accepted(
    microsoft: Microsoft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FATWHEEL_ACCEPT_MSVC_LICENSE")
    microsoft.write()
    report = microsoft.lock()
    told = [one.note for one in report.findings if one.state == "open"]
    assert len(told) == 2, "the two packages of the SDK"
    assert all("FATWHEEL_ACCEPT_MSVC_LICENSE=1" in note for note in told), told
    assert not list(tmp_path.glob("cache/downloads/*/*.nupkg"))


@pytest.mark.parametrize("document", ["chman", "vsman"])
def test_a_document_that_is_not_the_pinned_one(microsoft: Microsoft, document: str) -> None:
    file = microsoft.write()
    microsoft.server.serve(f"/a.{document}", b"{}")
    report = microsoft.lock()
    [finding] = [one for one in report.findings if one.state == "moved"]
    assert finding.name == f"a.{document}"
    assert finding.found == {"sha256": hashlib.sha256(b"{}").hexdigest()}
    assert isinstance(refusal([report]), HashMismatchError)
    payloads = tomllib.loads(file.read_text())["payloads"]
    assert [set(one) for one in payloads if one["name"] in IDS.values()] == [{"name"}] * 6


def test_a_package_that_moved_is_told_and_stays(microsoft: Microsoft) -> None:
    file = microsoft.write(f'sha256 = "{"7" * 64}"')
    report = microsoft.lock()
    [finding] = [one for one in report.findings if one.state == "moved"]
    assert (finding.name, finding.pinned) == (HEADERS, {"sha256": "7" * 64})
    assert f'sha256 = "{"7" * 64}"' in file.read_text()
    assert isinstance(refusal([report]), HashMismatchError)


def unlisted(microsoft: Microsoft) -> None:
    microsoft.listed = [one for one in microsoft.listed if one["id"] != HEADERS]
    microsoft.publish()


def gone(microsoft: Microsoft) -> None:
    del microsoft.server.answers[f"/files/{HEADERS}.vsix"]


def nonsense(microsoft: Microsoft) -> None:
    [entry] = [one for one in microsoft.listed if one["id"] == HEADERS]
    entry["payloads"][0]["url"] = "file:///etc/passwd"
    microsoft.publish()


def incomplete(microsoft: Microsoft) -> None:
    [entry] = [one for one in microsoft.listed if one["id"] == HEADERS]
    del entry["version"]
    microsoft.publish()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (unlisted, "the catalogue does not list it"),
        (gone, "404 Not Found"),
        (nonsense, "the catalogue says nonsense of it"),
        (incomplete, "the catalogue does not say its version, url and sha256"),
    ],
)
def test_a_package_of_which_the_catalogue_is_of_no_use(
    microsoft: Microsoft, change: Any, note: str
) -> None:
    change(microsoft)
    file = microsoft.write()
    report = microsoft.lock()
    [finding] = [one for one in report.findings if one.state == "unreachable"]
    assert finding.name == HEADERS
    assert note in finding.note
    assert report.count()["filled"] == 7, "the others are looked up"
    [headers] = [
        one for one in tomllib.loads(file.read_text())["payloads"] if one["name"] == HEADERS
    ]
    assert headers == {"name": HEADERS}
    assert isinstance(refusal([report]), FetchError)


@pytest.mark.parametrize(
    ("channel", "catalogue", "note"),
    [
        (b"{}", None, "a.chman names another catalogue"),
        (b'{"channelItems": [{"type": "Manifest", "payloads": 7}]}', None, "another catalogue"),
        (b'{"channelItems": [{"type": "Manifest", "payloads": [{"url": []}]}]}', None, "another"),
        (b"[]", None, "a.chman: it is not one JSON object"),
        (None, b"<html>", "a.vsman: it cannot be read as JSON"),
        (None, b'{"packages": [7, {"id": 1}, {"id": "a", "payloads": [{}, {}]}]}', "no catalogue"),
    ],
)
def test_documents_that_are_pinned_but_of_another_form(
    microsoft: Microsoft, channel: bytes | None, catalogue: bytes | None, note: str
) -> None:
    microsoft.channel = channel or microsoft.channel
    microsoft.catalogue = catalogue or microsoft.catalogue
    microsoft.server.serve("/a.chman", microsoft.channel)
    microsoft.server.serve("/a.vsman", microsoft.catalogue)
    microsoft.write()
    report = microsoft.lock()
    [finding] = [one for one in report.findings if one.state == "unreachable"]
    assert (finding.name, note in finding.note) == ("a.vsman", True), finding.note
    assert report.count()["filled"] == 2, "what is of NuGet needs no catalogue"


def test_an_msvc_that_is_not_known(microsoft: Microsoft) -> None:
    microsoft.write()
    with pytest.raises(UsageError, match=r"there is no MSVC 17\.80") as caught:
        microsoft.lock("17.80")
    assert list(caught.value.details) == ["known: 14.38 (Visual Studio 17.8.2)"]
    with pytest.raises(UsageError, match="--msvc newest: 'newest' is not a release"):
        microsoft.lock("newest")
