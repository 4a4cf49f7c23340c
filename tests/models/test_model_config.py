"""Phases that a run file may name are those that the model has."""

import pytest
from msgspec import field

from models.api import Phase
from models.model_config import ModelConfig
from tests.models.one_pass import one_update

AUDIO, IMAGE = one_update("audio"), one_update("image")


class ToyConfig(ModelConfig, frozen=True, kw_only=True):
    phases: dict[str, Phase | None] = field(default_factory=lambda: {"audio": AUDIO, "image": IMAGE})


def test_a_phase_may_be_dropped():
    assert ToyConfig(phases={"audio": None, "image": IMAGE}).phases["audio"] is None


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"sound": AUDIO}, "phases.sound: expected one of audio, image"),
        ({"audio": IMAGE}, "phases.audio.name 'image': expected 'audio'"),
    ],
)
def test_a_phase_that_the_model_lacks_is_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        ToyConfig(phases=phases)
