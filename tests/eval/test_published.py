"""The papers' numbers."""

from pipelines.eval import published


def test_published_numbers_are_part_of_the_key():
    assert set(published.external(None)) == {"published.csv"}


def test_published_numbers_are_those_of_the_models_asked_for():
    assert {row["model"] for row in published.read_published(["fsrt"])} == {"fsrt"}
