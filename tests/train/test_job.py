"""What a phase says of the nets that its data were prepared with."""

from types import SimpleNamespace

import pytest

from models.spec import load_model_spec
from pipelines.train.job import describe_preprocessing_nets


@pytest.mark.parametrize(
    ("rules", "detector", "told"),
    [
        ("headgan", "mtcnn", {"crops": ""}),
        ("headgan", "mp_face", {"crops": "mp_face"}),
        ("steady", "mp_face", {}),  # another crop altogether, which the run's settings tell
    ],
)
def test_headgans_crops_by_another_detector_are_named(rules, detector, told):
    config = SimpleNamespace(clips=SimpleNamespace(rules=rules, detector=detector))
    assert describe_preprocessing_nets(load_model_spec("headgan").preprocessing_nets, config) == told
