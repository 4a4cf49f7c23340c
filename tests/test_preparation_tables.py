"""The tables of the models' READMEs that set the papers' preparation of the data beside ours."""

import re

import pytest
import yaml

from pipelines.config import load_config
from pipelines.engine.keys import lookup_setting, to_json_value
from pipelines.runs.session import CODE_ROOT

BASES = {"fsrt": "fsrt_vox256", "headgan": "headgan_vox256"}
OWN_DATA = ("fsrt_finetune", "headgan_finetune")
"""They prepare videos of the user's own."""
ROWS = [
    (path.stem.partition("_")[0], path.stem)
    for path in sorted((CODE_ROOT / "configs/run").glob("*.yaml"))
    if path.stem.partition("_")[0] in BASES and path.stem not in OWN_DATA
]
OF_EVERY_ROW = ("data", "clips", "keypoints", "views", "eval")
"""The other sections are where rows differ: those are the base's in the table."""
EXCEPTIONS = {("headgan_noaudio", "data.main.sound"): "optional"}
FRAGMENTS = re.compile(r"configs/(clips|data)/\w+\.yaml")
NOT_PREPARATION = ("data.main.clips_per_shard", "runtime.max_rejected")
DIFFERENCES = {
    "fsrt": ("crop edges", "stored resolution", "codec", "sampling"),
    "headgan": ("sampling", "sketch lines (headgan_sketch)", "NMFC", "pieces", "codec"),
}


def table(model):
    """Setting -> published, here, whether they are the same."""
    text = (CODE_ROOT / f"models/{model}/README.md").read_text()
    section = text.partition("## Preparation, as published and here\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines[1:]}


def settings(model):
    """Path -> value, of every `path: value` in the column of this run file."""
    here = " ".join(cells[1] for cells in table(model).values())
    found = re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+): ([^`]+)`", here)
    return {path: yaml.safe_load(value) for path, value in found}


@pytest.mark.parametrize("model", BASES)
def test_every_line_says_what_is_published_what_is_here_and_the_difference(model):
    lines = table(model)
    assert len(lines) > 20
    for name, cells in lines.items():
        assert len(cells) in (2, 3), name
        assert all(cells), name
        if len(cells) == 3:
            assert cells[2].startswith(("same", "differs", "FOMM's list")), name
    assert set(DIFFERENCES[model]) <= set(lines)
    assert len(settings(model)) >= 15


@pytest.mark.parametrize(("model", "row"), ROWS, ids=[row for _, row in ROWS])
def test_the_table_is_what_the_run_file_says(model, row):
    config = load_config(CODE_ROOT / f"configs/run/{row}.yaml").config
    for path, told in settings(model).items():
        if path.partition(".")[0] in OF_EVERY_ROW or row == BASES[model]:
            found = to_json_value(lookup_setting(config, path))
            assert found == EXCEPTIONS.get((row, path), told), path


@pytest.mark.parametrize(("model", "row"), ROWS, ids=[row for _, row in ROWS])
def test_the_table_has_every_setting_of_the_fragments_that_prepare_data(model, row):
    origin = load_config(CODE_ROOT / f"configs/run/{row}.yaml").origin
    set_there = {path for path, source in origin.items() if FRAGMENTS.fullmatch(source)}
    assert len(set_there) > 10
    assert set_there - set(NOT_PREPARATION) <= set(settings(model))
