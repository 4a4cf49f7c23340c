from pipelines.eval.pair_family import read_generated_sample_metadata, read_optional_field


def test_a_baseline_has_neither_provenance_nor_pictures_of_a_size(road):
    assert read_generated_sample_metadata(road.generated["codec"]) == {"provenance": {}, "image_size": None}
    assert read_generated_sample_metadata(road.generated["toy"])["image_size"] == 32


def test_a_field_that_a_method_lacks_is_empty(road):
    family = road.generated["codec"]
    assert read_optional_field(family, family.keys[0], "visualization") == {}
