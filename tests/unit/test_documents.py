"""What the project's documents name is there: links, files, modules, commands and their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from fatwheel.cli.arguments import flags
from fatwheel.config.parts import Parts, minor, release

ROOT = Path(__file__).parents[2]
TORCHES = Parts(ROOT / "toolchains").torches
CODE = (ROOT, ROOT / "fatwheel")  # what paths of code may be relative to
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def names_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors_of(path: Path) -> set[str]:
    """Of a document's headings, as code hosts make them."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = document.parent / place if place else document
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken, f"{names_of(document)} has broken links: {broken}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_files_that_are_named_exist(document: Path) -> None:
    """Paths of the checkout in backticks; the names of users' own files are none."""
    text = document.read_text(encoding="utf-8")
    found = re.findall(r"`((?:bench|docs|fatwheel|scripts|tests)/[\w./-]+)`", text)
    missing = [name for name in found if not (ROOT / name).exists()]
    assert not missing, f"{names_of(document)} names files that do not exist: {missing}"


ON_CODE = pytest.mark.parametrize("name", ["architecture.md", "design.md"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_modules_that_are_named_exist(document: Path) -> None:
    """They are named by their room: `engines/run.py`, `verify/gpus.toml`."""
    rooms = "|".join(path.name for path in (ROOT / "fatwheel").iterdir() if path.is_dir())
    text = document.read_text(encoding="utf-8")
    found = re.findall(rf"`((?:{rooms})/[\w./-]*|[\w./-]+/\w+\.py)`", text)
    missing = [place for place in found if not any((top / place).exists() for top in CODE)]
    assert not missing, f"{names_of(document)} names modules that do not exist: {missing}"


@ON_CODE
def test_what_modules_are_said_to_have_is_there(name: str) -> None:
    """`checks_of` (`verify/report.py`), `Stage` in `model.py`; beside one, others of its room by
    their names alone: `placing.py`."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    alone = re.findall(r"`(\w+\.(?:py|toml))`", text)
    known = {path.name for top in (ROOT.glob("*"), CODE[1].rglob("*")) for path in top}
    missing = sorted({*alone} - known)
    for thing, place in re.findall(r"`([A-Za-z_.]+)`(?: in|,? \()\s?`([\w/]+\.py)`", text):
        last = thing.rpartition(".")[2]
        code = (ROOT / "fatwheel" / place).read_text(encoding="utf-8")
        made = rf"^ *((def|class) {last}\b|{last}\b.* = |name = .{last}.$)"
        if not re.search(made, code, re.M):
            missing.append(f"{thing} in {place}")
    assert not missing, f"{name} names what is not there: {missing}"


def commands_of(text: str) -> Iterator[str]:
    """The calls of fatwheel's commands in a document: in blocks, and between backticks."""
    blocks = r"^ *```\w*\n(.*?)^ *```"
    rest = re.sub(blocks, "", text, flags=re.M | re.S)
    lines = [line for block in re.findall(blocks, text, re.M | re.S) for line in block.splitlines()]
    lines += re.findall(r"^ {4,}(.*)", rest, re.M)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    for part in (part.strip() for line in lines for part in line.split(" && ")):
        # Only what explains a line, in examples, stands behind two blanks.
        if found := re.match(r"(?:[$>] )?(?:uvx |python -m )?(?:invoke|fatwheel) ([a-z].*)", part):
            yield found[1].partition("  ")[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_commands_that_are_shown_exist(document: Path) -> None:
    known = {
        command.name: {flag for one in command.args.values() for flag in flags(one)}
        for command in tasks.namespace.to_contexts()
    }
    wrong = []
    for shown in commands_of(document.read_text(encoding="utf-8")):
        name, *words = shlex.split(shown, comments=True)
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        if name not in known or options - known[name]:
            wrong.append(shown)
    assert not wrong, f"{names_of(document)} shows what does not exist: {wrong}"


def test_windows_has_the_triton_that_torch_requires_on_linux() -> None:
    """docs/windows.md names versions of triton-windows by torch's minor version."""
    text = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
    rows = [re.findall(r"[^|]+", line) for line in text.splitlines() if line.startswith("  | T")]
    head = next(line for line in text.splitlines() if line.startswith("  | torch |"))
    [cells] = [[cell.strip() for cell in row[2:]] for row in rows]
    torches = [cell.strip().split(", ") for cell in head.split("|")[2:-1]]
    told = {torch: triton for names, triton in zip(torches, cells, strict=False) for torch in names}
    required = {
        minor(torch.version): minor(pin.partition("==")[2])
        for torch in TORCHES
        for variant in torch.variants
        for pin in (one.partition(";")[0].strip() for one in variant.requires)
        if pin.startswith("triton==") and torch.variants_for("win-amd64")
        # Its first release is for torch 2.4.
        if release(torch.version) >= (2, 4)
    }
    assert told == required
