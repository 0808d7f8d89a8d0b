"""A site that is really used: pip and uv install from it, and a browser finds the wheel."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag, compatible_tags, cpython_tags, parse_tag
from playwright.sync_api import Page

from fatwheel.events import silent
from fatwheel.publish.site import Request, write_site
from fatwheel.verify.contents import gpus

from ..helpers.browsing import opened
from ..helpers.cudawheels import MODULE, NONE, Linker
from ..helpers.fromindex import PIP, UV, called, serving
from ..helpers.tinywheels import Draft

MINOR = sys.version_info.minor
TAG = f"cp3{MINOR}-cp3{MINOR}-linux_x86_64"
OTHER_TAG = f"cp3{MINOR + 1}-cp3{MINOR + 1}-linux_x86_64"
NEWEST, OLDER, FOR_OTHER = "2.10+cu130torch2.11", "2.9+cu130torch2.11", "2.11+cu130torch2.12"
OTHERS = "3.0+cu130torch2.11"  # for the next Python
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
)
# What systems call their GPUs, and their compute capability by NVIDIA's list.
CARDS = {
    "NVIDIA GeForce RTX 4090": "8.9", "rtx 4060 laptop gpu": "8.9", "L4": "8.9", "L40S": "8.9",
    "NVIDIA RTX 6000 Ada Generation": "8.9", "NVIDIA RTX 2000 Ada Generation": "8.9",
    "NVIDIA GeForce RTX 3060 Ti": "8.6", "NVIDIA RTX A4000": "8.6", "NVIDIA A10": "8.6",
    "NVIDIA A100-SXM4-80GB": "8.0", "NVIDIA H100 80GB HBM3": "9.0", "NVIDIA H200": "9.0",
    "NVIDIA GeForce RTX 2080 Ti": "7.5", "Quadro RTX 4000": "7.5", "Tesla T4": "7.5",
    "NVIDIA GeForce GTX 1660 SUPER": "7.5", "NVIDIA GeForce GTX 1080 Ti": "6.1",
    "NVIDIA GeForce GTX 970": "5.2", "Tesla V100-SXM2-16GB": "7.0", "NVIDIA B200": "10.0",
    "NVIDIA GeForce RTX 5090": "12.0", "NVIDIA GB10": "12.1",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "12.0",
    "8.9": "8.9", "sm_90a": "9.0", "compute capability 12.0": "12.0", "120": "12.0",
    "Voodoo 2": "", "AMD Radeon RX 7900 XTX": "",
    "980": "", "GTX 980": "5.2", "98.0": "", "sm_98": "", "4.2": "", "75": "7.5", "10.3": "10.3",
}  # fmt: skip
COLLECTED = """\
Collecting environment information...
PyTorch version: 2.11.0+cu130
Is debug build: False
CUDA used to build PyTorch: 13.0
OS: Ubuntu 24.04.1 LTS (x86_64)
GCC version: (Ubuntu 13.3.0) 13.3.0
Python version: 3.{minor}.4 (main, Jan  1 2026) [GCC 13.3.0] (64-bit runtime)
Is CUDA available: True
GPU models and configuration:
GPU 0: NVIDIA GeForce RTX 4090
GPU 1: NVIDIA GeForce RTX 3090
Nvidia driver version: 580.65
""".replace("{minor}", str(MINOR))
SMI = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 576.52                 Driver Version: 576.52         CUDA Version: 12.9     |
|   0  NVIDIA GeForce RTX 5080      WDDM  |   00000000:01:00.0  On |                  N/A |
"""


