"""What indexes list: of a publisher's listing, only links that lead out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from unearth import Link

from fatwheel.pins.listings import Listings

WHEEL = "torch-2.8.0-cp311-cp311-linux_x86_64.whl"


class Asker:
    """Asks at once."""

    def ask(self, place: str, question: Callable[[], Any]) -> Any:
        return question()


def listed(url: str, *links: str) -> list[str]:
    """Those of a listing's links that are kept."""
    source = SimpleNamespace(url=url, shown=url)
    index = SimpleNamespace(
        source_at=lambda url: source,
        listed=lambda source, project: [Link(f"{link}/{WHEEL}") for link in links],
    )
    found = Listings(index, Asker()).at(url, "torch")  # type: ignore[arg-type]
    return [link.url_without_fragment.rpartition("/")[0] for link in found.get(WHEEL, [])]


@pytest.mark.parametrize(
    "inside",
    ["http://127.0.0.1:8080", "https://10.0.0.1", "https://localhost", "https://[::1]",
     "https://169.254.169.254", "file:///etc", "http://files.example.org"],
)  # fmt: skip
def test_a_publisher_cannot_lead_inside(inside: str) -> None:
    kept = listed("https://download.example.org/whl", "https://files.example.org/whl", inside)
    assert kept == ["https://files.example.org/whl"]


def test_an_index_of_this_machine_may() -> None:
    here = "http://127.0.0.1:8080"
    assert listed("http://127.0.0.1:8000/whl", here) == [here]
