from __future__ import annotations

import pytest

from fatwheel import errors
from fatwheel.errors import CompileError, FatwheelError, UsageError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, FatwheelError)
]


def test_each_way_to_fail_has_an_exit_code_of_its_own() -> None:
    codes = [cls.exit_code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    # 0 is success; a shell gives 126 and more to commands that it cannot run, or that a signal
    # ended (130: Ctrl-C, which is what that class is for).
    assert all(1 <= code < 126 or code == 130 for code in codes)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_says_what_it_is_for(cls: type[FatwheelError]) -> None:
    assert cls.__doc__


def test_a_message_has_where_what_details_and_hint_in_this_order() -> None:
    error = CompileError("it failed", where="a.cu", hint="do that", details=["one", "two"])
    assert str(error) == "a.cu: it failed\n  one\n  two\n  do that"
    assert (error.what, error.where, error.hint) == ("it failed", "a.cu", "do that")
    assert error.details == ("one", "two")


def test_a_message_may_be_one_sentence() -> None:
    assert str(UsageError("no")) == "no"
    assert UsageError("no").details == ()
