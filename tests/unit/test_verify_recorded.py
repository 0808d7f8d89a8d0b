"""RECORD as it is read, and files as they are hashed; test_verify_report spoils whole wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.verify.recorded import Record, Watched, read_record, record_findings

PATH = "demo-1.0.dist-info/RECORD"


def told(record: Record, files: Mapping[str, bytes]) -> list[tuple[str, str, str]]:
    """Severity, place and words of all that is found."""
    watched = {}
    for name, data in files.items():
        watched[name] = record.watch(name)
        watched[name].update(data[:1])
        watched[name].update(data[1:])
    watched[PATH] = Watched("sha256")
    return [(one.severity, one.where, one.what) for one in record_findings(record, watched)]


def line(name: str, data: bytes, algorithm: str = "sha256", padding: str = "") -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode().rstrip("=")
    return f"{name},{algorithm}={digest}{padding},{len(data)}\n"


@pytest.mark.parametrize(
    "algorithm", ["sha256", "sha384", "sha512", "sha3_256", "sha3_512", "blake2b"]
)
def test_strong_hashes_are_compared(algorithm: str) -> None:
    record = read_record(PATH, (line("a", b"content", algorithm) + f"{PATH},,\n").encode())
    assert told(record, {"a": b"content"}) == []
    [(severity, place, words)] = told(record, {"a": b"Content"})
    assert (severity, place) == ("wrong", "a")
    assert words == f"its {algorithm} is not the one in RECORD"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "shake_128", "MD5", "", "sha256 "])
def test_weak_and_strange_hashes_prove_nothing(algorithm: str) -> None:
    record = read_record(PATH, f"a,{algorithm}=AAAA,7\n{PATH},,\n".encode())
    [(severity, place, words)] = told(record, {"a": b"content"})
    assert (severity, place) == ("wrong", "a")
    assert repr(algorithm) in words


def test_a_padded_hash_is_the_same_hash() -> None:
    record = read_record(PATH, (line("a", b"content", padding="=") + f"{PATH},,\n").encode())
    assert told(record, {"a": b"content"}) == []


def test_bytes_that_are_no_text() -> None:
    [mistake] = read_record(PATH, b"a,\xff,\n").mistakes
    assert (mistake.severity, mistake.what) == ("wrong", "it is not UTF-8: byte 2")


def test_signatures_are_not_in_record() -> None:
    record = read_record(PATH, f"{PATH},,\n".encode())
    files = dict.fromkeys((PATH, f"{PATH}.jws", f"{PATH}.p7s", f"{PATH}.sig"), Watched("sha256"))
    [finding] = record_findings(record, files)
    assert (finding.where, finding.what) == (f"{PATH}.sig", "it is not in RECORD")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)


@given(st.dictionaries(NAMES, st.binary(max_size=9), max_size=5))
def test_any_names_can_be_recorded(files: dict[str, bytes]) -> None:
    """Commas and quotes too, as the standard library's own writer quotes them."""
    text = io.StringIO(newline="")
    rows = [[name, *line("", data).rstrip("\n").split(",")[1:]] for name, data in files.items()]
    csv.writer(text).writerows([*rows, [PATH, "", ""]])
    record = read_record(PATH, text.getvalue().encode())
    assert told(record, files) == []
