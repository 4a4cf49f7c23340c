from pipelines.eval.captions import BASELINE_TEXTS, provenance_caption, sample_grid_column_titles
from pipelines.eval.methods import BASELINE_METHODS


def test_the_caption_names_the_weights_that_are_not_the_published_ones():
    text = provenance_caption("fsrt", {"kp_detector": "distilled from dlib landmarks"})
    assert text == "fsrt · kp detector: distilled from dlib landmarks"


def test_every_baseline_is_explained():
    assert set(BASELINE_TEXTS) == set(BASELINE_METHODS)


def test_only_a_truth_has_an_error_beside_it():
    assert sample_grid_column_titles("fsrt") == ["source", "driving = truth", "fsrt", "error x4"]
    assert sample_grid_column_titles("fsrt", has_truth=False) == ["source", "driving", "fsrt"]
