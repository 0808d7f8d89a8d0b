"""Links between the project's documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fatwheel.config.parts import Parts, minor, release

ROOT = Path(__file__).parents[2]
TORCHES = Parts(ROOT / "toolchains").torches
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
