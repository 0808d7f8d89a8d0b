"""What people see: the board while a command works, its results, messages and errors."""

from __future__ import annotations

from .asking import consent
from .boards import LiveBoard, PlainBoard, board
from .comparisons import show_comparison
from .health import show_health, show_setup
from .imagery import show_contexts, show_images
from .locks import show_locks
from .messages import show_error, show_note, show_plan, show_printed
from .plans import show_plan_document
from .rebuilds import show_rebuild
from .results import (
    show_bench,
    show_bench_markdown,
    show_cache,
    show_edited,
    show_json,
    show_proof,
    show_wheels,
)
from .verdicts import show_inspection, show_verification

__all__ = [
    "LiveBoard",
    "PlainBoard",
    "board",
    "consent",
    "show_bench",
    "show_bench_markdown",
    "show_cache",
    "show_comparison",
    "show_contexts",
    "show_edited",
    "show_error",
    "show_health",
    "show_images",
    "show_inspection",
    "show_json",
    "show_locks",
    "show_note",
    "show_plan",
    "show_plan_document",
    "show_printed",
    "show_proof",
    "show_rebuild",
    "show_setup",
    "show_verification",
    "show_wheels",
]
