"""A site of small wheels: what its pages and lists say, what is written when, and bad input."""

from __future__ import annotations

import hashlib
import html.parser
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import jsonschema
import pytest

from fatwheel.errors import FormatError, StoreError, UsageError
from fatwheel.events import Event, Note, StepStarted, silent
from fatwheel.publish.site import LIST, Request, Written, write_site
from fatwheel.storage import files
from fatwheel.verify.inspect import inspect_units

from ...helpers.cudawheels import MODULE, NONE, Linker
from ...helpers.schemas import schema_of
from ...helpers.statedwheels import RECORD, demo_files, edited, write
from ...helpers.tinywheels import Draft

VERSION = "2.8.3+cu130torch2.11"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' <!--"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def library(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ELF library with code for sm_80, sm_90a and sm_120f, and PTX of compute_80."""
    return Linker(tmp_path_factory.mktemp("linked"), tool).library(NONE)


@pytest.fixture
def draft(library: bytes) -> Draft:
    return Draft("demo", VERSION, files={"demo/__init__.py": b"", MODULE: library})


def made(wheels: list[Path], out: Path, request: Request = Request()) -> Written:  # noqa: B008
    return write_site(wheels, out, request, silent)


class Links(html.parser.HTMLParser):
    """The links of a page, with their attributes, as a browser's parser or pip's sees them."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))


def target(page: Path, href: str) -> Path:
    """The file that a page's link leads to."""
    return Path(unquote(urlsplit(urljoin(page.as_uri(), href)).path))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("channel", ["simple", "cu130/torch2.11"])
def test_a_channel_links_to_the_wheel_and_its_metadata(
    draft: Draft, tmp_path: Path, channel: str
) -> None:
    draft.metadata = (
        f"Metadata-Version: 2.1\nName: demo\nVersion: {VERSION}\nRequires-Python: >=3.9,<4\n"
    )
    wheel = draft.write(tmp_path)
    made([wheel], tmp_path / "site")
    page = tmp_path / "site" / channel / "demo" / "index.html"
    [link] = Links(page).found
    href = link["href"] or ""
    file = target(page, href)
    assert file.read_bytes() == wheel.read_bytes()
    assert urlsplit(href).fragment == f"sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    assert link["data-requires-python"] == ">=3.9,<4"
    metadata = file.with_name(file.name + ".metadata").read_bytes()
    assert metadata == draft.metadata.encode()
    expected = f"sha256={hashlib.sha256(metadata).hexdigest()}"
    assert link["data-core-metadata"] == link["data-dist-info-metadata"] == expected
    [project] = Links(page.parent.parent / "index.html").found
    assert project["href"] == "demo/"
    listed = json.loads(page.with_suffix(".json").read_bytes())
    assert listed["meta"] == {"api-version": "1.1"}
    assert listed["versions"] == [VERSION]
    [one] = listed["files"]
    assert target(page, one["url"]) == file
    assert one["size"] == wheel.stat().st_size
    assert one["requires-python"] == ">=3.9,<4"


def offer(out: Path) -> dict[str, Any]:
    [one] = json.loads((out / LIST).read_bytes())["wheels"]
    found: dict[str, Any] = one["offer"]
    return found


def test_cuda_torch_and_gpus_are_read_from_the_bytes(draft: Draft, tmp_path: Path) -> None:
    """The device code was made by CUDA 13.0's nvcc (data/device/README.md), whatever the label."""
    lying = replace(draft, version="2.8.3+cu118torch2.11")
    made([lying.write(tmp_path)], tmp_path / "site")
    found = offer(tmp_path / "site")
    assert (found["cuda"], found["torch"]) == ("13.0", "2.11")
    assert found["images"] == ["sm_80", "compute_80", "sm_90a", "sm_120f"]
    how = {capability: served["how"] for capability, served in found["gpus"].items()}
    assert how["8.0"] == how["8.9"] == how["9.0"] == how["12.0"] == "native"
    assert how["10.0"] == "jit"
    assert "7.5" not in how