@pytest.fixture(scope="module")
def site(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    cubin = Linker(folder, tool).library(NONE)
    wheels = []
    for version, tag in ((OLDER, TAG), (NEWEST, TAG), (FOR_OTHER, TAG), (OTHERS, OTHER_TAG)):
        metadata = (
            f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\nSummary: {HOSTILE}\n"
            f"Requires-Python: >=3.{MINOR}\n"
        )
        files = {"demo/__init__.py": f"VERSION = {version!r}\n".encode(), MODULE: cubin}
        wheels.append(Draft("demo", version, tag, files, metadata=metadata).write(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATWHEEL_CACHE", str(folder / "cache"))
        write_site(wheels, folder / "site", Request(), silent)
    return folder / "site"


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with serving(site) as address:
        yield address


def version_in(target: Path) -> str:
    return (target / "demo/__init__.py").read_text().partition("=")[2].strip().strip("'")


@pytest.mark.parametrize("installer", [PIP, UV], ids=["pip", "uv"])
@pytest.mark.parametrize(
    ("channel", "version"), [("cu130/torch2.11", NEWEST), ("simple", FOR_OTHER)]
)
def test_installers_take_the_newest_of_a_channel(
    url: str, tmp_path: Path, installer: list[str], channel: str, version: str
) -> None:
    """Of all wheels the newest is for another Python, and is passed over."""
    target = tmp_path / "site-packages"
    done = called(installer, target, "--index-url", f"{url}/{channel}/", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_in(target) == version


@pytest.mark.parametrize("installer", [PIP, UV], ids=["pip", "uv"])
def test_installers_check_the_hashes(
    url: str, site: Path, tmp_path: Path, installer: list[str]
) -> None:
    listed = json.loads((site / "simple/demo/index.json").read_bytes())["files"]
    [sha256] = [one["hashes"]["sha256"] for one in listed if f"-{NEWEST}-" in one["filename"]]
    for digest, works in ((sha256, True), ("0" * 64, False)):
        target = tmp_path / f"target-{works}"
        (tmp_path / "r.txt").write_text(f"demo=={NEWEST} --hash=sha256:{digest}\n")
        asked = ["--require-hashes", "-r", str(tmp_path / "r.txt"), "--index-url", f"{url}/simple/"]
        done = called(installer, target, *asked)
        assert (done.returncode == 0) is works, done.stdout + done.stderr


@pytest.mark.parametrize("installer", [PIP, UV], ids=["pip", "uv"])
def test_installers_refuse_another_python_s_wheel(
    url: str, tmp_path: Path, installer: list[str]
) -> None:
    target = tmp_path / "site-packages"
    done = called(installer, target, "--index-url", f"{url}/simple/", "demo==3.0")
    assert done.returncode != 0
    assert not (target / "demo").exists()


def test_the_site_works_as_files(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "site-packages"
    index = (site / "cu130/torch2.11").as_uri()
    done = called(PIP, target, "--index-url", index, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert version_in(target) == NEWEST


def test_every_page_is_valid_html(site: Path, nu: Callable[..., list[str]], tmp_path: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 7
    assert nu(pages) == []
    wrong = tmp_path / "wrong.html"
    wrong.write_text(pages[0].read_text().replace("<body>", "<body><ul><p>no item</p></ul>"))
    assert "not allowed as child of element" in " ".join(nu([wrong])), "it would find something"


# -- the finder, in a browser ----------------------------------------------------------------------


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Page]:
    """The finder, opened as a file."""
    with opened(browser, site / "index.html") as page:
        yield page


def answer(page: Page) -> str:
    return page.locator("#answer").inner_text()


def test_a_gpu_is_typed_and_the_best_wheel_is_named(page: Page) -> None:
    page.fill("#gpu", "RTX 4090")
    page.select_option("#python", str(MINOR))
    page.select_option("#torch", "2.11")
    assert f"demo-{NEWEST}-{TAG}.whl" in answer(page)
    assert "machine code for this GPU" in answer(page)
    assert "1 more would do" in answer(page)


@pytest.mark.parametrize("served", [True, False], ids=["by a server", "as files"])
def test_the_commands_that_are_shown_install_the_wheel(
    browser: Any, site: Path, url: str, tmp_path: Path, served: bool
) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.goto(f"{url}/" if served else (site / "index.html").as_uri())
    page.select_option("#python", str(MINOR))
    page.select_option("#torch", "2.11")
    for installer, label in ((PIP, "pip"), (UV, "uv")):
        [command] = page.locator(f"code[data-for={label}]").all_inner_texts()
        done = called(installer, tmp_path / label, shlex.split(command)[-1])
        assert done.returncode == 0, command + done.stdout + done.stderr
        assert version_in(tmp_path / label) == NEWEST
    assert not errors
    page.close()


def test_a_gpu_that_only_ptx_serves_gets_a_warning(page: Page) -> None:
    page.fill("#gpu", "B200")
    page.select_option("#python", str(MINOR))
    assert "compiles that at the first start" in answer(page)


def test_there_is_none_and_why(page: Page) -> None:
    page.fill("#gpu", "Tesla T4")
    assert "There is no wheel with code for this GPU." in answer(page)
    assert "sm_80" in answer(page), "what there is instead is shown"
    page.fill("#gpu", "")
    page.select_option("#python", str(MINOR + 1))
    page.select_option("#torch", "2.12")
    assert "There is no wheel for torch 2.12." in answer(page)
    page.fill("#gpu", "Voodoo 2")
    assert "No GPU called “Voodoo 2” is known" in answer(page)


def test_what_a_command_prints_is_understood(page: Page) -> None:
    page.click("summary")
    page.fill("#paste", COLLECTED)
    assert page.input_value("#gpu") == "NVIDIA GeForce RTX 4090, NVIDIA GeForce RTX 3090"
    assert page.input_value("#system") == "Linux x86-64"
    assert page.input_value("#python") == str(MINOR)
    assert page.input_value("#torch") == "2.11"
    assert f"demo-{NEWEST}-" in answer(page)
    page.fill("#paste", SMI)
    assert page.input_value("#gpu") == "NVIDIA GeForce RTX 5080"
    assert page.input_value("#system") == "Windows x86-64"
    assert "There is no wheel for Windows x86-64." in answer(page)


def test_gpus_are_known_by_the_names_that_systems_give_them(page: Page) -> None:
    found = {name: page.evaluate("name => capabilityOf(name)", name) for name in CARDS}
    assert found == CARDS
    # Every name that `inspect` knows; two kinds of computer may have GPUs of one capability.
    for gpu in gpus():
        if not gpu.legacy:
            for name in gpu.names:
                assert page.evaluate("name => capabilityOf(name)", name) == gpu.capability, name


def test_the_table_is_filtered_and_text_is_text(page: Page) -> None:
    assert page.locator("#rows tr").count() == 4
    page.fill("#filter", f"cp3{MINOR} torch2.11 sm_80")
    assert page.locator("#rows tr").count() == 2
    assert page.locator("#count").inner_text() == "2 of 4 wheels"
    page.fill("#gpu", "L4")
    assert HOSTILE in answer(page)
    assert page.title() == "Find your CUDA wheel", "a wheel's summary ran as a script"


def test_every_field_has_a_name_and_the_keyboard_reaches_it(page: Page) -> None:
    for field in ("GPU", "Project", "System", "Python", "torch", "Show wheels with these words"):
        assert page.get_by_label(field, exact=True).count() == 1, field
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["gpu", "project", "system", "python", "torch", "SUMMARY", "BUTTON"]
    page.keyboard.press("Enter")
    page.locator(
        "#answer button", has_text="Copied"
    ).first.wait_for()  # the clipboard answers later


def tags_of_python(minor: int) -> Iterator[Tag]:
    """The tags of wheels that a CPython on this system installs."""
    yield from cpython_tags((3, minor), platforms=["linux_x86_64"])
    yield from compatible_tags((3, minor), platforms=["linux_x86_64"])


def test_a_python_for_which_no_installer_takes_the_wheel(browser: Any, tmp_path: Path) -> None:
    metadata = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n{}\n"
    drafts = [
        Draft("stable", "1.0", "cp38-abi3-linux_x86_64", {"stable.py": b""},
              metadata=metadata.format("stable", "Requires-Python: >=3.10\n")),
        Draft("unlocked", "1.0", "cp313-cp313t-linux_x86_64", {"unlocked.py": b""}),
        Draft("locked", "1.0", "cp39-cp39-linux_x86_64", {"locked.py": b""}),
        Draft("locked", "1.0", "cp313-cp313-linux_x86_64", {"locked.py": b""}),
        Draft("least", "1.0", "py310-none-linux_x86_64", {"least.py": b""}),
        Draft("exact", "1.0", "cp310-none-linux_x86_64", {"exact.py": b""}),
        Draft("any", "1.0", "py2.py3-none-any", {"any.py": b""}),
    ]  # fmt: skip
    wheels = [draft.write(tmp_path) for draft in drafts]
    write_site(wheels, tmp_path / "site", Request(), silent)
    page = browser.new_page()
    page.goto((tmp_path / "site" / "index.html").as_uri())
    for project, minor, is_there in (
        ("stable", "9", False), ("stable", "13", True), ("unlocked", "13", False),
        ("locked", "13", True), ("least", "9", False), ("least", "10", True),
        ("least", "13", True), ("exact", "10", True), ("exact", "13", False), ("any", "9", True),
    ):  # fmt: skip
        # packaging, which pip installs by, says the same.
        tags = {str(tag) for tag in tags_of_python(int(minor))}
        offered = [draft.tag for draft in drafts if draft.project == project]
        taken = {str(tag) for each in offered for tag in parse_tag(each)} & tags
        assert bool(taken) is is_there or (project, minor) == ("stable", "9")
        page.select_option("#project", project)
        page.select_option("#python", minor)
        assert (f"There is no wheel for Python 3.{minor}" in answer(page)) != is_there
    page.close()
