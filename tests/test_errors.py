"""What an error means, and what is left of it in another process."""

import pickle

import pytest

from models.errors import InvalidFile
from pipelines.errors import (
    CodeError,
    Rejected,
    Transient,
    UserError,
    error_first_line,
    error_meaning,
    format_traceback,
    make_picklable,
    prefix_error,
)  # fmt: skip
from storage.errors import DamagedFile, StoreUnreachable


@pytest.mark.parametrize(
    ("error", "expected"),
    [(UserError("x"), "user"), (InvalidFile("x"), "user"), (Rejected("short", "x"), "rejected"),
     (StoreUnreachable("x"), "transient"), (MemoryError(), "transient"), (DamagedFile("x"), "store"),
     (ValueError("x"), "fault"), (OSError("x"), "fault")],
)  # fmt: skip
def test_only_classes_of_our_own_and_lack_of_memory_mean_anything(error, expected):
    assert error_meaning(error) == expected


def test_a_prefix_names_the_origin_and_keeps_the_meaning():
    placed = prefix_error(Transient("no answer", soon=False), "download a")
    assert isinstance(placed, Transient)
    assert (str(placed), placed.soon) == ("download a: no answer", False)


def test_a_rejection_is_left_as_it_is():
    error = Rejected("short", "2 frames, expected 25")
    assert prefix_error(error, "clips a") is error


def test_a_fault_keeps_its_traceback_on_the_way_between_processes():
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    arrived = pickle.loads(pickle.dumps(make_picklable(raised.value)))
    assert isinstance(arrived, CodeError)
    assert str(arrived) == "ZeroDivisionError: division by zero"
    assert "_ = 1 / 0" in format_traceback(make_picklable(raised.value))


def test_the_first_line_of_an_error_without_text_is_its_class():
    assert error_first_line(ValueError()) == "ValueError"
    assert error_first_line(ValueError("a\nb")) == "a"
