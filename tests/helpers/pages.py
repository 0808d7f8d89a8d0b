"""Pages of one file, read as browsers read them: by html5lib, which refuses what is no HTML."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from xml.etree.ElementTree import Element

import html5lib

HTML = "{http://www.w3.org/1999/xhtml}"


class ReadPage:
    """A page; reading it fails if it is not HTML."""

    def __init__(self, page: bytes) -> None:
        self.root: Element = html5lib.HTMLParser(strict=True).parse(page)

    def all(self, tag: str) -> list[Element]:
        return list(self.root.iter(f"{HTML}{tag}"))

    def texts(self, tag: str) -> list[str]:
        return [" ".join("".join(one.itertext()).split()) for one in self.all(tag)]

    def rows(self) -> dict[str, list[str]]:
        """The cells of all tables' rows, by the first of each row."""
        found = {}
        for row in self.all("tr"):
            first, *cells = (" ".join("".join(cell.itertext()).split()) for cell in row)
            found[first] = cells
        return found

    @property
    def data(self) -> Any:
        """What the page's script works with."""
        [found] = [one for one in self.all("script") if one.get("type") == "application/json"]
        return json.loads(found.text or "")

    def check_it_asks_for_nothing(self) -> None:
        """Nothing on the page has an address, and browsers may run only the script that it has."""
        addresses = {
            one.get(name)
            for one in self.root.iter()
            for name in ("src", "href", "srcset", "action", "data")
            if one.get(name) is not None
        }
        assert addresses == {"data:,"}, "an icon that is not asked for"
        assert not [
            one.tag for one in self.root.iter() if any(name[:2] == "on" for name in one.attrib)
        ]
        [policy] = [
            one.get("content") or ""
            for one in self.all("meta")
            if one.get("http-equiv") == "Content-Security-Policy"
        ]
        [script] = [one.text or "" for one in self.all("script") if not one.get("type")]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]
        assert "default-src 'none'" in policy
