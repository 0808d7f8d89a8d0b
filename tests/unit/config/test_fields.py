"""The grammar of values in recipes and toolchains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fatwheel.config import fields
from fatwheel.config.schema import RecipeFile, ToolchainFile

from ...helpers.grammars import without_grammar


@dataclass
class Inner:
    good: fields.PartName
    bad: str | None


@dataclass
class Outer:
    inner: Annotated[list[Inner], fields.Few]
    endless: list[fields.PartName]
    number: int


def taken(kind: Any, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        return len(str(error.errors()[0]["msg"])) > 400
    return True


@pytest.mark.parametrize("schema", [RecipeFile, ToolchainFile])
def test_every_value_of_a_file_has_a_grammar(schema: type) -> None:
    assert without_grammar(schema) == []


def test_what_has_none_is_found() -> None:
    found = without_grammar(Outer)
    assert [one.partition(":")[0] for one in found] == [
        "Outer.endless", "Outer.number", "Inner.bad"
    ]  # fmt: skip


GOOD = {
    "Project": ["a", "flash_attn", "Torch.Scatter-2"],
    "AnyVersion": ["1.0", "2.11.0+cu130", "1!2.0", "1.0rc1.post2.dev3", "25.3"],
    "Torch": ["2.11.0", "2.12.0rc1", "2.13.0.dev20260101"],
    "Name": ["flash-attn", "my recipe", "größe"],
    "Label": ["linux-cuda13.0", "linux-cuda13.0-torch2.12", "My_Tools"],
    "FullPython": ["3.11.7", "3.14.0rc1", "3.13.1+"],
    "Compiler": ["g++ 12.2.0", "cl 19.38.33130", "g++ 4.9.x-google", "g++ 13.3.0-6ubuntu2~24.04"],
    "WheelFile": ["torch-2.11.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl"],
    "SdistFile": ["flash_attn-2.3.6.tar.gz", "a-1!2.0.zip"],
    "File": ["vs_BuildTools.exe", "cpython-3.11.9+20240415-x86_64-install_only.tar.gz"],
    "Url": [
        "https://download.pytorch.org/whl/cu130/torch-2.11.0%2Bcu130-cp311-cp311-linux_x86_64.whl",
        "https://host:8443/a~b/c@d/file-1.0+x.tar.xz",
        "http://127.0.0.1:8000/a.zip",
        "http://localhost/a.zip",
    ],
    "Folder": ["src", "a/b", "csrc (old)/x", ".hidden", "a b"],
    "Reference": ["python:3.11-bookworm", "mcr.microsoft.com/windows/servercore:ltsc2022",
                  "localhost:5000/a/b"],
    "Pin": ["ninja==1.13.2", "numpy==2.2.6; python_version >= '3.10' and python_version < '3.11'"],
    "Value": ["", "-DX=\"a b\" $Y `z`\n"],
}  # fmt: skip
BAD = {
    "Project": ["", "-a", "a b", "a\n", "ä", "a" * 101],
    "AnyVersion": ["1.0\n", " 1.0", "new", "1.0+ſ", "9" * 5000, "1.0 ; x", "-1"],
    "Torch": ["1!2.0", "2.11.0+cu130", "2.11.0-1"],
    "Name": ["", ".x", "a/b", "a\\b", "a\0", "it's", "a\n", "x" * 300],
    "Label": ["-a", "a b", "a/b", ".."],
    "FullPython": ["2.7.1", "3", "3.11.7 ", "3.11.7;x"],
    "Compiler": ["g++", "g++ 12 2", "g++ $(x)"],
    "WheelFile": ["x.zip", "../a-1.0-py3-none-any.whl", "a-1.0-py3-none-any.whl\n",
                  "a-1.0-py3-none-$(x).whl", "a-" + "9" * 150 + "-py3-none-any.whl " * 2],
    "SdistFile": ["a.tar.gz", "a-1.0.whl", "a-1.0.tar.gz\n", "a-1.0.tar.gz;x.tar.gz"],
    "File": ["", ".a", "-a", "a b", "a/b", "x" * 201],
    "Url": [
        "http://host/a.zip", "ftp://host/a.zip", "file:///etc/passwd", "https:///a.zip",
        "https://user@host/a.zip", "https://user:secret@host/a.zip", "https://host/a.zip?x=1",
        "https://host/a.zip#x", "https://host/", "https://host/..", "https://host/a b.zip",
        "https://host/a.zip\n", "https://host/$(x)/a.zip", "https://host/`x`/a.zip",
        "https://host/'x'/a.zip", "https://host/ä/a.zip", "https://[::1/a.zip",
        "https://host:99999/a.zip", "https://host/%2e%2e%2fa.zip", "https://host/a%0ab.zip",
        "https://host/" + "a" * 3000, "http://127.0.0.1.evil.org/a.zip", "http://localhost@evil/a.zip",
    ],
    "Folder": ["", "/", "..", "a/../..", "C:x", "a\\b", "a\0", "a\nb", "$(x)", "it's"],
    "Reference": ["python@sha256:" + "a" * 64, "python\nRUN x", "-x", "a b", "A", "a:" + "b" * 200],
    "Pin": [
        "ninja", "ninja>=1", "../x==1.0", "ninja==1.0; sys_platform == 'linux'",
        "ninja==1.0; python_version\n< '3.11'", "ninja==1.0; python_version < '3.\u0661'",
        "ninja==1.0; python_version < '3.9'\u00a0and\u00a0python_version < '3.8'",
    ],
    "Value": ["a\0b", "a" * 20_000],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_values_are_taken(name: str) -> None:
    refused = [value for value in GOOD[name] if not taken(getattr(fields, name), value)]
    assert refused == []


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused(name: str) -> None:
    let_in = [value for value in BAD[name] if taken(getattr(fields, name), value)]
    assert let_in == []


def test_no_password_is_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(fields.Url).validate_python("https://me:secret@host/a.zip")
    assert "secret" not in str(caught.value.errors()[0]["msg"])


def test_a_file_that_a_url_names_has_no_longer_name_than_other_files() -> None:
    """Its lock could not be read."""
    read = TypeAdapter(fields.Url).validate_python
    assert read(f"https://host/{'a' * 196}.zip")
    with pytest.raises(ValidationError, match="not the URL of a file"):
        read(f"https://host/{'a' * 197}.zip")
