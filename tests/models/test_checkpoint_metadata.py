"""Settings from files of strangers: what is taken, and what is refused by name."""

from typing import Literal

import pytest
from msgspec import Struct, field

from models.checkpoint_metadata import parse_checkpoint_settings, parse_provenance, printable_text
from models.errors import InvalidFile


class Inner(Struct, frozen=True, kw_only=True):
    share: float = 0.5


class Outer(Struct, frozen=True, kw_only=True):
    count: int = 1
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    sizes: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)


def test_settings_are_those_of_the_struct_and_lists_become_tuples():
    described = {"count": 2, "kind": "b", "flag": True, "sizes": [3, 4], "inner": {"share": 1}}
    wanted = Outer(count=2, kind="b", flag=True, sizes=(3, 4), inner=Inner(share=1))
    assert parse_checkpoint_settings(Outer, described, "net") == wanted
    assert parse_checkpoint_settings(Outer, {}, "net") == Outer()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("count", "net: found 'count', expected an object of settings"),
        ({"size": 1}, "net: unknown 'size'; known: count, kind, flag, sizes, inner"),
        ({"count": "1"}, "net.count '1': expected a whole number"),
        ({"count": True}, "net.count True: expected a whole number"),
        ({"flag": 1}, "net.flag 1: expected true or false"),
        ({"kind": ["a"]}, r"net.kind \['a'\]: expected one of a, b"),
        ({"sizes": [1, 2.0]}, "net.sizes 2.0: expected a whole number"),
        ({"sizes": "12"}, "net.sizes '12': expected a list"),
        ({"inner": None}, "net.inner: found None, expected an object of settings"),
        ({"inner": {"share": float("inf")}}, "net.inner.share inf: expected a finite number"),
        ({"inner": {"share": 10**400}}, "net.inner.share 1000.*: expected a finite number"),
    ],
)
def test_what_is_no_setting_is_told_by_its_name(described, message):
    with pytest.raises(InvalidFile, match=f"^{message}$"):
        parse_checkpoint_settings(Outer, described, "net")


def test_labels_are_those_of_the_metadata():
    assert parse_provenance({"provenance": {"net": "from vox, é"}}) == {"net": "from vox, é"}


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"provenance": "net"},
        {"provenance": {"net": 1}},
        {"provenance": {"a\nb": "c"}},
        {"provenance": {"a": "\u202e"}},
        {"provenance": {"net": "x" * 201}},
        {"provenance": {str(i): "" for i in range(101)}},
    ],
)
def test_labels_other_than_short_printable_texts_are_refused(about):
    with pytest.raises(InvalidFile, match=r"^provenance.* expected .* texts"):
        parse_provenance(about)


def test_what_steers_a_terminal_is_spelled_out_and_long_texts_are_cut():
    assert printable_text("a\x1b[2Jb\n\u202eé") == r"a\x1b[2Jb\n\u202eé"
    assert len(printable_text("x" * 5000)) == 1000
