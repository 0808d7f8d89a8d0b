"""METADATA and WHEEL, against the standard library's mail parser; which modules a wheel offers;
RECORD as it is read, and files as they are hashed. Whole wheels are in
tests/unit/verify/test_report.py.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import email.policy
import hashlib
import io
import time
import tracemalloc
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.errors import FormatError
from fatwheel.wheels import metadata
from fatwheel.wheels.metadata import (
    Digester,
    RecordFile,
    check_record,
    expand_tags,
    field,
    fields,
    mistakes_of,
    name_disagreement,
    read_record,
    set_version,
    tag_disagreement,
    top_modules,
)
from fatwheel.wheels.name import parse_wheel_name

METADATA = (
    "Metadata-Version: 2.1\n"
    "Name: flash-attn\n"
    "Version: 2.3.6\n"
    "Summary: schnell, größer\n"
    "Classifier: A\n"
    "Classifier: B\n"
    "Description: old style\n"
    "        \n"
    "        Version: 9.9 is not a field\n"
    "\n"
    "Version: 8.8 is not a field either\n"
).encode()


def test_fields_are_read() -> None:
    assert fields(METADATA, "classifier") == ["A", "B"]
    assert field(METADATA, "Summary", "METADATA") == "schnell, größer"
    assert fields(METADATA, "Version") == ["2.3.6"]
    assert fields(METADATA, "Nothing") == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_only_the_version_changes(end: bytes) -> None:
    metadata = METADATA.replace(b"\n", end)
    changed = set_version(metadata, "2.3.6+cu130")
    assert changed == metadata.replace(b"Version: 2.3.6", b"Version: 2.3.6+cu130")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b"Version:1\nName: x\n", b"Version: 2\nName: x\n"),
        (b"Name: x\nVERSION:   1", b"Name: x\nVERSION: 2"),
        (b"Version:\n 1\nName: x\n", b"Version: 2\nName: x\n"),
        (b"Name: \xff\xfe\nVersion: 1\n\n\xff", b"Name: \xff\xfe\nVersion: 2\n\n\xff"),
    ],
)
def test_odd_spellings_of_the_field(metadata: bytes, expected: bytes) -> None:
    assert set_version(metadata, "2") == expected


@pytest.mark.parametrize(
    ("metadata", "count"),
    [(b"", "no"), (b"Name: x\n\nVersion: 1\n", "no"), (b"Version: 1\nVersion: 1\n", "2"),
     (b"\nVersion: 1\n", "no")],
)  # fmt: skip
def test_a_version_that_is_not_there_once(metadata: bytes, count: str) -> None:
    with pytest.raises(FormatError, match=f"{count} Version fields") as caught:
        set_version(metadata, "2")
    assert "METADATA" in str(caught.value)


LINE_ENDS = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
LINE = st.text(st.characters(codec="utf-8", exclude_characters=LINE_ENDS), max_size=20)
NAME = st.sampled_from(["Name", "Version", "Summary", "version", "Tag", "Description"])
FIELD = st.builds("{}: {}".format, NAME, LINE)
CONTINUATION = LINE.map(lambda line: "        " + line)


@given(st.lists(st.one_of(FIELD, CONTINUATION), max_size=8), st.lists(LINE, max_size=4))
def test_fields_are_those_of_a_mail_parser(head: list[str], body: list[str]) -> None:
    lines = ["Metadata-Version: 2.1", *head, "", *body]
    text = "\n".join(lines)
    parsed = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(text)
    for name in ("Name", "Version", "Tag", "Description"):
        expected = [value.strip() for value in parsed.get_all(name, [])]
        assert fields(text.encode(), name) == expected


WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n"
GOOD_NAME = "flash_attn-2.3.6-cp310-cp310-linux_x86_64.whl"


def test_a_wheel_that_agrees() -> None:
    name = parse_wheel_name(GOOD_NAME)
    assert name_disagreement(name, "flash_attn-2.3.6.dist-info", METADATA) is None
    spelled = METADATA.replace(b"flash-attn", b"Flash.Attn").replace(b" 2.3.6", b" v2.3.6")
    assert name_disagreement(name, "Flash_Attn-2.3.6.dist-info", spelled) is None
    longer = METADATA.replace(b" 2.3.6", b" 2.3.6.0")
    assert name_disagreement(name, "flash_attn-2.3.6.dist-info", longer) is None
    assert tag_disagreement(name, WHEEL) is None


@pytest.mark.parametrize(
    ("name", "folder", "metadata", "said"),
    [
        (GOOD_NAME.replace("2.3.6", "2.3.7"), "flash_attn-2.3.6", METADATA, "file name says"),
        (GOOD_NAME, "flash_attn-2.3.7", METADATA, "the folder says flash_attn 2.3.7"),
        (GOOD_NAME, "flash_attn-2.3.6", METADATA.replace(b" 2.3.6", b" 2.3.6+cu1"), "2.3.6+cu1"),
        (GOOD_NAME, "flash_attn-2.3.6", METADATA.replace(b"-attn", b"-atn"), "flash-atn"),
    ],
)
def test_names_that_contradict(name: str, folder: str, metadata: bytes, said: str) -> None:
    found = name_disagreement(parse_wheel_name(name), f"{folder}.dist-info", metadata)
    assert found is not None, "nothing was found to disagree"
    assert found.what == "the wheel's names do not agree"
    assert said in str(found)


def test_tags_that_contradict() -> None:
    name = parse_wheel_name(GOOD_NAME.replace("linux_x86_64", "win_amd64"))
    found = tag_disagreement(name, WHEEL)
    assert found is not None, "nothing was found to disagree"
    assert "win_amd64" in str(found)
    assert "linux_x86_64" in str(found)


def test_compressed_tags_agree_with_single_ones() -> None:
    assert set(expand_tags(["py2.py3-none-any"])) == {"py2-none-any", "py3-none-any"}
    assert set(expand_tags(["nonsense"])) == {"nonsense"}


def test_tags_without_end_are_refused() -> None:
    """A line of 6 KB that would stand for a thousand million tags."""
    many = ".".join(["x"] * 1000)
    with pytest.raises(FormatError, match="more than 1000"):
        list(expand_tags([f"{many}-{many}-{many}"]))


def test_a_lone_carriage_return_ends_a_line_as_for_installers() -> None:
    metadata = b"Name: one\rName: two\r\nVersion: 1\r \r 2\n\r\nVersion: 3"
    message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(metadata)
    assert fields(metadata, "Name") == message.get_all("Name") == ["one", "two"]
    assert len(fields(metadata, "Version")) == len(message.get_all("Version") or []) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        b"Name: x\n" + b"A: b\n" * 200_000,
        b"Name: " + b"x" * (3 << 20),
        b"Name: x" + b"\n y" * 500_000,
        b"x" * (3 << 20),
        b"\r" * (3 << 20),
    ],
    ids=["many fields", "a long line", "long continued", "no field", "no line"],
)
def test_a_large_file_takes_no_time_and_little_memory(metadata: bytes) -> None:
    start = time.process_time()
    tracemalloc.start()
    try:
        field(metadata, "Name", "METADATA")
    except FormatError:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 20 << 20
    assert time.process_time() - start < 10


def test_more_fields_than_any_file_has_are_refused() -> None:
    with pytest.raises(FormatError, match="more than 20000 fields"):
        fields(b"Tag: a-b-c\n" * 20_001, "Tag")


@pytest.mark.parametrize(
    ("files", "listed", "expected"),
    [
        (["b/__init__.py", "a/__init__.py", "a/x/__init__.py"], "", ("a", "b")),
        (["a/__init__.py", "_C.cpython-311-x86_64-linux-gnu.so"], "", ("a", "_C")),
        (["one.py", "two.abi3.so", "three.so"], "", ("one", "three", "two")),
        (["a/b.py", "a-1.dist-info/METADATA", "a.libs/libx-1.so", "b.txt"], "", ()),
        (["a/__init__.py", "a.py"], "", ("a",)),
        (["a/__init__.py", "tests/__init__.py"], "", ("a",)),
        (["a/__init__.py", "b/__init__.py"], "a\n", ("a",)),
        (["a/__init__.py"], "other\n", ("a",)),
        (["a.cp311-win_amd64.pyd", "b.pyd"], "", ("a", "b")),
    ],
)
def test_top_modules(files: list[str], listed: str, expected: tuple[str, ...]) -> None:
    assert top_modules(files, listed) == expected


PATH = "demo-1.0.dist-info/RECORD"


def told(record: RecordFile, files: Mapping[str, bytes]) -> list[tuple[bool, str, str]]:
    """Whether it is grave, place and words of all that is found."""
    watched = {}
    for name, data in files.items():
        watched[name] = record.watch(name)
        watched[name].update(data[:1])
        watched[name].update(data[1:])
    watched[PATH] = Digester("sha256")
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
    files = dict.fromkeys((PATH, f"{PATH}.jws", f"{PATH}.p7s", f"{PATH}.sig"), Digester("sha256"))
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
        check_record(record, {"a": Digester("sha256"), PATH: Digester("sha256")})
    assert caught.value.where == PATH
    assert len(caught.value.details) == 13
    assert caught.value.details[-1] == "... and 10 more"  # 20 missing; hash and size of a


def test_what_is_only_missing_in_record_is_not_refused() -> None:
    watched = Digester("sha256")
    watched.update(b"content")
    without_size = line("a", b"content").rpartition(",")[0] + ",\n"
    check_record(read_record(PATH, without_size.encode()), {"a": watched, PATH: watched})


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake2b"])
def test_sha256_is_there_whatever_record_has(algorithm: str) -> None:
    """Statements about files name them by it."""
    watched = Digester(algorithm)
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
    monkeypatch.setattr(metadata, "MAX_ROWS", 20_000)
    start = time.process_time()
    tracemalloc.start()
    record = read_record(PATH, data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert says in record.mistakes[-1].what
    assert most < 100 << 20
    assert time.process_time() - start < 10
