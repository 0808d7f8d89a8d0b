"""The pages of `inspect --html` and `build --timeline` in a browser, of real files and builds."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from fatwheel import text
from fatwheel.cli.wheelpage import wheel_page
from fatwheel.errors import InterruptedBuildError
from fatwheel.model import Environment
from fatwheel.verify.inspect import inspect_units

from ..helpers.browsing import CONTRAST, check_it_fits, opened
from ..helpers.cudawheels import LZ4, MODULE, NONE, Linker, changed, fatbin, images
from ..helpers.pages import ReadPage
from ..helpers.tinywheels import Draft
from .conftest import Outcome, Workbench
from .once import once

HOSTILE = "<img src=x onerror=document.title='taken'>"
SCREENS = [
    (375, "light"),
    (1280, "dark"),
    *(pytest.param(*screen, marks=pytest.mark.long) for screen in ((375, "dark"), (1280, "light"))),
]
READABLE = 4.5  # the least contrast of text (WCAG 2, level AA)


# -- a wheel ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Of two wheels. In the first, a file and a kernel have hostile names."""
    folder = tmp_path_factory.mktemp("wheels")
    linker = Linker(folder, tool)
    tagged = changed(0, b"scale", b"</a>!")
    files = {
        MODULE: linker.library(NONE + tagged + fatbin(images(NONE)[:1])),
        "demo/other.so": linker.library(LZ4),
    }
    wheels = [
        Draft("demo", "1.0", files=files).write(folder),
        Draft("other", "1.0", files={MODULE: linker.library(NONE)}).write(folder),
    ]
    reports = [inspect_units(wheel) for wheel in wheels]
    [other] = [one for one in reports[0]["binaries"] if one["path"] != MODULE]
    other["path"] = f"demo/{HOSTILE}.so"  # which no wheel may have: Windows could not
    return reports


