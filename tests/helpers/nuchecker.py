"""The W3C's checker of HTML documents, Nu, run as a program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from .npmpackages import unpack

PACKAGE = "vnu-jar@26.9.27"
SHA512 = "TkQd5DFfOaWC9ebtvozTsrH2Vaod3jYg+vrOeREzIXxBexLz9+rS2DNtjn7+RPUiZhgli0SghgBX6RJRNea0KA=="
# It computes no digests, and so takes every script that a policy allows by its digest for one that
# is forbidden. Browsers do compute them: in tests they run the scripts of these pages.
_NO_DIGESTS = "Inline script violates Content Security Policy"
# A run is over before Java's second compiler and its parallel collector pay for themselves. What
# the first one makes needs more stack.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss2m")


class NuChecker:
    """Says what is wrong with pages: elements and attributes where none may be, CSS, ARIA."""

    def __init__(self, folder: Path, tool: Callable[[str], str]) -> None:
        """folder: to keep the program in; it has 30 MB."""
        self._java = tool("java")
        self._jar = unpack(PACKAGE, SHA512, folder, tool) / "build" / "dist" / "vnu.jar"

    def messages(self, pages: Iterable[Path]) -> list[str]:
        """Errors and warnings about all of these pages, each with its place."""
        command = [self._java, *_QUICK, "-jar", str(self._jar), "--format", "json"]
        done = subprocess.run(
            [*command, "--exit-zero-always", *map(str, pages)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [
            f"{one['url']}:{one.get('lastLine', '')}: {one['message']}"
            for one in json.loads(done.stderr)["messages"]
            if not one["message"].startswith(_NO_DIGESTS)
        ]
