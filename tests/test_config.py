"""Run files: strict, and every mistake is one line that names file, key, found and expected."""

import pytest

from pipelines import config as configuration
from pipelines.config import ConfigError, load, resolved
from storage.errors import InvalidInput


@pytest.fixture
def run_file(tmp_path):
    def write(text: str):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_one_number_of_one_phase_changes_and_the_rest_stays(run_file):
    config = load(run_file("fsrt: {phases: {warmup: {steps: 7}}}")).config
    assert config.fsrt.phases["warmup"].steps == 7
    assert config.fsrt.phases["warmup"].batch == 24
    assert "keypoints" in config.fsrt.phases


def test_the_run_file_wins_over_fragments_and_set_over_both(run_file):
    path = run_file("use: [data/synthetic]\ndata: {synthetic: {seconds: 1.5, seed: 4}}")
    config = load(path, ["data.synthetic.seed=9"]).config
    assert (config.data.synthetic.seconds, config.data.synthetic.seed) == (1.5, 9)
    assert config.data.synthetic.identities == 36  # the fragment's


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clipz: {}", "clipz: unknown key; did you mean 'clips'?"),
        ("clips: {sise: 3}", "clips.sise: unknown key; did you mean 'size'?"),
        ("clips: {size: big}", "clips.size: .*valid integer.*found 'big'"),
        ("clips: {size: 0}", r"clips: size 0: expected"),
        ("fsrt: {phases: {warmup: {optim: {lr: -1}}}}", "fsrt.phases.warmup.optim: lr -1.0: expected"),
        (
            "fsrt: {phases: {warmup: {stepz: 3}}}",
            "fsrt.phases.warmup.stepz: unknown key; did you mean 'steps'?",
        ),
        (
            "fsrt: {phases: {adversarial: {adversary: {alonee: 3}}}}",
            "fsrt.phases.adversarial.adversary.alonee: unknown key; did you mean 'alone'?",
        ),
        ("data: {source: webcam}", "data.source: .*'synthetic', 'folder', .*'voxceleb_csv'.*found 'webcam'"),
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
        ("fsrt: {phases: {warmup: {validate_every: 0}}}", "validate_every 0: expected 1 or more steps"),
        ("runtime: {max_rejected: 2}", "runtime: max_rejected 2.0: expected a share from 0 to 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(run_file, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(run_file(text))
    assert "\n" not in str(error.value)
    assert ".yaml" in str(error.value)


@pytest.mark.parametrize("key", ["store", "tracking"])
def test_a_uri_that_holds_a_password_is_refused_whether_or_not_it_is_the_one_used(run_file, key, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", "/elsewhere")
    with pytest.raises(InvalidInput, match=rf"runtime\.{key}: .*credentials come from") as error:
        load(run_file(f"runtime: {{{key}: 's3://AKIA:hunter2@bucket'}}"))
    assert "hunter2" not in str(error.value)


def test_a_mistake_in_a_set_names_it(run_file):
    with pytest.raises(ConfigError, match=r"--set clips.size: clips: size 3: expected"):
        load(run_file(""), ["clips.size=3"])


def test_numbers_in_scientific_notation_are_numbers(run_file):
    assert (
        load(run_file("fsrt: {phases: {warmup: {optim: {lr: 1e-3}}}}")).config.fsrt.phases["warmup"].optim.lr
        == 1e-3
    )


def test_the_resolved_tree_says_where_a_value_came_from(run_file):
    shown = resolved(load(run_file("use: [data/synthetic]\nname: mine"), ["runtime.cpus=1"]))
    assert "identities: 36  # configs/data/synthetic.yaml" in shown
    assert "cpus: 1  # --set runtime.cpus" in shown
    assert "detect_every: 5\n" in shown  # a default has no origin


def test_a_setting_that_was_renamed_is_told_by_its_new_name(run_file, monkeypatch):
    monkeypatch.setitem(configuration.RENAMED, "fsrt.phases.*.validate_every", "preview_every")
    with pytest.raises(ConfigError, match=r"fsrt.phases.warmup.preview_every is now called .*validate_every"):
        load(run_file("fsrt: {phases: {warmup: {preview_every: 3}}}"))


def test_every_class_of_settings_is_known():
    found = configuration.classes()
    assert {"models.api:Phase", "models.api:Adversary", "pipelines.preprocess.views:Ffhq256Config"} <= found
    assert "pipelines.preprocess.sources.folder:FolderConfig" in found
