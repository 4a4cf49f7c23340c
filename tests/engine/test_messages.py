import pytest

from pipelines.engine.symbols import parse_module_symbols


def text_of(source):
    """What the code digest sees of the function f."""
    return parse_module_symbols(source, "m", False).symbols["f"].text.readable_text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return Rejected('dark', 'the {x} is dark')", "return Rejected('dark', 'too dark to see a face')"),
        ("return Rejected('dark', f'{x} lux')", "return Rejected('dark', f'only {x} lux')"),
        ("return errors.UserError('no such {x}')", "return errors.UserError('there is no {x}')"),
        ("out.append(Transient(f'no answer: {x}'))", "out.append(Transient(f'{x} does not answer'))"),
        ("out.add(3, Rejected('dark', f'{x}'))", "out.add(3, Rejected('dark', f'at {x}'))"),
        ("return a(x) or ValueError(f'bad {x}')", "return a(x) or ValueError(f'{x} is bad')"),
        (
            "why = f'dark {x}'\n    return Rejected('dark', why)",
            "why = f'{x} is dark'\n    return Rejected('dark', why)",
        ),
    ],
)
def test_rewording_an_error_changes_nothing_wherever_the_error_stands(before, after):
    assert text_of(f"def f(x, out):\n    {before}") == text_of(f"def f(x, out):\n    {after}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return Rejected('dark', f'{x}')", "return Rejected('small', f'{x}')"),
        ("return Transient(f'{x}', soon=True)", "return Transient(f'{x}', soon=False)"),
        ("return describe(f'dark {x}')", "return describe(f'{x} is dark')"),
        ("return Rejected(code(x), f'{x}')", "return Rejected(code(x + 1), f'{x}')"),
        (
            "why = f'dark {x}'\n    return why, Rejected('dark', why)",
            "why = f'{x} is dark'\n    return why, Rejected('dark', why)",
        ),
    ],
)
def test_what_is_no_sentence_of_an_error_counts(before, after):
    assert text_of(f"def f(x, out):\n    {before}") != text_of(f"def f(x, out):\n    {after}")


def test_an_error_whose_sentences_are_left_out_is_still_made():
    assert "Rejected('dark')" in text_of("def f(x):\n    return Rejected('dark', f'{x} is dark')")