@pytest.fixture(scope="module")
def wheels(reports: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "wheels.html"
    path.write_bytes(wheel_page(reports))
    return path


@pytest.fixture
def page(browser: Any, wheels: Path) -> Iterator[Page]:
    with opened(browser, wheels) as page:
        yield page


def rows(page: Page, table: str) -> list[str]:
    return page.locator(f"#{table} tbody tr").all_inner_texts()


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_a_page_of_wheels_fits_every_screen(
    browser: Any, wheels: Path, width: int, scheme: str
) -> None:
    with opened(browser, wheels, width, scheme) as page:
        check_it_fits(page)
        cells = page.locator("#units td.cell:not(.missing)").all()
        assert len(cells) > 10
        assert (
            min(
                cell.evaluate(CONTRAST)
                for cell in cells[:-1]
                if "h" in cell.evaluate("one => one.className")
            )
            >= READABLE
        )
        box = page.locator("#canvas").bounding_box()
        assert box is not None
        assert box["width"] > width / 2
        assert page.title() == "GPU code in 2 files"


def test_every_shade_of_the_scale_can_be_read(browser: Any, wheels: Path) -> None:
    for scheme in ("light", "dark"):
        with opened(browser, wheels, scheme=scheme) as page:
            page.evaluate(
                "for (let n = 0; n < 8; n++)"
                " document.body.append(make('i', 'x', { class: `shade h${n}` }))"
            )
            shades = page.locator(".shade").all()
            assert len(shades) == 8
            assert min(shade.evaluate(CONTRAST) for shade in shades) >= READABLE


def test_sizes_in_the_table_are_those_of_the_file(
    page: Page, reports: list[dict[str, Any]]
) -> None:
    page.select_option("#wheel", "1")
    [unit] = reports[1]["binaries"][0]["units"]
    [row] = rows(page, "units")
    for image in unit["images"]:
        assert text.size(image["bytes"]) in row
    assert text.size(sum(image["bytes"] for image in unit["images"])) in row
    sizes = [0, 1, 512, 1023, 1024, 1_048_524, 1_048_525, 1_048_526, 5 << 30, 3 << 40, 1 << 60]
    assert page.evaluate("sizes => sizes.map(sizeOf)", sizes) == list(map(text.size, sizes))


def test_units_are_filtered_sorted_and_folded_out(page: Page) -> None:
    assert len(rows(page, "units")) == 4
    page.fill("#filter", "</a>!")
    assert len(rows(page, "units")) == 1
    assert page.locator("#count").inner_text().startswith("1 of 4 units, ")
    page.locator("#units summary").click()
    page.locator("#units details li").first.wait_for()  # what is folded out is filled in then
    kernels = page.locator("#units details li").all_inner_texts()
    assert kernels[0] == f"{MODULE}, container 1"
    assert "</a>!" in kernels
    page.fill("#filter", "")
    page.select_option("#image", label="without sm_90a cubin")
    assert len(rows(page, "units")) == 1
    assert page.locator("#units td.missing").count() == 3
    page.select_option("#image", label="all units")
    page.select_option("#file", label=f"demo/{HOSTILE}.so")
    [row] = rows(page, "units")
    assert "lz4" in row


def test_a_table_is_sorted_by_keyboard_and_says_so(page: Page) -> None:
    def totals() -> list[float]:
        found = [row.split()[-2:] for row in rows(page, "units")]
        return [float(size) * {"B": 1, "KiB": 1024}[unit] for size, unit in found]

    assert totals() == sorted(totals(), reverse=True)
    page.focus("#units button[data-by=total]")
    page.keyboard.press("Enter")
    assert totals() == sorted(totals())
    head = page.locator("#units th", has=page.locator("button[data-by=total]"))
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.dataset.by") == "total", "the focus stays"


def test_names_from_a_wheel_are_text(page: Page) -> None:
    assert any(HOSTILE in row for row in rows(page, "files"))
    assert page.locator("img").count() == 0
    page.locator("#canvas").hover()
    assert "all " in page.locator("#pointed").inner_text()
    assert page.title() == "GPU code in 2 files"


def test_a_script_that_got_into_a_page_does_not_run(browser: Any, wheels: Path) -> None:
    page = browser.new_page()
    page.goto(wheels.as_uri())
    page.evaluate(
        "document.body.innerHTML = `<button onclick=\"document.title = 'taken'\">press</button>`"
    )
    page.click("button")
    assert page.title() == "GPU code in 2 files"
    page.close()


def test_every_control_has_a_name(page: Page) -> None:
    for name in ("Show", "Show units with these words", "In", "Which"):
        assert page.get_by_label(name, exact=True).count() == 1, name
    label = page.get_by_role("img").get_attribute("aria-label") or ""
    assert label.startswith("4 units from left to right")
    assert "sm_90a cubin" in label
    assert page.get_by_role("region", name="Unit by size").count() == 1


def test_a_page_of_wheels_is_valid_html(
    page: Page, wheels: Path, nu: Callable[..., list[str]], tmp_path: Path
) -> None:
    """As it is written, and with what its script adds."""
    page.locator("#units summary").first.click()
    (tmp_path / "run.html").write_text(page.content())
    assert nu([wheels, tmp_path / "run.html"]) == []


# -- a build ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outcome, Path]:
    """How a build of the sample for two architectures on two cores ended, and its folder, with
    t.html; and t.json of a second build, which takes the wheel from the store."""

    def build(folder: Path) -> Outcome:
        bench = Workbench(folder / "bench")
        common = ("--arch", "80,86", "--jobs", "2", "--timeline")
        outcome = bench.build(*common, str(folder / "t.html"))
        bench.build(*common, str(folder / "t.json"))
        return outcome

    outcome = once(tmp_path_factory, "timeline", build)
    return outcome, outcome.wheel().parents[2]


@pytest.fixture
def timeline(browser: Any, built: tuple[Outcome, Path]) -> Iterator[Page]:
    with opened(browser, built[1] / "t.html", 1280) as page:
        yield page


def test_a_timeline_has_the_numbers_of_the_build(
    built: tuple[Outcome, Path], timeline: Page
) -> None:
    """What the board printed of each job, and what the command printed of the wheel."""
    outcome, _ = built
    printed = dict(
        re.findall(r"^\[\d+/\d+\] (.*?\]?) ([\d.]+ s, [\d.]+ [KMG]iB)$", outcome.err, re.MULTILINE)
    )
    assert len(printed) > 5
    data = timeline.evaluate("data")
    shown = {}
    for _, _, _, kind, one in data["jobs"]:
        label = one["unit"] if kind == "C++" else f"{one['unit']} [{','.join(one['archs'])}]"
        shown[label] = f"{text.duration(one['seconds'])}, {text.size(one['rss'])}"
    assert shown == printed
    assert len(rows(timeline, "jobs")) == len(printed)
    facts = timeline.locator(".facts li").all_inner_texts()
    assert f"{len(printed)} of {len(printed)} jobs ended well" in facts
    cpu = sum(one[4]["cpu"] for one in data["jobs"])
    assert f"{text.duration(cpu)} CPU time of jobs" in facts
    sha256 = re.search(r"^sha256 +(\w+)$", outcome.out, re.MULTILINE)
    assert sha256
    assert sha256[1] in timeline.locator("dd").all_inner_texts()
    steps = [one[3] for one in data["steps"]]
    order = ["toolchain", "source", "capture", "compile", "assemble", "pack", "check"]
    assert [step for step in steps if step in order] == order
    assert data["cores"] == 2


def test_all_time_of_all_cores_is_in_a_timeline(timeline: Page) -> None:
    data = timeline.evaluate("data")
    busy = sum(end - start for start, end, *_ in data["jobs"])
    idle = sum((end - start) * cores for start, end, cores, _ in data["idle"])
    assert busy + idle == pytest.approx(data["cores"] * data["wall"], rel=0.05)


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_a_timeline_fits_every_screen(
    browser: Any, built: tuple[Outcome, Path], width: int, scheme: str
) -> None:
    with opened(browser, built[1] / "t.html", width, scheme) as page:
        check_it_fits(page)
        for _ in range(3):
            page.click("#in")
        check_it_fits(page)
        bars = page.locator(".job").all()
        assert min(bar.evaluate(CONTRAST) for bar in bars) >= READABLE


def test_bars_are_reached_by_keyboard_and_say_what_they_are(timeline: Page) -> None:
    def focused() -> str:
        found: str = timeline.evaluate("document.activeElement.getAttribute('aria-label') || ''")
        return found

    timeline.focus("#whole")
    timeline.keyboard.press("Tab")
    assert focused().startswith("Wheel: Python 3."), focused()
    timeline.keyboard.press("ArrowDown")
    assert focused().startswith("Step: ")
    timeline.keyboard.press("Home")
    assert focused().startswith("Step: toolchain")
    timeline.keyboard.press("ArrowDown")
    assert focused().startswith("Unit: ")
    facts = timeline.locator("#pointed").inner_text()
    assert "CPU" in facts
    assert "at its peak" in facts
    timeline.keyboard.press("Tab")
    assert timeline.evaluate("document.activeElement.id") == "filter", "one stop for all bars"


def test_a_timeline_is_valid_html(
    timeline: Page, built: tuple[Outcome, Path], nu: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "run.html").write_text(timeline.content())
    assert nu([built[1] / "t.html", tmp_path / "run.html"]) == []


def test_jobs_are_listed_and_filtered(timeline: Page) -> None:
    timeline.fill("#filter", "sm_86")
    found = rows(timeline, "jobs")
    assert 0 < len(found) < len(timeline.evaluate("data.jobs"))
    assert all("sm_86" in row for row in found)
    durations = [0, 0.04, 12.12, 59.94, 59.96, 60, 83, 3599.4, 3599.6, 3600, 7500, 100_000]
    shown = timeline.evaluate("durations => durations.map(durationOf)", durations)
    assert shown == list(map(text.duration, durations))


def test_a_build_from_the_store_has_a_trace(built: tuple[Outcome, Path]) -> None:
    found = json.loads((built[1] / "t.json").read_bytes())
    [wheel] = [event for event in found["traceEvents"] if event.get("cat") == "wheel"]
    assert wheel["args"]["hits"] == wheel["args"]["slices"] > 0
    assert wheel["args"]["file"] == built[0].wheel().name
    assert not [
        event for event in found["traceEvents"] if event["ph"] == "X" and "cpu" in event["args"]
    ]


def test_an_interrupted_build_leaves_its_timeline(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "t.html"
    command = bench.build_command("--arch", "80,86,89", "--timeline", str(path))
    process = subprocess.Popen(
        command, cwd=bench.home, env=bench.variables(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("compile"):
            break
    process.send_signal(signal.SIGINT)
    process.stderr.read()
    assert process.wait() == InterruptedBuildError.exit_code
    page = ReadPage(path.read_bytes())
    assert any("did not end well: interrupted" in words for words in page.texts("p"))
    assert {"compile"} == {
        one[3] for one in page.data["steps"] if one[4]["outcome"] == "unfinished"
    }
