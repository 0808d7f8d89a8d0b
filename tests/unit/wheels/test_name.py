"""Wheel file names, versions and their labels, against the `packaging` library."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from fatwheel.arch import Arch, ArchRequest, parse_arch
from fatwheel.errors import FormatError
from fatwheel.wheels.name import (
    Source,
    WheelName,
    arch_labels,
    canonical_project,
    canonical_version,
    escape_project,
    library_modules,
    parse_any_name,
    parse_wheel_name,
    version_label,
    with_archs,
    with_local,
    without_archs,
)

REAL = [
    "flash_attn-2.3.6-cp310-cp310-win_amd64.whl",
    "flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89-cp310-cp310-win_amd64.whl",
    "numpy-2.1.0-cp313-cp313t-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "six-1.16.0-py2.py3-none-any.whl",
    "zope.interface-7.0-cp38-cp38-macosx_10_9_x86_64.whl",
    "torch-2.1.1+cu121-3-cp310-cp310-win_amd64.whl",
    "pkg-1!2.0.post1-2b-py3-none-any.whl",
]


@pytest.mark.parametrize("filename", REAL)
def test_real_names_read_as_packaging_reads_them(filename: str) -> None:
    name = parse_wheel_name(filename)
    project, version, build, tags = parse_wheel_filename(filename)
    assert canonical_project(name.project) == project
    assert canonical_version(name.version) == str(version)
    assert name.build == "".join(map(str, build))
    assert name.tags == {str(tag) for tag in tags}
    assert name.filename == filename


@pytest.mark.parametrize("filename", REAL)
@pytest.mark.parametrize("label", ["cu120_sm80", "80", "x86_64.v3"])
def test_the_name_of_a_variant_has_a_label_at_its_end(filename: str, label: str) -> None:
    """PEP 825, "Variant label". Tools that know no variants must refuse it, as packaging does."""
    assert parse_any_name(filename) == parse_wheel_name(filename)
    variant = filename.replace(".whl", f"-{label}.whl")
    name = parse_any_name(variant)
    assert (name.variant, name.filename) == (label, variant)
    assert replace(name, variant="") == parse_wheel_name(filename)
    with pytest.raises(FormatError, match="it is a variant wheel"):
        parse_wheel_name(variant)
    with pytest.raises(InvalidWheelFilename):
        parse_wheel_filename(variant)


@pytest.mark.parametrize("label", ["", "A", "a-b", "a b", "a/b", "a\n", "\u0661"])
def test_what_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(FormatError):
        parse_any_name(f"demo-1.0-cp311-cp311-linux_x86_64-{label}.whl")


@pytest.mark.parametrize(
    "filename",
    [
        "",
        ".whl",
        "flash_attn.whl",
        "flash_attn-2.3.6-cp310-cp310-win_amd64.zip",
        "flash_attn-2.3.6-cp310-cp310-win_amd64.whl.part",
        "flash_attn-2.3.6-cp310-win_amd64.whl",
        "flash-attn-2.3.6-1-cp310-cp310-win_amd64.whl",
        "flash_attn-two-cp310-cp310-win_amd64.whl",
        "flash_attn-2.3.6-x-cp310-cp310-win_amd64.whl",
        "flash__attn!-2.3.6-cp310-cp310-win_amd64.whl",
        "flash_attn-2.3.6-cp310--win_amd64.whl",
        "../flash_attn-2.3.6-cp310-cp310-win_amd64.whl",
        "flash_attn-2.3.6 -cp310-cp310-win_amd64.whl",
    ],
)
def test_what_is_no_wheel_name_is_refused(filename: str) -> None:
    with pytest.raises(FormatError, match="not the name of a wheel") as caught:
        parse_wheel_name(filename)
    assert "PROJECT-VERSION-PYTHON-ABI-PLATFORM.whl" in str(caught.value)


@given(st.text(alphabet="aA1_.-+!whl ", max_size=30).map(lambda text: text + "-py3-none-any.whl"))
def test_nothing_is_accepted_that_packaging_refuses(filename: str) -> None:
    try:
        name = parse_wheel_name(filename)
    except FormatError:
        return
    project, version, _, tags = parse_wheel_filename(filename)
    assert canonical_project(name.project) == project
    assert canonical_version(name.version) == str(version)
    assert name.tags == {str(tag) for tag in tags}


LETTERS = st.sampled_from("abxyzAZ019._-")


@given(st.text(LETTERS, min_size=1, max_size=12))
def test_project_names_escape_as_the_specification_says(project: str) -> None:
    assert canonical_project(project) == canonicalize_name(project)
    assert escape_project(project) == canonicalize_name(project).replace("-", "_")


def spelled(*choices: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


NUMBER = st.integers(0, 2030).flatmap(lambda n: spelled(str(n), f"0{n}", f"00{n}"))
SEPARATOR = spelled("", ".", "-", "_")
VERSIONS = st.builds(
    "".join,
    st.tuples(
        spelled("", "v", "V"),
        st.one_of(st.just(""), NUMBER.map(lambda n: n + "!")),
        st.lists(NUMBER, min_size=1, max_size=4).map(".".join),
        st.one_of(
            st.just(""),
            st.builds(
                "{}{}{}{}".format,
                SEPARATOR,
                spelled("a", "Alpha", "b", "beta", "c", "RC", "pre", "preview"),
                SEPARATOR,
                st.one_of(st.just(""), NUMBER),
            ),
        ),
        st.one_of(
            st.just(""),
            NUMBER.map(lambda n: "-" + n),
            st.builds("{}post{}{}".format, SEPARATOR, SEPARATOR, NUMBER),
            st.builds("{}r{}".format, SEPARATOR, NUMBER),
        ),
        st.one_of(st.just(""), st.builds("{}dev{}".format, SEPARATOR, NUMBER)),
        st.one_of(st.just(""), spelled("+cu123torch2.1.sm80", "+CU-12_01.00", "+1", "+ubuntu.07")),
    ),
)


@given(st.one_of(VERSIONS, st.text("0123.+-_!abrcdevpost ", max_size=12)))
def test_versions_become_normal_as_packaging_makes_them(text: str) -> None:
    try:
        expected = str(Version(text))
    except InvalidVersion:
        with pytest.raises(FormatError, match="is not a version"):
            canonical_version(text)
    else:
        assert canonical_version(text) == expected


def test_a_version_of_endless_digits() -> None:
    with pytest.raises(FormatError, match="is not a version"):
        canonical_version("7" * 9000)


@pytest.mark.parametrize("text", ["1.0po\u017ft1", "1.0+\u212a", "\u0661.0"])
def test_a_version_is_ascii(text: str) -> None:
    with pytest.raises(FormatError, match="is not a version"):
        canonical_version(text)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.3.6", "2.3.6+cu130"), ("2.3.6+git1234", "2.3.6+cu130"), ("v1.0-rc.1", "1.0rc1+cu130")],
)
def test_a_local_version_replaces_the_old_one(version: str, expected: str) -> None:
    assert with_local(version, "cu130") == expected


@pytest.mark.parametrize("local", ["", "cu130+x", "a b", "ü", ".sm80"])
def test_an_impossible_local_version(local: str) -> None:
    with pytest.raises(FormatError, match="is not a version"):
        with_local("1.0", local)


def requests(*names: str) -> list[ArchRequest]:
    result = []
    for name in names:
        base, plus, _ = name.partition("+")
        digits = base.rstrip("af")
        result.append(ArchRequest(Arch(int(digits), base[len(digits) :]), ptx=bool(plus)))
    return result


@pytest.mark.parametrize(
    ("cuda", "torch", "archs", "label"),
    [
        ("12.3", "2.1.1", ["80", "86", "89"], "cu123torch2.1.sm80.sm86.sm89"),
        ("13.0", "2.11.0", ["80", "86", "89"], "cu130torch2.11.sm80.sm86.sm89"),
        ("13.0.88", "2.11", ["80+ptx"], "cu130torch2.11.sm80.ptx"),
        ("12.10", "3.0.0rc1", ["90a", "120f+ptx"], "cu1210torch3.0.sm90a.sm120f.ptx"),
    ],
)
def test_labels(cuda: str, torch: str, archs: list[str], label: str) -> None:
    made = version_label(cuda, torch, requests(*archs))
    assert made == label
    assert Version(f"1.0+{made}").local == label, "the label is not in PEP 440's normal form"


def test_the_name_of_the_design() -> None:
    upstream = parse_wheel_name("flash_attn-2.3.6-cp310-cp310-win_amd64.whl")
    label = version_label("12.3", "2.1.1", requests("80", "86", "89"))
    name = upstream.renamed("flash-attn", with_local(upstream.version, label))
    expected = "flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89-cp310-cp310-win_amd64.whl"
    assert name.filename == expected
    assert name.dist_info == "flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89.dist-info"
    assert name.data == "flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89.data"


def test_packaging_refuses_what_we_call_bad() -> None:
    """The list above would prove nothing if `packaging` read such names."""
    with pytest.raises(InvalidWheelFilename):
        parse_wheel_filename("flash_attn-2.3.6-x-cp310-cp310-win_amd64.whl")


def test_tags_are_all_combinations() -> None:
    name = WheelName("six", "1.16.0", "", "py2.py3", "none", "any.win32")
    assert name.tags == {"py2-none-any", "py3-none-any", "py2-none-win32", "py3-none-win32"}


@pytest.mark.parametrize(
    ("tags", "pythons"),
    [
        ("cp310-abi3", ["3.10", "3.11", "3.14"]),
        ("cp39.cp310-abi3", ["3.9", "3.10", "3.11", "3.14"]),
        ("cp312-abi3", ["3.14"]),
        ("cp311-cp311", []),
        ("py3-none", []),
        ("py3-abi3", []),
    ],
)
def test_a_stable_abi_serves_all_newer_pythons(tags: str, pythons: list[str]) -> None:
    name = parse_wheel_name(f"demo-1.0-{tags}-linux_x86_64.whl")
    assert [one for one in ("3.9", "3.10", "3.11", "3.14") if name.serves(one)] == pythons


@pytest.mark.parametrize(
    ("cubins", "ptx", "labels"),
    [
        ("80 86 89", "", "sm80 sm86 sm89"),
        ("89 80", "89", "sm80 sm89.ptx"),
        ("90", "80", "ptx80 sm90"),
        ("90 90a 120f", "90a", "sm90 sm90a.ptx sm120f"),
        ("", "100", "ptx100"),
        ("", "", ""),
    ],
)
def test_labels_of_edited_wheels(cubins: str, ptx: str, labels: str) -> None:
    found = arch_labels(*([parse_arch(arch) for arch in text.split()] for text in (cubins, ptx)))
    assert " ".join(found) == labels


@pytest.mark.parametrize(
    ("version", "rest"),
    [
        ("0.0.23", "0.0.23"),
        ("2.3.6+cu123torch2.1.sm80.sm86.sm89", "2.3.6+cu123torch2.1"),
        ("2.3.6+cu123torch2.1", "2.3.6+cu123torch2.1"),
        ("1.0+sm89.ptx", "1.0"),
        ("1.0+ptx80.sm90a", "1.0"),
        ("1.0+cu118.SM80.local", "1.0+cu118.local"),
        ("1.0+smart.sm8.sm8000.ptxas", "1.0+smart.sm8.sm8000.ptxas"),  # no architectures
        ("1!2.0rc1.post2.dev3+sm80", "1!2.0rc1.post2.dev3"),
    ],
)
def test_only_architectures_are_dropped_from_a_version(version: str, rest: str) -> None:
    assert without_archs(version) == rest


@pytest.mark.parametrize(
    ("version", "labels", "labelled"),
    [
        ("0.0.23", ["sm80", "sm90"], "0.0.23+sm80.sm90"),
        ("2.3.6+cu123torch2.1.sm80.sm86", ["sm89.ptx"], "2.3.6+cu123torch2.1.sm89.ptx"),
        ("1.0+sm80", [], "1.0"),
    ],
)
def test_a_version_names_what_is_in_it(version: str, labels: list[str], labelled: str) -> None:
    assert with_archs(version, labels) == labelled


NAMED = ("TORCH_EXTENSION_NAME=_C",)  # as BuildExtension tells compilers
OPERATORS = "TORCH_LIBRARY(demo, m) {}"
# As torch-scatter has it: elsewhere, torch loads the library.
ON_WINDOWS = """\
#ifdef _WIN32
#  ifdef WITH_CUDA
PyMODINIT_FUNC PyInit__C(void) { return NULL; }
#  else
PyMODINIT_FUNC PyInit__C(void) { return NULL; }
#  endif
#endif
"""


@pytest.mark.parametrize(
    ("file", "sources", "expected"),
    [
        ("d/_C.so", [Source("PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {}", NAMED)], ("d._C",)),
        ("d/_C.so", [Source("PYBIND11_MODULE(_C, m) {}", ())], ("d._C",)),
        ("d/_C.so", [Source("NB_MODULE(_D, m) {}", ())], ()),
        ("d/_C.so", [Source(OPERATORS, NAMED)], ()),
        ("d/_C.so", [Source(ON_WINDOWS, NAMED)], ()),
        ("d/_C.so", [Source(f"{ON_WINDOWS}PyMODINIT_FUNC PyInit__C()", ())], ("d._C",)),
        ("d/_C.so", [Source("#if defined(_MSC_VER)\n#else\nPyInit__C", ())], ("d._C",)),
        ("d/_C.so", [Source("#ifndef _WIN32\nPyInit__C\n#endif\n#endif", ())], ("d._C",)),
        ("d/_C.so", [], ()),
        ("d/_C.abi3.so", [Source(OPERATORS, NAMED)], ()),
        ("d/_C.abi3.so", [Source("PyMODINIT_FUNC CONCAT(PyInit_, NAME)", NAMED)], ("d._C",)),
        ("d/_C.cpython-311-x86_64-linux-gnu.so", [], ("d._C",)),
        ("d_cuda.cp311-win_amd64.pyd", [], ("d_cuda",)),
        ("d/e/_C.abi3.so", [], ("d.e._C",)),
        ("d.libs/libx-1.so", [], ()),
        ("d-1.data/platlib/_C.abi3.so", [], ()),
    ],
)
def test_library_modules(file: str, sources: list[Source], expected: tuple[str, ...]) -> None:
    assert library_modules([file, "d/__init__.py"], sources) == expected
