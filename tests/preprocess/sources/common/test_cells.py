import pytest

from pipelines.errors import UserError
from pipelines.preprocess.sources.common import cells


@pytest.mark.parametrize(
    ("text", "value"),
    [("3657", 3657), ("3657.0", 3657), ("3.657e3", 3657), ("1280.", 1280), (" +12 ", 12), ("-0.0", 0)],
)
def test_a_whole_number_may_be_written_as_a_float(text, value):
    assert cells.parse_integer_cell(text) == value


@pytest.mark.parametrize(
    "text", ["3657.5", "", "nan", "inf", "1e999", "9" * 5000, "1_0", "0x10", "\u0661", "a"]
)
def test_other_text_is_no_whole_number_and_is_named(text):
    with pytest.raises(ValueError, match=r"not a (whole )?number"):
        cells.parse_integer_cell(text)


@pytest.mark.parametrize(
    ("text", "name"), [("10005.0", "10005"), ("id1.0", "id1.0"), ("1.5", "1.5"), (" ann ", "ann")]
)
def test_a_number_that_names_somebody_has_no_point(text, name):
    assert cells.parse_name_cell(text) == name


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_table_without_commas_is_one_sentence_that_names_what_was_found(tmp_path, separator, name):
    line = separator.join(("video", "start", "end"))
    with pytest.raises(UserError, match=rf"t\.csv: {name} part the columns, expected commas"):
        cells.check_columns(tmp_path / "t.csv", cells.split_csv_line(line), ("video", "start"))
