"""What of the settings a key holds, under which names."""

from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.engine.fingerprint import (
    KeyEnvironment,
    compute_fingerprint_components,
    describe_key_difference,
    settings_in_run,
)
from pipelines.engine.setting_renames import SettingRenames
from pipelines.graph import build_graph
from pipelines.runs.old_settings import FORMER_SETTING_NAMES, FORMER_SETTING_VALUES
from pipelines.runs.session import open_project_source_code

RUNS = Path(__file__).parents[2] / "configs/run"


RENAMES = SettingRenames(FORMER_SETTING_NAMES, FORMER_SETTING_VALUES)


@pytest.fixture(scope="module")
def settings_in_key():
    """(node, settings of a run file) -> what its key holds of settings."""
    code = open_project_source_code()

    def found(node, file, *sets):
        config = load_config(RUNS / file, sets).config
        env = KeyEnvironment(code, renamed=RENAMES)
        return compute_fingerprint_components(build_graph(config)[node], config, env)

    return found


@pytest.mark.parametrize(
    ("node", "weights"),
    [("features.fsrt.self.landmarks.mesh468_iris", "missing"), ("keypoints.main", "pinned")],
)
def test_what_is_left_out_for_want_of_a_wheel_is_made_once_it_is_there(node, weights):
    config = load_config(RUNS / "demo.yaml").config
    code = open_project_source_code()
    for here, held in ((True, "pinned"), (False, weights)):
        env = KeyEnvironment(
            code, weights=lambda name: "pinned", has_weights=lambda name, here=here: here, renamed=RENAMES
        )
        found = compute_fingerprint_components(build_graph(config)[node], config, env).weights
        assert set(found.values()) == {held}
        assert "mp_mesh468" in found


MIRROR = ("data.main.voxceleb_csv.csv=list.csv", "data.main.voxceleb_csv.mirror=/mirror")


def test_published_runs_keep_what_their_keys_held_of_the_perceptual_net(settings_in_key, tmp_path):
    fsrt = settings_in_key("train.fsrt.perceptual", "fsrt_vox256.yaml", *MIRROR).config
    assert fsrt["fsrt.vgg19"] == "imagenet"
    headgan = settings_in_key("train.headgan.adversarial", "headgan_official.yaml", *MIRROR).config
    assert headgan["headgan.vgg19"] == "imagenet"
    assert headgan["headgan.terms.vgg_layers"] == [0.03125, 0.0625, 0.125, 0.25, 1.0]
    assert not [path for path in fsrt | headgan if "perceptual_net" in path or "perceptual_layers" in path]


def test_another_perceptual_net_makes_the_phases_that_weigh_the_loss_stale(settings_in_key):
    def keys(net):
        return [
            settings_in_key(f"train.fsrt.{phase}", "demo.yaml", f"fsrt.perceptual_net={net}")
            for phase in ("warmup", "perceptual")
        ]

    (warmup, before), (same, now) = keys("vgg19_random"), keys("efficientnet_lite0")
    assert warmup == same
    told = describe_key_difference(before, now, paths={"fsrt": "other"}, renamed=RENAMES)
    assert told[0] == "config other.perceptual_net vgg19_random -> efficientnet_lite0"
    assert settings_in_run(before.config, {}, RENAMES)["fsrt.perceptual_net"] == "vgg19_random"
