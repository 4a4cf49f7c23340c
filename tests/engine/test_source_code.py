"""The digest of all that an entry reaches: it changes with what is computed, and with nothing else."""

from pathlib import Path

import pytest

from pipelines.engine.source_code import SourceSymbolIndex

FILES = {
    "a": "from p.b import g\nTABLE = {'x': 1}\n\ndef f(x):\n    return g(x) + TABLE['x']\n",
    "b": "from p import c\n\ndef g(x):\n    return c.compute(x)\n",
    "c": "def compute(x):\n    return x * 2\n",
    "d": "def compute(x):\n    return x * 3\n",
}


def code(root: Path, files: dict[str, str], **options) -> SourceSymbolIndex:
    folder = root / "p"
    folder.mkdir(exist_ok=True)
    for old in folder.rglob("*.py"):
        old.unlink()
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return SourceSymbolIndex(root, ("p",), **options)


@pytest.fixture
def digest(tmp_path):
    """Digest of entry p.a:f after these edits of FILES; None takes a file away."""

    def of(entry: str = "p.a:f", options: dict | None = None, **edits: str | None) -> str:
        files = {name: text for name, text in (FILES | edits).items() if text is not None}
        return code(tmp_path, files, **(options or {})).digest([entry])

    return of


def test_a_helper_two_files_away_counts_and_its_comment_does_not(digest):
    assert digest(c="def compute(x):\n    return x * 4\n") != digest()
    assert digest(c="# why\ndef compute(x):\n    return x * 2  # twice\n") == digest()


def test_an_import_that_leads_to_another_function_of_that_name_counts(digest):
    assert digest(b="from p import d as c\n\ndef g(x):\n    return c.compute(x)\n") != digest()


def test_two_functions_of_one_name_are_told_apart(digest):
    both = "from p.c import compute\nfrom p.d import compute as other\n\ndef g(x):\n    return {}\n"
    assert digest(b=both.format("compute(x) - other(x)")) != digest(b=both.format("other(x) - compute(x)"))


def test_moving_a_file_and_renaming_an_import_change_nothing(digest):
    moved = {
        "c": None,
        "deep/e": FILES["c"],
        "b": "from p.deep import e as k\n\ndef g(x):\n    return k.compute(x)\n",
    }
    assert digest(**moved) == digest()


def test_a_constant_that_looks_like_a_table_of_modules_counts(digest):
    table = "FILES = {{'last': '{}'}}\n\ndef f(x):\n    return FILES[x]\n"
    assert digest(a=table.format("model.safetensors")) != digest(a=table.format("best.safetensors"))
    assert digest(a=table.format("no.such:thing")) != digest(a=table.format("no.such:other"))


def test_a_table_that_leads_to_modules_and_functions_of_the_project_does_not(digest):
    table = "NETS = {{{}}}\n\ndef f(x):\n    return NETS[x]\n"
    one = table.format("'b': ('p.b:g', 1)")
    assert digest(a=one) == digest(a=table.format("'b': ('p.b:g', 1), 'c': ('p.c', 2)"))


def test_a_text_that_names_a_function_is_code_wherever_that_lies(digest):
    by_text = "def f(x):\n    return resolve('p.c:compute')(x)\n"
    assert digest(a=by_text) != digest(a=by_text, c=FILES["d"])
    moved = {"c": None, "e": FILES["c"], "a": by_text.replace("p.c", "p.e")}
    assert digest(**moved) == digest(a=by_text)


def test_what_only_moves_bytes_adds_nothing(digest):
    options = {"outside": ("p.c",)}
    assert digest(options=options, c=FILES["d"]) == digest(options=options)
    assert digest(options=options, b="from p import c\n\ndef g(x):\n    return c.other(x)\n") != digest(
        options=options
    )


