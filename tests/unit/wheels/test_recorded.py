"""RECORD as it is read, and files as they are hashed; test_verify_report has whole wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import time
import tracemalloc
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.errors import FormatError
from fatwheel.wheels import recorded
from fatwheel.wheels.recorded import Record, Watched, check_record, mistakes_of, read_record

PATH = "demo-1.0.dist-info/RECORD"


def told(record: Record, files: Mapping[str, bytes]) -> list[tuple[bool, str, str]]:
    """Whether it is grave, place and words of all that is found."""
    watched = {}
    for name, data in files.items():
        watched[name] = record.watch(name)
        watched[name].update(data[:1])
        watched[name].update(data[1:])
    watched[PATH] = Watched("sha256")
    return [(one.grave, one.where, one.what) for one in mistakes_of(record, watched)]


def line(name: str, data: bytes, algorithm: str = "sha256", padding: str = "") -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode().rstrip("=")
    return f"{name},{algorithm}={digest}{padding},{len(data)}\n"


@pytest.mark.parametrize(
    "algorithm", ["sha256", "sha384", "sha512", "sha3_256", "sha3_512", "blake2b"]
)
def test_strong_hashes_are_compared(algorithm: str) -> None:
    record = read_record(PATH, (line("a", b"content", algorithm) + f"{PATH},,\n").encode())
    assert told(record, {"a": b"content"}) == []
    [(grave, place, words)] = told(record, {"a": b"Content"})
    assert (grave, place) == (True, "a")
    assert words == f"its {algorithm} is not the one in RECORD"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "shake_128", "MD5", "", "sha256 "])
def test_weak_and_strange_hashes_prove_nothing(algorithm: str) -> None:
    record = read_record(PATH, f"a,{algorithm}=AAAA,7\n{PATH},,\n".encode())
    [(grave, place, words)] = told(record, {"a": b"content"})
    assert (grave, place) == (True, "a")
    assert repr(algorithm) in words


def test_a_padded_hash_is_the_same_hash() -> None:
    record = read_record(PATH, (line("a", b"content", padding="=") + f"{PATH},,\n").encode())
    assert told(record, {"a": b"content"}) == []


def test_bytes_that_are_no_text() -> None:
    [mistake] = read_record(PATH, b"a,\xff,\n").mistakes
    assert (mistake.grave, mistake.what) == (True, "it is not UTF-8: byte 2")


def test_signatures_are_not_in_record() -> None:
    record = read_record(PATH, f"{PATH},,\n".encode())
    files = dict.fromkeys((PATH, f"{PATH}.jws", f"{PATH}.p7s", f"{PATH}.sig"), Watched("sha256"))
    [mistake] = mistakes_of(record, files)
    assert (mistake.where, mistake.what) == (f"{PATH}.sig", "it is not in RECORD")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)


@given(st.dictionaries(NAMES, st.binary(max_size=9), max_size=5))
def test_any_names_can_be_recorded(files: dict[str, bytes]) -> None:
    """Commas and quotes too, as the standard library's own writer quotes them."""
    text = io.StringIO(newline="")
    rows = [[name, *line("", data).rstrip("\n").split(",")[1:]] for name, data in files.items()]
    csv.writer(text).writerows([*rows, [PATH, "", ""]])
    record = read_record(PATH, text.getvalue().encode())
    assert told(record, files) == []


def test_all_grave_mistakes_are_refused_at_once() -> None:
    text = "".join(f"missing{number},sha256=AAAA,1\n" for number in range(20))
    record = read_record(PATH, (line("a", b"content") + text + f"{PATH},,\n").encode())
    with pytest.raises(FormatError, match="not those that its RECORD lists") as caught:
        check_record(record, {"a": Watched("sha256"), PATH: Watched("sha256")})
    assert caught.value.where == PATH
    assert len(caught.value.details) == 13
    assert caught.value.details[-1] == "... and 10 more"  # 20 missing; hash and size of a


def test_what_is_only_missing_in_record_is_not_refused() -> None:
    watched = Watched("sha256")
    watched.update(b"content")
    without_size = line("a", b"content").rpartition(",")[0] + ",\n"
    check_record(read_record(PATH, without_size.encode()), {"a": watched, PATH: watched})


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake2b"])
def test_sha256_is_there_whatever_record_has(algorithm: str) -> None:
    """Statements about files name them by it."""
    watched = Watched(algorithm)
    watched.update(b"con")
    watched.update(b"tent")
    assert watched.sha256 == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a\n" * 200_000, "read up to line 1000 only"),
        (b"".join(b"%d,,\n" % n for n in range(50_000)), "read up to line 20001 only"),
        (b"\n" * 100_000, "read up to line 20001 only"),
        (b"a" * (3 << 20), "field larger than field limit"),
        (b'"' + b"a\n" * (1 << 20), "field larger than field limit"),
        (b"," * (1 << 20), "parts, not three"),
    ],
    ids=["no rows", "more rows than files", "empty lines", "a long line", "open quotes", "commas"],
)
def test_a_large_record_takes_no_time_and_little_memory(
    monkeypatch: pytest.MonkeyPatch, data: bytes, says: str
) -> None:
    monkeypatch.setattr(recorded, "MAX_ROWS", 20_000)
    start = time.process_time()
    tracemalloc.start()
    record = read_record(PATH, data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert says in record.mistakes[-1].what
    assert most < 100 << 20
    assert time.process_time() - start < 10
