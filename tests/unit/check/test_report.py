"""The whole of `fatwheel check` as a command, in environments that are made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ...helpers import peimages
from ...helpers.environments import install, install_torch
from ...helpers.schemas import schema_of
from ...helpers.tinywheels import PYTHON, Draft

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing in it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


@pytest.fixture
def site(empty: Path) -> Path:
    """Its packages, which go with the test."""
    folder = empty / "lib" / f"python{PYTHON}" / "site-packages"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    folder.mkdir()
    return folder


def run(
    *arguments: str, folder: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fatwheel", "check", *arguments], cwd=folder, check=False,
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CI": "1", **(variables or {})},
    )  # fmt: skip


def report(done: subprocess.CompletedProcess[str]) -> Any:
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema_of("check"))
    return document


def test_a_package_that_works(empty: Path, site: Path, tmp_path: Path) -> None:
    install(site, "Some_Thing", "1.0", {"some_thing/__init__.py": b""})
    done = run("some.thing", "--python", str(empty), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ok: nothing is wrong: `import some_thing` works" in done.stdout
    assert len(done.stdout.splitlines()) < 10
    document = report(run("some-thing", "--python", str(empty), "--json", folder=tmp_path))
    assert (document["ok"], document["verdict"]["cause"]) == (True, None)
    assert document["import"]["modules"][0]["name"] == "some_thing"


def test_the_same_answer_in_the_environment_and_from_elsewhere(
    empty: Path, site: Path, tmp_path: Path
) -> None:
    """Where fatwheel runs in it, its libraries come from elsewhere here."""
    install(site, "demo", "1.0", {"demo/__init__.py": b"import nothing_there\n"})
    outside = report(run("demo", "--python", str(empty), "--json", folder=tmp_path))
    lent = os.pathsep.join([str(ROOT), *(place for place in sys.path if "site-packages" in place)])
    done = subprocess.run(
        [str(empty / "bin" / "python"), "-m", "fatwheel", "check", "demo", "--json"], cwd=tmp_path,
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": lent},
    )  # fmt: skip
    inside = report(done)
    for document in (outside, inside):
        assert document["verdict"]["cause"] == "import"
    assert outside["findings"][0]["what"] == inside["findings"][0]["what"]
    assert outside["environment"]["title"] == inside["environment"]["title"]


def test_an_editable_package(empty: Path, site: Path, tmp_path: Path) -> None:
    """Its files lie elsewhere, and RECORD does not list them."""
    source = tmp_path / "source"
    (source / "my_demo").mkdir(parents=True)
    (source / "my_demo" / "__init__.py").write_text("raise ImportError('from the source')\n")
    pth, url = f"{source}\n".encode(), b'{"url": "file:///source", "dir_info": {"editable": true}}'
    files = {"__editable__.my_demo.pth": pth, "my_demo-1.0.dist-info/direct_url.json": url}
    install(site, "my_demo", "1.0", files)
    document = report(run("my-demo", "--python", str(empty), "--json", folder=tmp_path))
    assert document["verdict"]["what"] == "`import my_demo` fails: ImportError: from the source"


def test_nothing_is_imported_unless_wanted(empty: Path, site: Path, tmp_path: Path) -> None:
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    install(site, "demo", "1.0", {"demo/__init__.py": source})
    done = run("demo", "--python", str(empty), "--no-import", folder=tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists()
    run("demo", "--python", str(empty), folder=tmp_path)
    assert (tmp_path / "ran").exists()


def test_no_torch(empty: Path, site: Path, tmp_path: Path) -> None:
    done = run("--python", str(empty), folder=tmp_path)
    assert done.returncode == 13
    assert "torch is not installed in" in done.stdout
    assert "pip install" in done.stdout


def test_a_name_that_is_nearly_right(empty: Path, site: Path, tmp_path: Path) -> None:
    install(site, "flash_attn", "2.8.3", {"flash_attn/__init__.py": b""})
    done = run("flash-atnn", "--python", str(empty), folder=tmp_path)
    assert done.returncode == 13
    assert "fatwheel check flash-attn" in done.stdout


def test_a_folder_here_that_hides_it(empty: Path, site: Path, tmp_path: Path) -> None:
    install(site, "demo", "1.0", {"demo/__init__.py": b""})
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "__init__.py").write_text("raise ImportError('the checkout')\n")
    document = report(run("demo", "--python", str(empty), "--json", folder=tmp_path))
    assert document["verdict"]["cause"] == "installed"
    assert "the current folder" in document["verdict"]["what"]


def test_a_wheel_for_another_python(empty: Path, site: Path, tmp_path: Path) -> None:
    """Nothing besides is said of its libraries, which nobody here loads."""
    files = {"demo/_C.pyd": peimages.importing(["torch_cpu.dll", "gone.dll"])}
    path = Draft(tag="cp39-cp39-win_amd64", files=files).write(tmp_path)
    document = report(run(str(path), "--python", str(empty), "--json", folder=tmp_path))
    assert document["kind"] == "wheel"
    assert [one["cause"] for one in document["findings"]] == ["python"]
    assert document["import"] is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["none.whl"], 2),
        (["./none"], 2),
        (["text-1.0-py3-none-any.whl"], 11),
        (["https://"], 2),
        (["file:///etc"], 2),
        (["http://127.0.0.1:9/simple/x/"], 4),
        (["demo", "--python", "none"], 2),
        (["demo", "--python", "text-1.0-py3-none-any.whl"], 2),
        (["demo", "--seconds", "soon"], 2),
        (["$(id)\x1b[31m"], 13),
        (["../../etc/passwd"], 2),
    ],
)
def test_bad_input_is_one_message(words: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "text-1.0-py3-none-any.whl").write_text("no wheel")
    done = run(*words, folder=tmp_path, variables={"PIP_RETRIES": "0"})
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_hostile_names_in_an_environment(empty: Path, site: Path, tmp_path: Path) -> None:
    metadata = "Requires-Dist: torch==1.0\x1b[31m\nSummary: \x1b]0;x\x07\n"
    info = install(site, "demo", "1.0", {"demo/__init__.py": b"raise ImportError('\\x1b[2J')"},
                   metadata=metadata)  # fmt: skip
    (info / "top_level.txt").write_text("demo\n--help\n$(id)\n../x\n")
    install_torch(site, "2.11.0", "13.0")
    done = run("demo", "--python", str(empty), "--all", folder=tmp_path)
    assert done.returncode == 13
    assert "\x1b" not in done.stdout + done.stderr
    assert "$(id)" not in done.stdout


def test_it_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    """Other commands' libraries take longer to import than it takes to run."""
    code = "import sys; from fatwheel.check import report; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"docker", "pydantic", "rich", "httpx2", "unearth", "psutil", "cryptography", "jinja2",
             "zstandard", "lz4", "torch", "invoke", "urllib3"}  # fmt: skip
    assert not heavy & tops
