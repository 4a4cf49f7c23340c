"""Property: a node's key changes exactly when its numbers can, whatever else is edited beside."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct, defstruct

from pipelines.engine.fingerprint import KeyEnvironment, compute_fingerprint_components
from pipelines.engine.node import Node
from pipelines.engine.setting_renames import SettingRenames
from pipelines.engine.source_code import SourceSymbolIndex

EDITS = (
    "number", "rebind", "same_name", "swap", "table", "decoder",  # they change what some node computes
    "field_read", "field_value",
    "message", "assertion", "comment", "docstring", "caption", "progress", "annotation",  # these do not
    "move", "field", "rename", "unrelated",
)  # fmt: skip
State = dict[str, bool]


def nodes_file(on: State) -> str:
    home = "deep.moved" if on["move"] else "lib"
    setting = "speed" if on["rename"] else "rate"
    left, right = ("right", "left") if on["swap"] else ("left", "right")
    smooth = " + ctx.config.first.smooth" if on["field_read"] else ""
    return f'''
from PKG import captions
from PKG.{"other" if on["rebind"] else home} import compute
from PKG.{left} import scale as a
from PKG.{right} import scale as b

TABLE = {{"last": "{"best" if on["table"] else "last"}.safetensors"}}


def first(ctx{": object" if on["annotation"] else ""}):
    """{"Says more." if on["docstring"] else "Says."}"""
    # {"why not" if on["comment"] else "why"}
    if ctx is None:
        raise ValueError(f"{"nothing is given" if on["message"] else "no context"}: {{ctx}}")
    assert ctx, "{"must be" if on["assertion"] else "is expected"}"
    ctx.report_progress(0, 1, "{"pictures" if on["progress"] else "clips"}")
    captions.draw(ctx)
    return compute(ctx.config.first.{setting}){smooth}


def second(ctx):
    return a(1) - b(1)


def third(ctx):
    return TABLE["last"]


def nobody():
    return {1 if on["unrelated"] else 0}
'''


def files(on: State) -> dict[str, str]:
    compute = "def compute(x):\n    return x * {}\n"
    return {
        "nodes.py": nodes_file(on),
        "deep/moved.py" if on["move"] else "lib.py": compute.format(3 if on["number"] else 2),
        "other.py": compute.format(7),
        "left.py": f"def scale(x):\n    return x * {5 if on['same_name'] else 2}\n",
        "right.py": "def scale(x):\n    return x * 4\n",
        "captions.py": f"def draw(ctx):\n    ctx.draw({'Driving' if on['caption'] else 'driving'!r})\n",
    }


class Rate(Struct, frozen=True):
    rate: float = 1.0


class Speed(Struct, frozen=True):
    """The same, renamed."""

    speed: float = 1.0


def config(on: State) -> Any:
    kind: Any = Speed if on["rename"] else Rate
    if on["field"] or on["field_read"] or on["field_value"]:
        before = {"as_before": {"smooth": 0.0}}
        kind = defstruct(
            kind.__name__, [("smooth", float, 0.0)], bases=(kind,), frozen=True, namespace=before
        )
    first = kind(**{"smooth": 0.5} if on["field_value"] else {})
    return defstruct("Config", [("first", kind)], frozen=True)(first)


def numbers(on: State) -> dict[str, Any]:
    """Node -> all that its numbers hang on."""
    left = 5 if on["same_name"] else 2
    factor = 7 if on["rebind"] else 3 if on["number"] else 2
    return {
        "first": (factor, on["field_read"], on["field_value"]),
        "second": (4, left) if on["swap"] else (left, 4),
        "third": (on["table"], on["decoder"]),
    }


NODES = {
    "first": Node(name="first", kind="whole", run="PKG.nodes:first", config={"first": "first"}),
    "second": Node(name="second", kind="whole", run="PKG.nodes:second"),
    "third": Node(name="third", kind="whole", run="PKG.nodes:third", packages=("toy-decoder",)),
}
count = itertools.count()


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """The keys of all nodes in a state of the source, the settings and the installed packages."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def of(on: State) -> dict[str, str]:
        root = tmp_path / f"at{next(count)}"  # the same package in another place: no path is in a key
        for name, text in files(on).items():
            path = root / "PKG" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        install(site, "2.0" if on["decoder"] else "1.0")
        renamed = {"first.speed": "rate"} if on["rename"] else {}
        code = SourceSymbolIndex(
            root, ("PKG",), outside=("PKG.captions",), renamed={"speed": "rate"} if renamed else {}
        )
        env = KeyEnvironment(code, renamed=SettingRenames(renamed))
        return {
            name: compute_fingerprint_components(node, config(on), env).key for name, node in NODES.items()
        }

    return of


def install(site: Path, version: str) -> None:
    """A distribution of this version, as importlib.metadata finds one."""
    info = site / "toy_decoder.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy-decoder\nVersion: {version}\n")
    sys.path_importer_cache.pop(str(site), None)


states = st.fixed_dictionaries({name: st.booleans() for name in EDITS})


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states, states)
def test_keys_are_equal_exactly_where_numbers_must_be(keys, one, other):
    mine, theirs = keys(one), keys(other)
    same = {name for name in NODES if numbers(one)[name] == numbers(other)[name]}
    assert {name for name in NODES if mine[name] == theirs[name]} == same


@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_alone_makes_stale_what_it_touches_and_nothing_else(keys, edit):
    before = dict.fromkeys(EDITS, False)
    after = before | {edit: True}
    changed = {name for name in NODES if keys(before)[name] != keys(after)[name]}
    assert changed == {name for name in NODES if numbers(before)[name] != numbers(after)[name]}
