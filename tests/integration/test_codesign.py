"""`invoke codesign` with a real signing tool, osslsigncode, and a certificate made for the test."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import lief
import pytest

from fatwheel.edit.codesign import codesign
from fatwheel.errors import FatwheelError, ToolchainError, UsageError
from fatwheel.provenance.statement import EDIT
from fatwheel.verify.report import verify_wheel

from ..helpers import deviceimages, peimages, statedwheels
from ..helpers.schemas import schema_of

pytestmark = pytest.mark.slow

SOURCE = "__declspec(dllexport) int answer(void) { return 42; }\n"
TAG = "cp311-cp311-win_amd64"


@dataclass(frozen=True)
class Signer:
    """osslsigncode with a key and a certificate of its own."""

    program: str
    folder: Path

    @property
    def command(self) -> list[str]:
        """Signs a file in its place, as signtool does; osslsigncode itself writes another."""
        script = "import os, subprocess, sys; name = sys.argv[-1]; new = name + '.new'; "
        script += "subprocess.run([*sys.argv[1:-1], '-in', name, '-out', new], check=True); "
        script += "os.replace(new, name)"
        keys = ["-certs", str(self.folder / "cert.pem"), "-key", str(self.folder / "key.pem")]
        return [sys.executable, "-c", script, self.program, "sign", *keys, "-h", "sha256"]

    def is_valid(self, library: Path) -> bool:
        cert = str(self.folder / "cert.pem")
        done = subprocess.run(
            [self.program, "verify", "-CAfile", cert, "-in", str(library)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode == 0 and "Signature verification: ok" in done.stdout


@pytest.fixture(scope="module")
def signer(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Signer:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(
        [tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=Somebody", "-addext", "extendedKeyUsage=codeSigning",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return Signer(tool("osslsigncode"), folder)


@pytest.fixture(scope="module")
def library(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("library")
    (folder / "a.c").write_text(SOURCE)
    gcc = tool("x86_64-w64-mingw32-gcc")
    subprocess.run([gcc, "-shared", "a.c", "-o", "a.dll"], cwd=folder, check=True)
    return (folder / "a.dll").read_bytes()


def signed_by(signer: Signer, data: bytes, folder: Path) -> bytes:
    """A library as its publisher signs it."""
    folder.mkdir()
    path = folder / "theirs.dll"
    path.write_bytes(data)
    subprocess.run([*signer.command, str(path)], check=True, capture_output=True)
    return path.read_bytes()


def test_each_library_is_signed_once(signer: Signer, library: bytes, tmp_path: Path) -> None:
    device = peimages.library(peimages.entries((80, b"code"))).write()
    theirs = signed_by(signer, library, tmp_path / "theirs")
    files = {"demo/a.dll": library, "demo/b.pyd": device, "demo/t.dll": theirs, "demo/x.py": b""}
    wheel = deviceimages.write_wheel(tmp_path, files, tag=TAG)
    made = codesign(wheel, signer.command, tmp_path / "out")
    assert made.path == tmp_path / "out" / wheel.name
    assert made.archs == ("sm80",)
    assert made.notes == ("demo/t.dll: it was left as it is, since it has a signature already",)
    after = deviceimages.read_wheel(made.path)
    assert after["demo/t.dll"] == theirs
    for name in ("demo/a.dll", "demo/b.pyd"):
        path = tmp_path / Path(name).name
        path.write_bytes(after[name])
        assert signer.is_valid(path), f"{name} has no valid signature"
        signed, before = (lief.PE.parse(list(data)) for data in (after[name], files[name]))
        assert isinstance(signed, lief.PE.Binary)
        assert isinstance(before, lief.PE.Binary)
        assert [bytes(one.content) for one in signed.sections] == [
            bytes(one.content) for one in before.sections
        ]


def test_a_built_wheel_still_proves_itself(signer: Signer, library: bytes, tmp_path: Path) -> None:
    """Its new statement is over the signed library, and says that the wheel was edited."""
    files = {**statedwheels.demo_files(), "demo/a.dll": library}
    statedwheels.state_again(files)
    wheel = statedwheels.write(tmp_path, files)
    made = codesign(wheel, signer.command, tmp_path / "out")
    after = deviceimages.read_wheel(made.path)
    assert after[statedwheels.LOCK] == files[statedwheels.LOCK]
    statement = json.loads(after[statedwheels.STATEMENT])
    subjects = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    assert subjects["demo/a.dll"] == hashlib.sha256(after["demo/a.dll"]).hexdigest()
    assert statement["predicate"]["buildDefinition"]["buildType"] == EDIT
    [check] = [one for one in verify_wheel(made.path).checks if one.name == "provenance"]
    assert not [one.what for one in check.findings if one.severity == "error"]


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("pass", "ended well and signed nothing"),
        ("print('no such certificate'); sys.exit(3)", "failed with exit code 3 for demo/a.dll"),
        ("data[700] ^= 1; signature()", "changed more of it than the signature"),
        ("data += b'more'", "signed nothing"),
        ("signature(); data += b'more'", "changed more of it than the signature"),
        ("data[:] = b''", "left something that is no library"),
        ("data[:] = b'MZ' + bytes(900)", "left something that is no library"),
    ],
)
def test_a_tool_that_does_something_else(
    library: bytes, tmp_path: Path, code: str, complaint: str
) -> None:
    wheel = deviceimages.write_wheel(tmp_path, {"demo/a.dll": library}, tag=TAG)
    program = tmp_path / "tool.py"
    program.write_text(TOOL.format(code=code))
    with pytest.raises(ToolchainError, match=complaint):
        codesign(wheel, [sys.executable, str(program), "{}"], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")), "something was left behind"


def test_names_in_a_wheel_reach_no_command(library: bytes, tmp_path: Path) -> None:
    """A tool may be a batch file or a script of the shell, which would run what a name says."""
    files = {"demo/a$(touch pwned).pyd": library, "demo/b&touch pwned&.so": library}
    wheel = deviceimages.write_wheel(tmp_path, files, tag=TAG)
    program = tmp_path / "tool.py"
    program.write_text(TOOL.format(code="signature(); print(path, file=open('seen', 'a'))"))
    command = ["sh", "-c", f"cd {tmp_path} && {sys.executable} {program} {{}}"]
    codesign(wheel, command, tmp_path / "out")
    assert not (tmp_path / "pwned").exists()
    seen = [Path(line).name for line in (tmp_path / "seen").read_text().splitlines()]
    assert sorted(seen) == ["library.dll", "library.pyd"]


# Writes a signature that nobody has made, which is enough to tell what else was changed.
TOOL = """
import struct, sys
path = sys.argv[1]
data = bytearray(open(path, "rb").read())
def signature():
    data.extend(bytes(-len(data) % 8))
    entry = struct.unpack_from("<I", data, 60)[0] + 24 + 112 + 4 * 8
    struct.pack_into("<II", data, entry, len(data), 16)
    data.extend(struct.pack("<IHH8x", 16, 0x200, 2))
{code}
open(path, "wb").write(data)
"""


def test_what_cannot_be_signed(library: bytes, tmp_path: Path) -> None:
    linux = deviceimages.write_wheel(tmp_path, {"demo/a.py": b""})
    windows = deviceimages.write_wheel(tmp_path, {"demo/a.dll": library}, tag=TAG)
    refused: list[tuple[Path, list[str], Path, str]] = [
        (linux, ["true"], tmp_path / "out", "it has no library or program for Windows"),
        (windows, ["/no/such/tool"], tmp_path / "out", "cannot start it: No such file"),
        (windows, ["true"], tmp_path, "would replace the file that it is made from"),
        (tmp_path / "absent.whl", ["true"], tmp_path / "out", "absent.whl"),
    ]
    for wheel, command, out, complaint in refused:
        with pytest.raises(FatwheelError) as caught:
            codesign(wheel, command, out)
        assert complaint in f"{caught.value}", f"{wheel.name} with {command}"


def test_the_command(signer: Signer, library: bytes, tmp_path: Path) -> None:
    """Words of --sign-tool are split as a shell does."""
    wheel = deviceimages.write_wheel(tmp_path, {"demo/a.dll": library}, tag=TAG)
    command = [sys.executable, "-m", "fatwheel", "codesign", wheel.name, "--json"]
    asked = [*command, "--sign-tool", shlex.join(signer.command)]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    jsonschema.validate(told, schema_of("edited"))
    assert told["file"] == str(Path("signed", wheel.name))
    for words, complaint in (([], "which command? --sign-tool"), (["--sign-tool", "a 'b"], "quot")):
        done = subprocess.run(
            [*command, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == UsageError.exit_code, done.stderr
        assert complaint in done.stderr
