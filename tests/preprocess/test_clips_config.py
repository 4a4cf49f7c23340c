import pytest

from pipelines.config import load_config
from pipelines.preprocess.clips_config import ClipsConfig


@pytest.mark.parametrize("name", ["vox256_standard", "vox256_published"])
def test_presets_are_settings(name, tmp_path):
    (tmp_path / "run.yaml").write_text(f"use: [data/vox256, clips/{name}]")
    settings = load_config(tmp_path / "run.yaml").config.clips
    assert (settings.rules, settings.size) == ("voxceleb", 256)


def test_the_standard_preset_is_the_published_scripts_parameters(tmp_path):
    (tmp_path / "run.yaml").write_text("use: [data/voxceleb, clips/vox256_standard]")
    config = load_config(tmp_path / "run.yaml").config
    cut, source = config.clips, config.data["main"].voxceleb
    assert (cut.iou, cut.increase, cut.min_frames, cut.max_frames, cut.min_size) == (0.25, 0.1, 64, 1024, 256)
    assert (source.iou, source.grow, source.max_frames) == (cut.iou, cut.increase, cut.max_frames)
    assert (cut.out_of_frame, cut.max_gap, cut.smooth) == ("drop", 0, 1)


@pytest.mark.parametrize(
    "bad", [{"size": 0}, {"size": 33}, {"min_frames": 9, "max_frames": 8}, {"smooth": 4}, {"iou": 1}]
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        ClipsConfig(**bad)
