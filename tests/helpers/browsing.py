"""Pages in Chromium, opened as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

# The contrast of an element's text with its own background, as WCAG 2 computes it.
CONTRAST = """element => {
  const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = colour => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(value => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const style = getComputedStyle(element);
  const [one, other] = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05);
}"""


@contextmanager
def opened(browser: Any, path: Path, width: int = 375, scheme: str = "light") -> Iterator[Page]:
    """A page on a screen so wide. No error may happen on it, and nothing else be asked for."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert not errors
    assert asked == [path.as_uri()], "the page needs other files"
    page.close()


def check_it_fits(page: Page) -> None:
    """Nothing makes the page itself wider than its screen: what is wider scrolls by itself."""
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide == 0, f"{wide} pixels too wide"
