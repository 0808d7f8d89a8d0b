"""Pages of one file: what is in them, and which files they may replace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fatwheel.errors import StoreError, UsageError
from fatwheel.pages import check_place, make_page, trace_document, write_page

from ...helpers.pages import ReadPage

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' <!-- \u2028"
PAGE = make_page("finder", {"gpus": [], "wheels": []}, title="a page")


def test_texts_are_text_and_data_comes_back() -> None:
    page = ReadPage(make_page("finder", {"gpus": [HOSTILE], "wheels": []}, title=HOSTILE))
    assert page.data == {"gpus": [HOSTILE], "wheels": []}
    assert [one.text for one in page.all("title")] == [HOSTILE]
    assert page.all("img") == []
    assert len(page.all("script")) == 2


def test_the_policy_allows_the_page_s_own_script_alone() -> None:
    page = ReadPage(make_page("finder", {}, title="a page"))
    for link in page.all("a"):  # of the finder, to the index
        link.attrib.clear()
    page.check_it_asks_for_nothing()


@pytest.mark.parametrize("there", [b"", PAGE, trace_document({"traceEvents": []})])
def test_what_is_fatwheel_s_own_is_replaced(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(there)
    check_place(path, "--html", (".html",))
    write_page(path, PAGE, "--html")
    assert path.read_bytes() == PAGE
    assert os.listdir(tmp_path) == ["a.html"]


def test_a_folder_is_made_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "more" / "a.HTML"
    check_place(path, "--html", (".html",))
    assert list(tmp_path.iterdir()) == []
    write_page(path, PAGE, "--html")
    assert path.read_bytes() == PAGE


@pytest.mark.parametrize(
    "content", [b"mine", b"<!DOCTYPE html>\n<title>mine</title>", b'{"traceEvents":[]}']
)
def test_what_others_wrote_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="fatwheel did not write it"):
        check_place(path, "--html", (".html", ".json"))


def test_links_and_pipes_are_not_replaced_or_waited_for(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_bytes(PAGE)
    (tmp_path / "link.html").symlink_to("own.html")
    (tmp_path / "dangling.html").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.html")
    for name in ("link", "dangling", "pipe"):
        with pytest.raises(UsageError, match="fatwheel did not write it"):
            check_place(tmp_path / f"{name}.html", "--html", (".html",))


def test_other_endings_and_folders_are_no_pages(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not end with \.html or \.json") as caught:
        check_place(tmp_path / "a.whl", "--timeline", (".html", ".json"))
    assert caught.value.where == "--timeline"
    (tmp_path / "b.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_place(tmp_path / "b.html", "--html", (".html",))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/self")):
        with pytest.raises(StoreError, match=r"cannot write a\.html") as caught:
            check_place(folder / "a.html", "--html", (".html",))
        assert "--html FILE" in (caught.value.hint or "--html FILE")
        with pytest.raises(StoreError, match=r"cannot write a\.html"):
            write_page(folder / "a.html", PAGE, "--html")


def test_a_trace_is_json_that_begins_with_its_maker() -> None:
    found = json.loads(trace_document({"traceEvents": [], "otherData": {"a": "</script>"}}))
    assert list(found) == ["generator", "traceEvents", "otherData"]
