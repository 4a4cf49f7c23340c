import pytest

from pipelines.figures.html import (
    CHART_GREY,
    PageSection,
    StripChartRow,
    escape_html,
    format_number,
    render_histogram,
    render_page,
    render_strip_chart,
    render_table,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (21.5349, "21.53"),
        (0.042132, "0.04213"),
        (12345.6, "12,346"),
        (0, "0"),
        (0.99961, "0.9996"),
        (-3.5, "-3.500"),
    ],
)
def test_numbers_show_four_significant_digits(value, text):
    assert format_number(value) == text


def test_text_is_escaped():
    assert escape_html('<b a="1">&') == "&lt;b a=&quot;1&quot;&gt;&amp;"


def test_a_page_is_whole_and_links_its_sections():
    text = render_page("T", "<p>lead</p>", [("3", "clips")], [PageSection("a", "First", "<p>body</p>")])
    assert text.startswith("<!doctype html>")
    assert 'href="#a"' in text
    assert '<section id="a">' in text


def test_a_histogram_counts_every_value():
    text = render_histogram("x", "px", [1.0, 1.0, 2.0, float("nan")], bins=2)
    assert ": 2</title>" in text
    assert "3 values" in text


def test_a_histogram_of_nothing_says_so():
    assert "no values" in render_histogram("x", "px", [])


def test_equal_values_still_draw():
    assert "<rect" in render_histogram("x", "px", [5.0] * 4)
    assert "<circle" in render_strip_chart(
        "m", "", [StripChartRow("a", [1.0, 1.0], 1.0, None, None, CHART_GREY)]
    )


def test_a_table_sets_numbers_right():
    assert '<td class="n">7</td>' in render_table(["a", "b"], [["x", "7"]], numbers=(1,))
