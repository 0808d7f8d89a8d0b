"""Commands of gcc less run-time search paths; what ld makes of them is tried in test_build_shim."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.compilers.hosts import without_rpaths

HOMES = ["/home/me/python/lib", "/cache/env"]
OURS = "/home/me/python/lib"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (f"-Wl,-rpath,{OURS}", ""),
        (f"-Wl,-rpath={OURS}", ""),
        (f"-Wl,--rpath={OURS}/", ""),
        (f"-Wl,-R,{OURS}", ""),
        (f"-Wl,-R{OURS}", ""),
        (f"-Wl,-rpath -Wl,{OURS}", ""),
        (f"-Xlinker -rpath -Xlinker {OURS}", ""),
        (f"-Xlinker -rpath={OURS}", ""),
        ("-Wl,-rpath,/cache/env/site/torch/lib", ""),
        ("-Wl,-rpath,/cache/elsewhere/../env", ""),
        (f"-shared -Wl,-rpath,{OURS} a.o -L{OURS}", f"-shared a.o -L{OURS}"),
        # What else the same argument says stays.
        (f"-Wl,-O1,-rpath,{OURS},-z,now", "-Xlinker -O1 -Xlinker -z -Xlinker now"),
        ("-Wl,-rpath,/cache/env:$ORIGIN", "-Xlinker -rpath=$ORIGIN"),
    ],
)
def test_folders_of_the_build_are_left_out(words: str, left: str) -> None:
    assert without_rpaths(words.split(), HOMES) == left.split()


@pytest.mark.parametrize(
    "words",
    [
        "-Wl,-rpath,$ORIGIN/../lib",
        "-Wl,-rpath,/usr/local/cuda/lib64",
        "-Wl,-rpath,/cache/environment",
        f"-Wl,-rpath-link,{OURS}",
        f"-Wl,-L,{OURS}",
        "-Wl,--enable-new-dtags,-rpath,/opt/lib -Wl,-Bsymbolic -O2",
        "-Wl,-rpath",
        "-Xlinker",
        "-Wl,--version-script,x.map -Xlinker -z -Xlinker defs -o a.so",
    ],
)
def test_all_else_stays_as_it_is(words: str) -> None:
    assert without_rpaths(words.split(), HOMES) == words.split()


def test_a_folder_counts_by_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "link").symlink_to("env")
    assert without_rpaths([f"-Wl,-rpath,{tmp_path}/link/lib"], [f"{tmp_path}/env"]) == []


def test_a_link_of_cmakes_has_one_path_of_steady_length() -> None:
    """CMake looks for its own path in the library, from one colon to the next."""
    found = []
    for home in ("/env", "/a/much/longer/place/for/the/same/env"):
        path = f"{home}/torch/lib:{home}/cuda/lib::::"
        words = ["-shared", "CMakeFiles/x.dir/a.o", f"-Wl,-rpath,{path}", "-Wl,-z,now", "-lx"]
        linked = without_rpaths(words, [home])
        assert linked[:2] == ["-shared", "CMakeFiles/x.dir/a.o"]
        assert linked[-1] == "-lx"
        [option] = [word for word in linked if word.startswith("-rpath=")]
        assert option.startswith(f"-rpath={path}:")
        found.append(len(option))
    assert found[0] == found[1] == len("-rpath=") + 4096


def test_a_link_of_cmakes_without_such_folders_stays_as_it_is() -> None:
    words = ["-shared", "CMakeFiles/x.dir/a.o", "-Wl,-rpath,$ORIGIN:/opt/lib", "-lx"]
    assert without_rpaths(words, ["/env"]) == words
