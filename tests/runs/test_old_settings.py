import pytest

from pipelines.runs import old_settings
from pipelines.runs.old_settings import current_name_of, find_setting_replacement


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("fit3dmm", "fits.NAME, as in fits.main.backend"),
        ("fsrt.phases.warmup.carry", "MODEL.phases.NAME.resume_optimizers"),
        ("eval.max_clips", "eval.protocols.NAME.max_pairs, as in eval.protocols.self.max_pairs=20"),
    ],
)
def test_a_setting_that_is_gone_names_what_took_its_place(old, now):
    assert find_setting_replacement(old) == now


@pytest.mark.parametrize("path", ["fsrt.phases.warmup.steps", "fits.main.backend", "a.b.phases.c.carry"])
def test_other_settings_are_not_gone(path):
    assert find_setting_replacement(path) is None


def test_a_star_stands_for_one_part_of_a_renamed_setting(monkeypatch):
    monkeypatch.setitem(old_settings.FORMER_SETTING_NAMES, "fsrt.phases.*.validate_every", "preview_every")
    assert current_name_of("fsrt.phases.warmup.", "preview_every") == "fsrt.phases.warmup.validate_every"
    assert current_name_of("headgan.phases.warmup.", "preview_every") is None
