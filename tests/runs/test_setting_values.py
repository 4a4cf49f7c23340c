"""Trees of settings as objects, and what is said of a value that does not fit."""

from typing import Literal

import pytest
from msgspec import Struct, field

from pipelines.runs.setting_values import SettingError, convert_settings, parse_setting_value


class Phase(Struct, frozen=True):
    steps: int = 1
    rates: tuple[float, ...] = ()
    kind: Literal["adam", "ranger"] = "adam"
    fast: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps {self.steps}: expected 1 or more")


class Model(Struct, frozen=True):
    name: str = ""
    phases: dict[str, Phase | None] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"steps": "many"}, "phases.first.steps: expected a whole number, found 'many'"),
        ({"steps": 2.5}, "phases.first.steps: expected a whole number, found 2.5"),
        ({"rates": [1, "x"]}, "phases.first.rates.1: expected a number, found 'x'"),
        ({"rates": 3}, "phases.first.rates: expected a list, found 3"),
        ({"kind": "sgd"}, "phases.first.kind: expected one of 'adam', 'ranger', found 'sgd'"),
        ({"fast": "maybe"}, "phases.first.fast: expected true or false, found 'maybe'"),
        (3, "phases.first: expected a mapping of settings, found 3"),
        ({"steps": 0}, "phases.first: steps 0: expected 1 or more"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_path_and_what_was_expected(phase, message):
    with pytest.raises(SettingError) as error:
        convert_settings({"name": "m", "phases": {"ok": {"steps": 2}, "first": phase}}, Model)
    assert str(error.value) == message


def test_numbers_that_yaml_reads_as_text_are_numbers():
    made = convert_settings(
        {"phases": {"first": {"rates": ["1e-4", 1], "steps": 2e3}, "second": None}}, Model
    )
    assert made == Model(phases={"first": Phase(steps=2000, rates=(1e-4, 1.0)), "second": None})


@pytest.mark.parametrize(
    ("text", "value"), [("no", False), ("On", True), ("1", True), ("perhaps", "perhaps")]
)
def test_a_switch_on_a_command_line_takes_the_words_of_yaml(text, value):
    assert parse_setting_value(Model, "phases.first.fast", text) is value or text == value
