"""What is known of device programs; how code is taken over is in `integration/test_second_key`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.errors import CompileError
from fatwheel.model import Job
from fatwheel.worker.context import Context
from fatwheel.worker.secondkey import (
    OFF,
    check_same,
    is_audited,
    may_be_known,
    note_compiled,
    text_of,
)
from fatwheel.worker.stages import Kept, front_key, keep_front

from ...helpers.standins import cuda_unit, front, job, make_context

UNIT, FRONT = cuda_unit(), front("80", "sm_80")
ONE, OTHER, KEY = "11" * 32, "22" * 32, "33" * 32  # two texts, the key of their program
PTX = b""".visible .entry _Z1av(
)
{
	ret;
}
.visible .entry _Z1bv(
)
{
	mov.u32 %r1, 7;
	ret;
}
"""


@pytest.fixture(name="context")
def _context(tmp_path: Path) -> Context:
    return make_context(tmp_path, audit=50)


def kept(context: Context, text: str, ptx: bytes) -> None:
    key = front_key(context, UNIT, FRONT, text)
    keep_front(context, context.store(), key, Kept(ptx, b"stub"))


def note(context: Context, text: str) -> None:
    note_compiled(context, context.store(), UNIT, FRONT, text, KEY)


def test_one_in_so_many_is_audited_on_any_machine(context: Context) -> None:
    keys = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(5000)]
    chosen = [key for key in keys if is_audited(context, key)]
    assert 50 < len(chosen) < 150
    assert chosen == [key for key in keys if is_audited(context, key)]
    assert all(is_audited(replace(context, audit=1), key) for key in keys)
    assert not any(is_audited(replace(context, audit=0), key) for key in keys)


def test_what_was_compiled_is_known_for_these_files_of_the_project(context: Context) -> None:
    work = job(UNIT, FRONT)
    store = context.store()
    assert not may_be_known(context, store, work)
    kept(context, ONE, PTX)
    note(context, ONE)
    assert text_of(store, KEY) == ONE
    assert may_be_known(context, store, work)

    def known(work: Job = work, context: Context = context) -> bool:
        return may_be_known(context, store, work)

    assert known(replace(work, stage="front"))
    assert not known(replace(work, stage="host"))
    assert not known(replace(work, stage="ptxas"))
    assert not known(job(cuda_unit("other"), FRONT))
    assert not known(job(cuda_unit(codegen=["-G"]), FRONT))
    assert not known(job(UNIT, front("90")))
    assert not known(context=replace(context, audit=OFF))
    assert not known(context=replace(context, device_id="another CUDA"))
    edited = replace(context.places, files=(("a.cu", "44" * 32),))
    assert not known(context=replace(context, places=edited))


def test_ptx_that_names_local_variables_is_not_known(context: Context) -> None:
    kept(context, ONE, PTX + b"// __cuda_local_var_12_3_const_a")
    note(context, ONE)
    assert text_of(context.store(), KEY) is None


def test_a_text_whose_ptx_is_gone_gives_way(context: Context) -> None:
    for text in (ONE, OTHER):
        kept(context, text, PTX)
        note(context, text)
    assert text_of(context.store(), KEY) == ONE
    context.store().clear("ptx")
    kept(context, OTHER, PTX)
    note(context, OTHER)
    assert text_of(context.store(), KEY) == OTHER


def test_a_difference_names_the_kernel_and_ends_it(context: Context) -> None:
    kept(context, ONE, PTX)
    note(context, ONE)
    kept(context, OTHER, PTX.replace(b"7", b"8"))
    with pytest.raises(CompileError, match=r"^a: two builds .* not the same code: _Z1bv") as caught:
        note(context, OTHER)
    assert caught.value.where == "a"
    note(context, OTHER)  # once is enough
    assert not may_be_known(context, context.store(), job(UNIT, FRONT))


def test_images_are_compared_too(context: Context) -> None:
    store = context.store()
    check_same(context, store, UNIT, "sm_80", b"code", b"code")
    check_same(context, store, UNIT, "sm_80", None, b"code")
    with pytest.raises(CompileError, match="the image sm_80, made of the same PTX"):
        check_same(context, store, UNIT, "sm_80", b"code", b"other")


@pytest.mark.parametrize("value", [b"true", b'"../x"', b'["a"]', b"{", b"\xff", b'"' + b"A" * 64])
def test_what_is_no_texts_digest_is_nothing(context: Context, value: bytes) -> None:
    store = context.store()
    store.put("program", KEY, value)
    assert text_of(store, KEY) is None