def test_symbols_that_reach_each_other_are_hashed_together(digest):
    pair = "def f(x):\n    return g(x)\n\ndef g(x):\n    return f(x) + {}\n"
    assert digest(a=pair.format(1)) != digest(a=pair.format(2))
    f, g = (
        "from p.b import g\n\ndef f(x):\n    return g(x)\n",
        "from p.a import f\n\ndef g(x):\n    return f(x) + 1\n",
    )
    assert digest(a=f, b=g) == digest(a=pair.format(1))


def test_a_ring_of_equal_functions_is_told_from_a_ring_of_others(digest):
    ring = "def f(x):\n    return g(x)\n\ndef g(x):\n    return h(x)\n\ndef h(x):\n    return f(x) + {}\n"
    swapped = "def f(x):\n    return h(x)\n\ndef h(x):\n    return g(x)\n\ndef g(x):\n    return f(x) + 1\n"
    assert digest(a=ring.format(1)) != digest(a=ring.format(2))
    assert digest(a=swapped) != digest(a=ring.format(1))  # other names, but of the definitions


def test_what_a_module_does_when_imported_counts(digest):
    assert digest(c="import os\nos.environ['X'] = '1'\n" + FILES["c"]) != digest()


def test_an_alias_of_a_library_is_no_difference_and_another_library_is(digest):
    call = "import {} as {}\n\ndef f(x):\n    return {}.floor(x)\n"
    assert digest(a=call.format("math", "m", "m")) == digest(a=call.format("math", "n", "n"))
    assert digest(a=call.format("math", "m", "m")) != digest(a=call.format("numpy", "m", "m"))


SETTINGS = (
    "from msgspec import Struct\n\nclass C(Struct):\n    x: int = 1{}\n\n"
    "    def twice(self):\n        return self.x * {}\n\ndef f(c):\n    return C().twice()\n"
)


def test_of_settings_the_fields_do_not_count_and_the_methods_do(digest):
    options = {"settings": ("p.a:C",)}
    before = digest(options=options, a=SETTINGS.format("", 2))
    assert digest(options=options, a=SETTINGS.format("\n    y: int = 5", 2)) == before
    assert digest(options=options, a=SETTINGS.format("", 3)) != before
    assert digest(a=SETTINGS.format("\n    y: int = 5", 2)) != digest(a=SETTINGS.format("", 2))


def test_a_chain_longer_than_pythons_stack_is_hashed(digest):
    links = "".join(f"def f{i}(x):\n    return f{i + 1}(x)\n" for i in range(3000))
    long = "def f(x):\n    return f0(x)\n" + links + "def f3000(x):\n    return x{}\n"
    assert digest(a=long.format("")) != digest(a=long.format(" + 1"))


def test_an_entry_that_is_not_there_is_named(digest):
    with pytest.raises(ValueError, match=r"no 'nothing' in module 'p.a'"):
        digest("p.a:nothing")


def test_a_closure_names_every_symbol_reached(tmp_path):
    reached = code(tmp_path, FILES).reachable_symbols(["p.a:f"])
    assert list(reached) == ["p.a.TABLE", "p.a.f", "p.b.g", "p.c.compute"]
    assert reached["p.b.g"].text == "def g(x):\n    return c.compute(x)"


def test_an_answer_that_is_known_is_not_worked_out_again(tmp_path):
    known: dict[str, object] = {}

    def recall(question, make):
        return known[question] if question in known else known.setdefault(question, make())

    first = code(tmp_path, FILES, recall=recall).digest(["p.a:f"])
    again = SourceSymbolIndex(
        tmp_path, ("p",), recall=recall, load=lambda path, make: pytest.fail(f"{path} was read")
    )
    assert again.digest(["p.a:f"]) == first


def test_answers_of_other_settings_are_other_ones(tmp_path):
    known: dict[str, object] = {}

    def recall(question, make):
        return known[question] if question in known else known.setdefault(question, make())

    inside = code(tmp_path, FILES, recall=recall).digest(["p.a:f"])
    assert code(tmp_path, FILES, recall=recall, outside=("p.c",)).digest(["p.a:f"]) != inside
