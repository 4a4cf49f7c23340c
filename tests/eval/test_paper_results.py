"""The papers' numbers."""

from pipelines.eval import paper_results


def test_published_numbers_are_part_of_the_key():
    assert set(paper_results.digest_external_files(None)) == {"published.csv"}


def test_published_numbers_are_those_of_the_models_asked_for():
    assert {row["model"] for row in paper_results.read_paper_results(["fsrt"])} == {"fsrt"}
