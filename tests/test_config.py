"""Run files: strict, and every mistake is one line that names file, key, found and expected."""

import pytest
import yaml

from models import MODELS
from pipelines import config as configuration
from pipelines.config import ConfigError, config_to_yaml, load_config
from pipelines.runs import old_settings
from storage.errors import InvalidInput


@pytest.fixture
def run_file(tmp_path):
    def write(text: str):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_one_number_of_one_phase_changes_and_the_rest_stays(run_file):
    config = load_config(run_file("fsrt: {phases: {warmup: {steps: 7}}}")).config
    assert config.fsrt.phases["warmup"].steps == 7
    assert config.fsrt.phases["warmup"].batch == 24
    assert "keypoints" in config.fsrt.phases


def test_the_run_file_wins_over_fragments_and_set_over_both(run_file):
    path = run_file("use: [data/synthetic]\ndata: {main: {synthetic: {seconds: 1.5, seed: 4}}}")
    config = load_config(path, ["data.main.synthetic.seed=9"]).config
    assert (config.data["main"].synthetic.seconds, config.data["main"].synthetic.seed) == (1.5, 9)
    assert config.data["main"].synthetic.identities == 36  # the fragment's


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clipz: {}", "clipz: unknown key; did you mean 'clips'?"),
        ("clips: {sise: 3}", "clips.sise: unknown key; did you mean 'size'?"),
        ("clips: {size: big}", "clips.size: expected a whole number, found 'big'"),
        ("clips: {size: 0}", r"clips: size 0: expected"),
        (
            "fsrt: {phases: {warmup: {optimizers: {g: {lr: -1}}}}}",
            "fsrt.phases.warmup.optimizers.g: lr -1.0: expected",
        ),
        (
            "fsrt: {phases: {warmup: {stepz: 3}}}",
            "fsrt.phases.warmup.stepz: unknown key; did you mean 'steps'?",
        ),
        (
            "fsrt: {phases: {adversarial: {updates: {discriminator: {evry: 3}}}}}",
            "fsrt.phases.adversarial.updates.discriminator.evry: unknown key; did you mean 'every'?",
        ),
        (
            "data: {main: {source: webcam}}",
            "data.main.source: .*'synthetic', 'folder', .*'voxceleb_csv'.*found 'webcam'",
        ),
        ("data: {source: folder}", r"data.source is gone; use data.NAME.source, as in data.main.source"),
        ("keypoints: {landmarker: fan2d}", "use keypoints.NAME.landmarker, as in keypoints.main.landmarker"),
        ("fit3dmm: {backend: deca}", "fit3dmm is gone; use fits.NAME, as in fits.main.backend"),
        ("models: [fsrt, fsrt_b]", "models names 'fsrt_b'; known: fsrt"),
        ("fsrt_b: {model: fsrd}", "fsrt_b.model 'fsrd': expected one of fsrt, headgan"),
        ("- 1", "found a list, expected a mapping"),
        ("a: [", "not YAML"),
        ("name: a\nname: b", "key 'name' is given twice"),
        ("use: data/synthetic", "expected a list of fragments"),
        ("use: [../../etc/passwd]", "leaves configs/"),
        ("use: [data/nope]", "no config file"),
        (
            "runtime: {preview_every: 100}",
            r"runtime.preview_every is gone; use MODEL.phases.NAME.validate_every",
        ),
        ("fsrt: {phases: {warmup: {validate_every: 0}}}", "validate_every 0: expected 1 or more"),
        (
            "fsrt: {phases: {warmup: {optimizers: {g: {schedule: {warmup: 0.1}}}}}}",
            "g.schedule.warmup: expected a whole number, found 0.1",
        ),
        (
            "fsrt: {phases: {adversarial: {updates: {generator: {losses: {gan: {start: 10%}}}}}}}",
            "losses.gan.start: expected a whole number, found '10%'",
        ),
        (
            "fsrt: {phases: {adversarial: {updates: {discriminator: {parts: {discriminator: null}}}}}}",
            "fsrt.phases.adversarial: phase adversarial: update discriminator learns no part; name at least",
        ),
        (
            "fsrt: {phases: {adversarial: {updates: {discriminator: {parts: {decoder: 1}}}}}}",
            "part decoder learns in update generator on optimizer g and in update discriminator on d",
        ),
        ("runtime: {max_rejected: 2}", "runtime: max_rejected 2.0: expected a share from 0 to 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(run_file, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(run_file(text))
    assert "\n" not in str(error.value)
    assert ".yaml" in str(error.value)


@pytest.mark.parametrize("key", ["store", "tracking"])
def test_a_uri_that_holds_a_password_is_refused_whether_or_not_it_is_the_one_used(run_file, key, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", "/elsewhere")
    with pytest.raises(InvalidInput, match=rf"runtime\.{key}: .*credentials come from") as error:
        load_config(run_file(f"runtime: {{{key}: 's3://AKIA:hunter2@bucket'}}"))
    assert "hunter2" not in str(error.value)


def test_a_mistake_in_a_set_names_it(run_file):
    with pytest.raises(ConfigError, match=r"--set clips.size: clips: size 3: expected"):
        load_config(run_file(""), ["clips.size=3"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.main.folder.path=/videos/Take #2", "/videos/Take #2"),
        ("data.main.folder.path=a: b", "a: b"),
        ("data.main.folder.path=[x]", "[x]"),
        ("data.main.folder.path=*x", "*x"),
        ("data.main.folder.path=/a ", "/a "),
        ("data.main.folder.path=a=b", "a=b"),
        ('data.main.folder.path="q r"', '"q r"'),
        ("data.main.folder.path=%20", "%20"),
        ("name=no", "no"),
        ("name=null", "null"),
        ("name=12:30", "12:30"),
        ("name=2026-11-29", "2026-11-29"),
        ("runtime.experiment=2026", "2026"),
        ("data.main.limit=010", 10),
        ("data.main.limit= 7 ", 7),
        ("fsrt.phases.warmup.steps=1_000", 1000),
        ("fsrt.phases.warmup.steps=2e5", 200_000),
        ("fsrt.phases.warmup.optimizers.g.lr=1e-4", 1e-4),
        ("runtime.use_gpu=on", True),
        ("fsrt.phases.warmup.init=keypoints", "keypoints"),
        ("fsrt.phases.warmup.init={kp_detector: keypoints}", {"kp_detector": "keypoints"}),
    ],
)
def test_the_value_of_a_set_is_what_was_typed_in_the_type_of_its_setting(run_file, text, value):
    assert setting(load_config(run_file(""), [text]).config, text) == value


@pytest.mark.parametrize(
    "text", ["data.main.limit=", "data.main.limit=null", "data.main.pin=", "fsrt.phases.keypoints=null"]
)
def test_null_or_nothing_is_none_where_a_setting_may_be_none(run_file, text):
    assert setting(load_config(run_file("data: {main: {limit: 3, pin: v1}}"), [text]).config, text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("models=[headgan, fsrt]", ("headgan", "fsrt")),
        ("runtime.pools={download: 4}", {"download": 4}),
        ("data.main.folder.extensions=['.mp4']", (".mp4",)),
    ],
)
def test_brackets_are_yaml_where_the_setting_is_a_list_or_a_mapping(run_file, text, value):
    assert setting(load_config(run_file(""), [text]).config, text) == value


@pytest.mark.parametrize("text", ["data.main.limit=0x10", "data.main.limit=12:30", "data.main.limit=~",
                                  "models=[fsrt",
                                  "models=[2026-02-30]", "models=[{[a]: 1}]",
                                  "data.main.sound=required # all", "runtime.store="])  # fmt: skip
def test_a_set_that_is_no_value_of_its_setting_is_a_mistake_in_one_line(run_file, text):
    with pytest.raises(ConfigError, match=f"--set {text.partition('=')[0]}: ") as error:
        load_config(run_file(""), [text])
    assert "\n" not in str(error.value)


PATHS = ("runtime.store", "data.main.folder.path", "data.main.folder.identities", "data.main.voxceleb.mirror",
         "data.main.voxceleb.test_persons", "data.main.voxceleb_csv.csv", "data.main.voxceleb_csv.mirror",
         "data.main.celebv.path", "data.main.celebv_hq.json", "data.main.celebv_text.mirror",
         "data.main.talkinghead_1kh.lists",
         "runtime.download.cookies", "runtime.download.folder")  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_a_path_begins_at_home_wherever_it_is_set(run_file, name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    nested = "~/x y"
    for part in reversed(name.split(".")):
        nested = {part: nested}
    for config in (
        load_config(run_file(""), [f"{name}=~/x y"]).config,
        load_config(run_file(yaml.dump(nested))).config,
    ):
        assert setting(config, name) == "/home/ann/x y"


def test_paths_in_a_list_begin_at_home_too(run_file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    config = load_config(run_file(""), ["runtime.download.mirrors=[~/a, 's3://b/~', ./~c]"]).config
    assert config.runtime.download.mirrors == ("/home/ann/a", "s3://b/~", "./~c")


def test_a_home_that_nobody_has_is_a_mistake(run_file):
    with pytest.raises(
        ConfigError, match=r"--set runtime.store: .*no home folder is known for ~no-such-user"
    ):
        load_config(run_file(""), ["runtime.store=~no-such-user/s"])


def test_the_store_of_the_environment_begins_at_home(run_file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("REENACT_STORE", "~/s")
    assert configuration.store_uri(load_config(run_file("")).config) == "/home/ann/s"


def setting(config, text):
    """The value at the path that a --set begins with."""
    for part in text.partition("=")[0].split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


def test_numbers_in_scientific_notation_are_numbers(run_file):
    assert (
        load_config(run_file("fsrt: {phases: {warmup: {optimizers: {g: {lr: 1e-3}}}}}"))
        .config.fsrt.phases["warmup"]
        .optimizers["g"]
        .lr
        == 1e-3
    )


def test_the_resolved_tree_says_where_a_value_came_from(run_file):
    shown = config_to_yaml(load_config(run_file("use: [data/synthetic]\nname: mine"), ["runtime.cpus=1"]))
    assert "identities: 36  # configs/data/synthetic.yaml" in shown
    assert "cpus: 1  # --set runtime.cpus" in shown
    assert "detect_every: 5\n" in shown  # a default has no origin


def test_a_setting_that_was_renamed_is_told_by_its_new_name(run_file, monkeypatch):
    monkeypatch.setitem(old_settings.FORMER_SETTING_NAMES, "fsrt.phases.*.validate_every", "preview_every")
    with pytest.raises(ConfigError, match=r"fsrt.phases.warmup.preview_every is now called .*validate_every"):
        load_config(run_file("fsrt: {phases: {warmup: {preview_every: 3}}}"))


@pytest.mark.parametrize("model", ["fsrt", "headgan"])
def test_the_perceptual_nets_setting_of_before_names_todays(run_file, model):
    with pytest.raises(
        ConfigError, match=rf"{model}\.vgg19 is gone; use .*\.perceptual_net: .*vgg19_random what random was"
    ):
        load_config(run_file(f"{model}: {{vgg19: random}}"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("start_from: warmup", "MODEL.phases.NAME.init"),
        ("carry: true", "MODEL.phases.NAME.resume_optimizers"),
        ("optim: {fall: 80}", "fall, hold, start are schedule.linear_decay_steps"),
        ("losses: {gan: 1}", "updates.generator.losses"),
        (
            "adversary: {fools: {gan: 1}, alone: 3}",
            "fools are updates.generator.losses, alone their start",
        ),
    ],
)
def test_a_phase_setting_of_before_names_todays_in_one_line(run_file, old, new):
    with pytest.raises(ConfigError) as error:
        load_config(run_file(f"fsrt: {{phases: {{perceptual: {{{old}}}}}}}"))
    assert new in str(error.value)
    assert "\n" not in str(error.value)


def test_a_share_of_the_budget_is_no_number_of_steps(run_file):
    with pytest.raises(ConfigError, match=r"fsrt\.phases\.warmup\.optimizers\.g\.schedule\.warmup"):
        load_config(run_file("fsrt: {phases: {warmup: {optimizers: {g: {schedule: {warmup: 0.1}}}}}}"))


def test_every_class_of_settings_is_known():
    found = configuration.settings_class_names(
        configuration.make_run_config_class({name: name for name in MODELS})
    )
    assert {
        "models.api:Phase",
        "models.api:Schedule",
        "pipelines.preprocess.clips_config:CropViewConfig",
    } <= found
    assert "pipelines.preprocess.sources.folder:FolderConfig" in found


def test_a_machine_without_mediapipes_nets_sees_with_dlib_wherever_they_are_named(run_file):
    text = """
        clips: {detector: mp_face}
        keypoints: {main: {detector: mp_face, landmarker: mesh468_iris}, fan: {detector: s3fd}}
    """
    loaded = load_config(run_file(text), ["perception.faces=dlib"])
    keypoints = loaded.config.keypoints
    assert loaded.config.clips.detector == "dlib_hog"
    assert (keypoints["main"].detector, keypoints["main"].landmarker) == ("dlib_hog", "dlib68")
    assert keypoints["fan"].detector == "s3fd"
    assert loaded.origin["keypoints.main.landmarker"] == "perception.faces dlib"


def test_fits_to_dlibs_landmarks_weigh_the_eyelids_less_unless_told(run_file):
    text = """
        keypoints: {main: {}, fan: {landmarker: fan2d}}
        fits: {main: {}, lids: {eyelid_weight: 2}, fan: {keypoints: fan}}
    """
    loaded = load_config(run_file(text), ["perception.faces=dlib"])
    fits, origin = loaded.config.fits, loaded.origin
    assert [fits[name].eyelid_weight for name in ("main", "lids", "fan")] == [1, 2, 3]
    assert origin["fits.main.eyelid_weight"] == "perception.faces dlib"
