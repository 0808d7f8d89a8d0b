"""Makes pages of one file each: style, script and data are inside, and nothing is asked for.

A page has a template, NAME.html.jinja, which extends page.html.jinja, and beside it NAME.css and
NAME.js; what all pages share is in page.css and page.js. Texts of strangers are escaped where they
are shown. Should one slip through, it still does nothing: browsers are told to run only the page's
own script, by its digest, and to fetch nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..errors import UsageError
from ..storage import files

_TEMPLATES = "templates"
# How a file begins that may be replaced.
_HEAD = 200  # bytes
_MARKS = (b'<meta name="generator" content="fatwheel">', b'{"generator":"fatwheel"')


def render(name: str, **values: Any) -> bytes:
    """What a template makes of these values, which are escaped."""
    return _templates().get_template(f"{name}.jinja").render(**values).encode()


def make_page(name: str, data: Any, **values: Any) -> bytes:
    """A whole page; data is what its script works with, and its template gets the values."""
    script = f'"use strict";\n{_text("page.js")}{_text(f"{name}.js")}'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = f"{_text('page.css')}{_text(f'{name}.css')}"
    return render(
        f"{name}.html",
        style=style,
        script=script,
        digest=digest,
        data=_inside_script(data),
        **values,
    )


def trace_document(content: dict[str, Any]) -> bytes:
    """A JSON document that is known as fatwheel's own, as pages are."""
    text = json.dumps({"generator": "fatwheel", **content}, separators=(",", ":"))
    return text.encode() + b"\n"


def check_place(path: Path, option: str, endings: Collection[str]) -> None:
    """Refuse a file that cannot be written, or is not fatwheel's own, before any work is done.

    option: the one that names it, `--html`. endings: what its name may end with.
    """
    if path.suffix.lower() not in endings:
        valid = " or ".join(endings)
        raise UsageError(f"{str(path)!r} does not end with {valid}", where=option)
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder", where=option, hint="name a file")
    files.check_writable(path.parent, f"write {path.name}", f"{option} FILE")
    if os.path.lexists(path) and not _is_own(path):
        raise UsageError(
            f"{str(path)!r} is there, and fatwheel did not write it",
            where=option,
            hint="name another file, or delete that one",
        )


def _is_own(path: Path) -> bool:
    """Whether it is a file that fatwheel wrote, or an empty one."""
    stream = files.open_plain(path)
    if stream is None:
        return False
    with stream:
        head = stream.read(_HEAD)
    return not head or any(mark in head for mark in _MARKS)


def write_page(path: Path, data: bytes, option: str) -> None:
    """Write a file whole or not at all; its folder is made if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as stream:
            stream.write(data)
    except OSError as error:
        raise files.disk_error(error, f"write {path.name}", path, f"{option} FILE") from error


def _inside_script(data: Any) -> str:
    """As JSON that is safe in a script element, where `</script>` and `<!--` must not be seen."""
    return json.dumps(data, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")


def _text(name: str) -> str:
    return (Path(__file__).parent / _TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("fatwheel.pages", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
