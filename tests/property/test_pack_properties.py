"""Whatever a wheel holds, repacking keeps it, and `installer` finds RECORD right."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from installer.sources import WheelFile

from fatwheel.wheels.name import parse_wheel_name
from fatwheel.wheels.pack import digest_of_contents, repack

FOLDER = "demo-1.0.dist-info"
NEW_FOLDER = "demo-1.0+cu130.dist-info"
OWN = {
    f"{FOLDER}/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    f"{FOLDER}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
    f"{FOLDER}/RECORD": b"",
}

# What Windows cannot have is refused by the reader.
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
PART = st.text(
    st.characters(codec="utf-8", exclude_characters='/\\:<>"|?*', exclude_categories=["C", "Z"])
    | st.sampled_from(" ,'-"),
    min_size=1,
    max_size=8,
).filter(lambda part: part[-1] not in ". " and part.lower().split(".")[0].strip() not in DEVICES)
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)
DATA = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda block, count: block * count, st.binary(max_size=40), st.integers(0, 60_000)),
)
MEMBER = st.tuples(DATA, st.integers(0, 0o777))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAME, MEMBER, max_size=6), st.randoms(use_true_random=False))
def test_repacking_keeps_everything(files: dict[str, tuple[bytes, int]], chance) -> None:  # type: ignore[no-untyped-def]
    names = {name.lower() for name in (*files, *OWN)}
    assume(len(names) == len(files) + len(OWN))
    assume(not any(a != b and b.startswith(a + "/") for a in names for b in names))
    assume(not any(name.partition("/")[0].endswith(".dist-info") for name in files))
    members = [*files.items(), *((name, (data, 0o600)) for name, data in OWN.items())]
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        for order in ("first", "second"):
            chance.shuffle(members)
            wheel = Path(folder) / order / "demo-1.0-py3-none-any.whl"
            wheel.parent.mkdir()
            with zipfile.ZipFile(wheel, "w") as archive:
                for name, (data, permissions) in members:
                    info = zipfile.ZipInfo(name)
                    info.external_attr = (stat.S_IFREG | permissions) << 16
                    archive.writestr(info, data)
            new = parse_wheel_name(wheel.name).labelled("cu130")
            made = repack(wheel, wheel.parent, new, extra_files={"x": b"x"}, epoch=1 << 30)
            digests.add(made.read_bytes())
            assert_kept(made, files)
        assert len(digests) == 1, "the order of upstream's members shows in the wheel"
        assert len(digest_of_contents(made)) == 64


def assert_kept(made: Path, files: dict[str, tuple[bytes, int]]) -> None:
    with WheelFile.open(made) as wheel:
        wheel.validate_record(validate_contents=True)
    with zipfile.ZipFile(made) as archive:
        found = {info.filename: info for info in archive.infolist()}
        own = {f"{NEW_FOLDER}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "x")}
        assert set(found) == set(files) | own
        for name, (data, permissions) in files.items():
            assert archive.read(name) == data
            expected = 0o755 if permissions & stat.S_IXUSR else 0o644
            assert found[name].external_attr >> 16 == stat.S_IFREG | expected