@pytest.mark.parametrize(
    ("requirement", "torch"),
    [
        ("torch==2.8.*", "2.8"),
        ("torch==2.8.0", "2.8"),
        ("torch (~=2.8.0)", "2.8"),
        ("torch>=2.0", ""),
        ("torchvision==0.2.1", ""),
        ("not a requirement at all ==", ""),
    ],
)
def test_torch_is_that_which_metadata_requires(
    library: bytes, tmp_path: Path, requirement: str, torch: str
) -> None:
    metadata = f"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Dist: {requirement}\n"
    draft = Draft("demo", "1.0", files={MODULE: library}, metadata=metadata)
    site = made([draft.write(tmp_path)], tmp_path / "site")
    assert offer(tmp_path / "site")["torch"] == torch
    assert site.channels == (f"cu130/torch{torch}" if torch else "cu130",)


def test_a_wheel_without_device_code_is_in_no_channel(tmp_path: Path) -> None:
    draft = Draft("pure", "1.0", "py3-none-any", files={"pure.py": b""})
    assert made([draft.write(tmp_path)], tmp_path / "site").channels == ()
    assert (tmp_path / "site/simple/pure/index.html").exists()


def test_the_same_wheels_make_the_same_bytes_and_a_second_run_does_nothing(
    draft: Draft, tmp_path: Path
) -> None:
    wheels = [
        draft.write(tmp_path),
        replace(draft, version="2.9+cu130torch2.11").write(tmp_path),
        replace(draft, version="2.10+cu130torch2.12").write(tmp_path),
    ]
    made(wheels, tmp_path / "one")
    made(wheels[:1], tmp_path / "two")
    made(wheels[:0:-1], tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    versions = json.loads((tmp_path / "one/simple/demo/index.json").read_bytes())["versions"]
    assert versions == [VERSION, "2.9+cu130torch2.11", "2.10+cu130torch2.12"]
    again = made(wheels, tmp_path / "one")
    assert (again.written, again.removed) == ((), ())


def test_wheels_that_are_there_are_not_read_again(
    draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = draft.write(tmp_path)
    second = replace(draft, version="2.9+cu130torch2.11").write(tmp_path)
    made([first], tmp_path / "site")
    read: list[Path] = []

    def spied(path: Path) -> dict[str, Any]:
        read.append(path)
        return inspect_units(path)

    monkeypatch.setattr("fatwheel.publish.offers.inspect_units", spied)
    made([first, second], tmp_path / "site")
    assert read == [second]


def test_only_removes_what_is_not_named(draft: Draft, tmp_path: Path) -> None:
    first = draft.write(tmp_path)
    second = replace(draft, version="2.9+cu130torch2.12").write(tmp_path)
    made([second], tmp_path / "right")
    made([first, second], tmp_path / "site")
    site = made([second], tmp_path / "site", Request(only=True))
    assert f"files/{first.name}" in site.removed
    assert files_of(tmp_path / "site") == files_of(tmp_path / "right")


def test_a_wheel_of_the_same_size_replaces_another(tmp_path: Path) -> None:
    by_size: dict[int, Path] = {}
    for number in range(100):  # of hashes that compress likewise
        (tmp_path / f"{number}").mkdir()
        files = {"demo.py": f"number = {number:03}".encode()}
        second = Draft("demo", VERSION, files=files).write(tmp_path / f"{number}")
        first = by_size.setdefault(second.stat().st_size, second)
        if first != second:
            break
    else:
        pytest.fail("no two wheels of one size")
    made([first], tmp_path / "site")
    made([second], tmp_path / "site", Request(only=True))
    assert (tmp_path / "site" / "files" / second.name).read_bytes() == second.read_bytes()


def test_a_wheel_that_was_built_without_proof_is_told(tmp_path: Path) -> None:
    events: list[Event] = []
    wheel = write(tmp_path, record_says("fast"))
    write_site([wheel], tmp_path / "site", Request(), events.append)
    may = "built with --fast: its machine code may differ from what nvcc by itself makes"
    assert Note(f"{wheel.name} was {may}") in events
    assert offer(tmp_path / "site")["unproven"] == ["fast"]
    write_site([wheel], tmp_path / "site", Request(), silent)
    assert offer(tmp_path / "site")["unproven"] == ["fast"], "it is remembered"
    exact = write(tmp_path, record_says("exact"))
    write_site([exact], tmp_path / "exact", Request(), silent)
    assert "unproven" not in offer(tmp_path / "exact")


def record_says(front: str) -> dict[str, bytes]:
    """The files of a wheel that was built so."""
    found = demo_files()
    found[RECORD] = edited(found[RECORD], lambda record: record.update(front=front))
    return found


def test_a_wheel_that_no_index_can_describe(tmp_path: Path) -> None:
    wheel = Draft("a" * 205, "1.0", files={"demo.py": b""}).write(tmp_path)
    with pytest.raises(FormatError, match="an index cannot say its filename"):
        made([wheel], tmp_path / "site")


def test_wheels_under_a_base_url_are_not_copied(draft: Draft, tmp_path: Path) -> None:
    wheel = draft.write(tmp_path)
    base = "https://example.org/releases/download/v1"
    made([wheel], tmp_path / "site", Request(base))
    page = tmp_path / "site/simple/demo/index.html"
    [link] = Links(page).found
    assert (link["href"] or "").startswith(f"{base}/demo-2.8.3%2Bcu130torch2.11-")
    assert "data-core-metadata" not in link, "nobody said that METADATA is there"
    assert not (tmp_path / "site/files" / wheel.name).exists()
    other = replace(draft, version="2.9+cu130torch2.11").write(tmp_path)
    made([other], tmp_path / "site", Request(f"{base}/", beside=True))
    one, two = Links(page).found
    assert one == link, "another release's wheels stay where they are"
    assert two["data-core-metadata"]


def test_what_a_wheel_says_is_text_on_every_page(draft: Draft, tmp_path: Path) -> None:
    draft.metadata = (
        f"Metadata-Version: 2.1\nName: demo\nVersion: {VERSION}\nSummary: {HOSTILE}\n"
        f"Requires-Python: {HOSTILE}\n"
    )
    made([draft.write(tmp_path)], tmp_path / "site")
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text("utf-8")
        assert "<script>alert" not in text, page
        assert "<img" not in text, page
    page = tmp_path / "site/index.html"
    data = page.read_text("utf-8").split('id="data">', 1)[1].split("</script>", 1)[0]
    assert json.loads(data)["wheels"][0]["summary"] == HOSTILE


def test_json_is_as_its_schema_says(draft: Draft, tmp_path: Path) -> None:
    schema = schema_of("index")
    jsonschema.Draft202012Validator.check_schema(schema)
    site = made([draft.write(tmp_path)], tmp_path / "site")
    jsonschema.validate(json.loads(json.dumps(site.to_json())), schema)


# -- bad input -------------------------------------------------------------------------------------


def test_two_wheels_of_one_name_and_other_bytes(draft: Draft, tmp_path: Path) -> None:
    made([draft.write(tmp_path)], tmp_path / "site")
    before = files_of(tmp_path / "site")
    (tmp_path / "other").mkdir()
    other = replace(draft, files={**draft.files, "demo/more.py": b""}).write(tmp_path / "other")
    with pytest.raises(UsageError, match="different bytes") as caught:
        made([other], tmp_path / "site")
    assert caught.value.details == (other.name,)
    assert files_of(tmp_path / "site") == before


def test_every_wheel_that_cannot_be_offered_is_told(draft: Draft, tmp_path: Path) -> None:
    renamed = replace(draft, filename="other-1.0-cp311-cp311-linux_x86_64.whl").write(tmp_path)
    broken = tmp_path / "broken-1.0-cp311-cp311-linux_x86_64.whl"
    broken.write_bytes(draft.write(tmp_path).read_bytes()[:-50])
    with pytest.raises(FormatError) as caught:
        made([renamed, broken], tmp_path / "site")
    assert len(caught.value.details) == 2
    assert str(renamed) in caught.value.details[0]
    assert not (tmp_path / "site").exists()
    with pytest.raises(FormatError, match="names do not agree"):
        made([renamed], tmp_path / "site")


@pytest.mark.parametrize(
    "url",
    ["example.org", "ftp://example.org/", "https://", "javascript:alert(1)", 'https://a/"><b>',
     "https://user:secret@example.org/", "https://example.org/?x=1"],
)  # fmt: skip
def test_a_base_url_that_is_none(draft: Draft, tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="no URL"):
        made([draft.write(tmp_path)], tmp_path / "site", Request(url))
    assert not (tmp_path / "site").exists()


def test_no_wheel_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which wheels"):
        made([], tmp_path / "site")


def test_a_folder_of_other_things(draft: Draft, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="no site of fatwheel's"):
        made([draft.write(tmp_path)], tmp_path)


def test_a_site_that_was_interrupted_is_completed(draft: Draft, tmp_path: Path) -> None:
    wheel = draft.write(tmp_path)
    made([wheel], tmp_path / "right")
    made([wheel], tmp_path / "site")
    for name in (LIST, "index.html", "simple/demo/index.html"):
        (tmp_path / "site" / name).unlink()
    made([wheel], tmp_path / "site")
    assert files_of(tmp_path / "site") == files_of(tmp_path / "right")


@pytest.mark.parametrize("name", [LIST, "index.html", "files/demo-1.0-py3-none-any.whl.metadata"])
def test_what_is_no_file_is_neither_read_nor_waited_for(
    draft: Draft, tmp_path: Path, name: str
) -> None:
    """A repository with a site can hold links; and a pipe never ends."""
    wheel = replace(draft, version="1.0", tag="py3-none-any").write(tmp_path)
    made([wheel], tmp_path / "site")
    place, secret = tmp_path / "site" / name, tmp_path / "secret"
    content = place.read_bytes()
    secret.write_bytes(content)
    kinds: list[Callable[[], None]] = [
        place.mkdir, lambda: os.mkfifo(place), lambda: place.symlink_to(secret),
    ]  # fmt: skip
    for kind in kinds:
        files.clear_away(place)
        kind()
        if name == LIST:
            with pytest.raises(FormatError, match="it is no file"):
                made([wheel], tmp_path / "site")
        elif kind == place.mkdir:
            with pytest.raises(StoreError, match="Is a directory"):
                made([wheel], tmp_path / "site")
        else:
            made([wheel], tmp_path / "site")
            assert place.is_file()
            assert not place.is_symlink()
            assert place.read_bytes() == content
    assert secret.read_bytes() == content


def test_one_that_is_written_to_while_it_is_written(draft: Draft, tmp_path: Path) -> None:
    wheels = [replace(draft, version=f"{number}.0").write(tmp_path) for number in (1, 2)]
    events: list[Event] = []
    other = threading.Thread(
        target=write_site, args=([wheels[1]], tmp_path / "site", Request(), events.append)
    )

    def at_the_same_time(event: Event) -> None:
        if event == StepStarted("write", ""):
            other.start()
            other.join(0.5)

    write_site([wheels[0]], tmp_path / "site", Request(), at_the_same_time)
    other.join(60)
    there = json.loads((tmp_path / "site" / LIST).read_bytes())["wheels"]
    assert [one["offer"]["filename"] for one in there] == [wheel.name for wheel in wheels]
    assert Note("another `index` is running: waiting for it") in events


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project", "../../../outside"),
        ("filename", "../../x-1.0-py3-none-any.whl"),
        ("cuda", "../.."),
        ("torch", "1/../../2"),
        ("version", "1.0/../x"),
        ("version", "abc"),
        ("version", "1" * 5000),
        ("newest", 10**18),
        ("papers", {"/../../x": "0" * 64}),
        ("summary", ["a list"]),
    ],
)
def test_a_list_that_a_stranger_wrote(
    draft: Draft, tmp_path: Path, key: str, value: object
) -> None:
    wheel = draft.write(tmp_path)
    made([wheel], tmp_path / "site")
    content = json.loads((tmp_path / "site" / LIST).read_bytes())
    content["wheels"][0]["offer"][key] = value
    (tmp_path / "site" / LIST).write_text(json.dumps(content))
    with pytest.raises(FormatError, match="damaged"):
        made([wheel], tmp_path / "site")


@pytest.mark.parametrize(
    "base", ["javascript:alert(1)//", "https://[x/", "https://example.org/without-slash"]
)
def test_a_base_that_a_stranger_wrote(draft: Draft, tmp_path: Path, base: str) -> None:
    wheel = draft.write(tmp_path)
    made([wheel], tmp_path / "site")
    content = json.loads((tmp_path / "site" / LIST).read_bytes())
    content["wheels"][0]["base"] = base
    (tmp_path / "site" / LIST).write_text(json.dumps(content))
    with pytest.raises(FormatError, match="damaged"):
        made([wheel], tmp_path / "site")


def test_a_wheel_that_was_renamed_for_manylinux_is_offered_by_its_name(
    draft: Draft, tmp_path: Path
) -> None:
    """As published wheels are (cupy-cuda12x 13.6.0): installers go by the file's name."""
    tag = "cp311-cp311-manylinux2014_x86_64"
    made([replace(draft, filename=f"demo-{VERSION}-{tag}.whl").write(tmp_path)], tmp_path / "site")
    assert offer(tmp_path / "site")["tags"] == [tag]
