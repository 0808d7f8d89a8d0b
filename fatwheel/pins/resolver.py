"""Resolves requirements for any Python and platform, with uv.

pip evaluates markers for the machine that it runs on only. uv resolves for others, too. It asks the
same indexes that pip is configured with: everything is told through its environment, where no
password is seen by others. Versions that are pinned already are preferred to newer ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name

from ..errors import FetchError, ToolchainError
from ..toolchain.pipconfig import PipConfig, redacted

# uv's words for a platform: its oldest glibc is the one that torch's wheels ask for.
_PLATFORMS = {
    "linux-x86_64": "x86_64-manylinux_2_28",
    "linux-aarch64": "aarch64-manylinux_2_28",
    "win-amd64": "x86_64-pc-windows-msvc",
}
_SHOWN = 20  # lines of what uv says
_PATIENCE = 900  # seconds
_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)")

Pins = Mapping[str, str]  # version by name


class Resolver:
    """Asks uv, with the indexes and the network that pip is configured with.

    Raises ToolchainError where there is no uv.
    """

    def __init__(self, config: PipConfig, cache: Path) -> None:
        self._command = [
            *(_uv(), "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"),
            *("--no-python-downloads", "--python", sys.executable),
            *("--only-binary", ":all:", "--index-strategy", "unsafe-best-match"),
            *("--cache-dir", str(cache)),
        ]
        self._environment = {**_without_uv(os.environ), **_settings(config)}

    def resolve(
        self,
        requirements: Iterable[str],
        python: str,
        platform: str,
        preferred: Iterable[str],
    ) -> dict[str, str]:
        """The version of every package that is needed, by name, for CPython of a version.

        requirements: as pip takes them, with markers and URLs. preferred: pins `NAME==VERSION`, of
        which a package may have several. Raises FetchError where nothing satisfies them, or an
        index cannot be reached.
        """
        with TemporaryDirectory(prefix="fatwheel-") as folder:
            asked, pinned = Path(folder, "requirements.in"), Path(folder, "pins.txt")
            asked.write_text("".join(f"{one}\n" for one in requirements))
            pinned.write_text("".join(f"{one}\n" for one in sorted(set(preferred))))
            try:
                run = subprocess.run(
                    [
                        *(*self._command, str(asked), "--output-file", str(pinned)),
                        *("--python-version", python, "--python-platform", _PLATFORMS[platform]),
                    ],
                    env=self._environment,
                    capture_output=True,
                    text=True,
                    timeout=_PATIENCE,
                )
            except subprocess.TimeoutExpired as error:
                raise FetchError(
                    f"uv found no set of packages within {_PATIENCE // 60} minutes",
                    hint="check the network, or name a torch: --torch VERSION",
                ) from error
            if run.returncode:
                raise FetchError(
                    f"no set of packages satisfies what is required for Python {python} on "
                    f"{platform}",
                    details=_said(run.stderr),
                    hint="check the network, and what pip is configured with: python -m pip "
                    "config list",
                )
            return _pins_in(pinned.read_text().splitlines())


def platforms() -> Sequence[str]:
    """Those that it resolves for, in Python's words."""
    return tuple(_PLATFORMS)


def _pins_in(lines: Iterable[str]) -> dict[str, str]:
    """A package that was asked for by URL stays out: the URL says which version it is."""
    matches = (_PINNED.match(line) for line in lines)
    return {str(canonicalize_name(match[1])): match[2] for match in matches if match}


def _said(text: str) -> list[str]:
    lines = [redacted(line.rstrip()) for line in text.splitlines() if line.strip()]
    return lines[-_SHOWN:]


def _uv() -> str:
    """uv beside this Python, or else on PATH."""
    folders = (sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))
    found = shutil.which("uv", path=os.pathsep.join(folders))
    if found is None:
        raise ToolchainError(
            "uv is not installed; it resolves the packages of other Pythons and platforms",
            hint="python -m pip install 'fatwheel[lock]', or: python -m pip install uv",
        )
    return found


def _without_uv(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's configuration decides, not what is set for uv."""
    return {name: value for name, value in environment.items() if not name.startswith("UV_")}


def _settings(config: PipConfig) -> dict[str, str]:
    """pip's configuration as variables that uv reads."""
    settings = {
        "UV_FIND_LINKS": ",".join(config.find_links),
        "UV_INSECURE_HOST": " ".join(config.trusted_hosts),
        "UV_HTTP_TIMEOUT": f"{max(config.timeout, 1):.0f}",
        "UV_HTTP_RETRIES": str(config.retries),
        "SSL_CERT_FILE": config.cert or "",
        "SSL_CLIENT_CERT": config.client_cert or "",
        "HTTP_PROXY": config.proxy or "",
        "HTTPS_PROXY": config.proxy or "",
    }
    # uv looks for a preferred version in the first index only that has it, and asks the default one
    # last. So those that have few files, as folders of this machine, come last.
    indexes = sorted(config.indexes, key=lambda url: url.startswith("file:"))
    if indexes:
        settings["UV_EXTRA_INDEX_URL"] = " ".join(indexes[:-1])
        settings["UV_INDEX_URL"] = indexes[-1]
    else:
        settings["UV_NO_INDEX"] = "1"
    return {name: value for name, value in settings.items() if value}
