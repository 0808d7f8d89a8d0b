"""Pins with markers; files that lock writes; what the resolver is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fatwheel.arch import Arch
from fatwheel.config import fields
from fatwheel.config.parts import Archive, CudaRelease, PackageFiles, PinnedFile
from fatwheel.errors import ConfigError, UsageError
from fatwheel.pins import lock, parts, session
from fatwheel.pins.parts import PartsRequest
from fatwheel.pins.session import versions, with_markers
from fatwheel.toolchain.pipconfig import PipConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.9", "3.10", "3.11", "3.12")


def test_markers_name_the_first_and_the_last_python() -> None:
    new = {"numpy": "2.4", "six": "1.0"}
    old = {"numpy": "2.2", "six": "1.0", "tomli": "2.0"}
    assert with_markers({"3.9": old, "3.10": old, "3.11": new, "3.12": old}) == (
        "numpy==2.2; python_version < '3.11'",
        "numpy==2.2; python_version >= '3.12'",
        "numpy==2.4; python_version >= '3.11' and python_version < '3.12'",
        "six==1.0",
        "tomli==2.0; python_version < '3.11'",
        "tomli==2.0; python_version >= '3.12'",
    )


@given(
    st.dictionaries(
        st.sampled_from(PYTHONS),
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1.0", "2.0"])),
        min_size=1,
    )
)
def test_pins_with_markers_say_what_each_python_has(by_python: dict[str, dict[str, str]]) -> None:
    pins = with_markers(by_python)
    TypeAdapter(list[fields.Pin]).validate_python(pins)
    assert {python: versions(pins, python) for python in by_python} == by_python


def test_a_file_is_written_once_and_keeps_its_comments(tmp_path: Path) -> None:
    file = tmp_path / "cuda" / "1.2.3.toml"
    archive = Archive(name="cuda_nvcc", version="1.2", platform="x", size=0, sha256="a" * 64)
    cuda = CudaRelease(
        version="1.2.3",
        nvcc="1.2.4",
        archs=tuple(Arch(number) for number in range(80, 120)),
        gcc=9,
        msvc=(1910, 1949),
        packages=("b==2", "a==1"),
        manifest="https://host.test/redistrib_1.2.3.json",
        archives=(archive,),
    )
    assert lock.write(file, lock.cuda_text(cuda), "# New.\n")
    file.write_text("# Mine.\n#\n# More.\n" + file.read_text().removeprefix("# New.\n"))
    text = file.read_text()
    assert not lock.write(file, lock.cuda_text(cuda), "# New.\n")
    assert file.read_text() == text
    assert max(map(len, text.splitlines())) <= 160
    raw = tomllib.loads(text)
    assert raw["archs"] == [str(number) for number in range(80, 120)]
    assert (raw["packages"], raw["msvc"]) == (["a==1", "b==2"], [1910, 1949])
    assert "size" not in raw["archives"][0], "it is not known"
    assert "tools" not in raw


def test_the_resolver_is_told_what_pip_is_configured_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://another.test/simple")
    config = PipConfig(
        indexes=("file:///some/folder", "https://me:secret@host.test/simple"),
        find_links=("/wheels",),
        trusted_hosts=("host.test",),
        cert="/ca.pem",
        proxy="http://proxy.test:1",
        timeout=7.0,
    )
    settings = {
        **session._without_uv({"UV_INDEX_URL": "x", "HOME": "/home"}),
        **session._settings(config),
    }
    assert settings == {
        "HOME": "/home",
        # Whole indexes first: uv prefers a pin only where the first that has it can serve it.
        "UV_EXTRA_INDEX_URL": "https://me:secret@host.test/simple",
        "UV_INDEX_URL": "file:///some/folder",
        "UV_FIND_LINKS": "/wheels",
        "UV_INSECURE_HOST": "host.test",
        "UV_HTTP_TIMEOUT": "7",
        "UV_HTTP_RETRIES": "5",
        "SSL_CERT_FILE": "/ca.pem",
        "HTTP_PROXY": "http://proxy.test:1",
        "HTTPS_PROXY": "http://proxy.test:1",
    }
    assert session._settings(PipConfig())["UV_NO_INDEX"] == "1"


def test_words_of_a_request() -> None:
    request = PartsRequest.of("13.2, 12.8.1,13.2", None, None, "win-amd64")
    assert request == PartsRequest(("13.2", "12.8.1"), (), (), ("win-amd64",))
    assert PartsRequest.of(None, None, None, None) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("13", None, None, None), "--cuda 13: '13' is not a release"),
        (("../13.2", None, None, None), "is not a release"),
        ((None, "2.13+cu130", None, None), "valid: as in 2.13, or 2.13.0"),
        (("", None, None, None), "'' is not a release"),
        ((None, "2.13,", "", None), "'' is not a Python"),
        ((None, None, "3.14t", None), "'3.14t' is not a Python"),
        ((None, "2.13", None, "macos"), "valid: linux-aarch64, linux-x86_64, win-amd64"),
        ((None, None, None, "win-amd64"), "none is named"),
    ],
)
def test_words_that_cannot_be_looked_up(words: tuple[str | None, ...], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        PartsRequest.of(*words)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("file", "url", "told"),
    [
        ("a-1-py3-none-any.\x7f.whl", "", "Illegal character"),
        ("a-1-py3-none-any.\n.whl", "", "is not a file's name"),
        ("a-1-py3-none-any.whl", "http://elsewhere.test/a-1-py3-none-any.whl", "https"),
        ("a-1-py3-none-any.whl", "https://me:secret@host.test/a.whl", "a user, a password"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(file: str, url: str, told: str) -> None:
    pinned = PinnedFile(file=file, size=1, sha256="a" * 64, url=url)
    text = lock.package_text(PackageFiles(files=(pinned,)))
    with pytest.raises(ConfigError) as caught:
        parts._check("packages/a", text)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
