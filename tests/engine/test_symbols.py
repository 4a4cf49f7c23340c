"""What of a file counts: what computes, and not what it is called by, where it stands, or what it says."""

import pytest

from pipelines.engine.symbols import MODULE_BODY, parse_module_symbols


def text(source: str, name: str = "f", **options) -> str:
    return parse_module_symbols(source, "package.module", False, **options).symbols[name].text.template


def targets(source: str, name: str = "f") -> list[str]:
    return [
        ref.target for ref in parse_module_symbols(source, "package.module", False).symbols[name].text.refs
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('def f(x):\n    """Says."""\n    return x', "def f(x):\n\n    return  x  # a comment"),
        ("def f(x: int) -> int:\n    y: int = x\n    return y", "def f(x):\n    y = x\n    return y"),
        ("def f(x):\n    raise KeyError(f'no {x}')", "def f(x):\n    raise KeyError(f'{x} is not there')"),
        (
            "def f(x):\n    if x:\n        told = 'a b'\n        raise KeyError(told + '!')\n    return x",
            "def f(x):\n    if x:\n        told = f'c {x}'\n        raise KeyError(told)\n    return x",
        ),
        (
            "def f(x):\n    raise OSError(5, 'no {}'.format(x))",
            "def f(x):\n    raise OSError(5, 'never {}'.format(x))",
        ),
        ("def f(x):\n    assert x, 'why not'\n    return x", "def f(x):\n    assert x\n    return x"),
        (
            "def f(ctx):\n    for i in ctx:\n        ctx.report_progress(1, 2, 'clips')\n    return 1",
            "def f(ctx):\n    for i in ctx:\n        ctx.report_progress(2, 3, f'{i} of them')\n    return 1",
        ),
    ],
)
def test_what_is_only_said_is_not_text(one, other):
    assert text(one) == text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x):\n    return x + 1", "def f(x):\n    return x + 2"),
        ("def f(x, y=1):\n    return x", "def f(x, y=2):\n    return x"),
        ("def f(x):\n    raise KeyError(x)", "def f(x):\n    raise KeyError(x + 1)"),
        ("def f(x):\n    raise Rejected('dark', f'{x}')", "def f(x):\n    raise Rejected('small', f'{x}')"),
        ("def f(x):\n    return 'a b' + x", "def f(x):\n    return 'a c' + x"),
        ("def f(x):\n    told = 'a b'\n    return told", "def f(x):\n    told = 'a c'\n    return told"),
        ("def f(x):\n    x.append('a b')\n    return x", "def f(x):\n    x.append('a c')\n    return x"),
    ],
)
def test_what_computes_is_text(one, other):
    assert text(one) != text(other)


def test_a_name_is_followed_through_the_import_of_its_own_function():
    source = "def f():\n    from a import g\n    return g()\ndef h():\n    from b import g\n    return g()"
    assert targets(source, "f") == ["=a.g"]
    assert targets(source, "h") == ["=b.g"]


def test_a_variable_is_not_taken_for_the_import_of_that_name():
    assert targets("import frames\ndef f(x):\n    frames = x\n    return frames.count") == []
    assert targets("import frames\ndef f(frames):\n    return [frames for _ in frames]") == []
    assert targets("import frames\ndef f(x):\n    return [frames for frames in x]") == []


def test_a_name_that_only_a_comprehension_binds_still_leads_elsewhere_behind_it():
    source = "import frames\ndef f(x):\n    y = [frames for frames in x]\n    return frames.decode(y)"
    assert targets(source) == ["=frames.decode"]


def test_a_functions_text_that_names_a_function_is_followed():
    assert targets("def f():\n    return resolve('a.b:c')") == ["@a.b:c"]


def test_of_a_struct_the_methods_alone_can_be_asked():
    head = "class C(Struct, frozen=True):\n"
    tail = (
        "    def __post_init__(self):\n        check(self)\n    def area(self):\n        return self.x * 2\n"
    )
    more = parse_module_symbols(head + "    x: int = 1\n    y: int = 2\n" + tail, "m", False).symbols["C"]
    less = parse_module_symbols(head + "    x: int = 5\n" + tail, "m", False).symbols["C"]
    assert more.methods is not None
    assert more.methods == less.methods
    assert "area" in more.methods.template
    assert more.text != less.text


def test_a_check_that_sets_a_value_counts_among_the_methods():
    source = "class C(Struct):\n    def __post_init__(self):\n        force_setattr(self, 'x', 1)\n"
    methods = parse_module_symbols(source, "m", False).symbols["C"].methods
    assert methods is not None
    assert "force_setattr" in methods.template


def test_a_renamed_setting_goes_on_being_read_by_its_first_name():
    assert text("def f(c):\n    return c.rate", renamed={"rate": "lr"}) == text("def f(c):\n    return c.lr")
    assert text("def f(c):\n    return g(rate=1)", renamed={"rate": "lr"}) == text(
        "def f(c):\n    return g(lr=1)"
    )


def test_a_statement_of_the_module_is_its_body_and_an_import_for_types_is_not():
    symbols = parse_module_symbols("import a\nif TYPE_CHECKING:\n    import b\na.setup()", "m", False).symbols
    assert list(symbols) == [MODULE_BODY]


def test_a_file_survives_its_cache():
    source = "from a import b\nclass C(Struct):\n    x: int = b\nT = {'x': 'a.b:c'}\n"
    module = parse_module_symbols(source, "m", False)
    assert type(module).from_json(module.as_json()) == module
