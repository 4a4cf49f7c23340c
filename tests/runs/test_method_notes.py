"""Lines about baselines that a run cannot have, and about folders of other code."""

from pathlib import Path
from types import SimpleNamespace

from pipelines.config import load_config
from pipelines.graph import build_graph
from pipelines.runs.method_notes import describe_external_folders, describe_left_out_baselines

DEMO = Path(__file__).parents[2] / "configs/run/demo.yaml"
RELEASED = ["models=[fsrt]", "fsrt.weights=fsrt_vox", "identity.net=off"]


def left_out(*sets):
    config = load_config(DEMO, list(sets)).config
    return describe_left_out_baselines(build_graph(config), config)


def test_a_run_without_landmarks_says_that_it_has_no_warp_and_what_to_set():
    (line,) = left_out(*RELEASED)
    assert line.startswith("no baseline warp in self: the run finds no landmarks")
    assert "--set also=[keypoints.main]" in line
    assert left_out(*RELEASED, "also=[keypoints.main]") == []
    assert left_out() == []


def lines_of(folder, rejected=(), has_artifact=True):
    config = load_config(DEMO, [f"eval.methods.theirs.folder={folder}"]).config
    units = ["ann#a#000000#000009", "bob#b#000000#000009"]
    rows = [
        SimpleNamespace(unit=unit, status="rejected" if unit in rejected else "ok", code="missing")
        for unit in units
    ]
    plans = {
        "pairs.self": SimpleNamespace(units=dict.fromkeys(units), has_artifact=has_artifact),
        "generate.theirs.self": SimpleNamespace(artifact=SimpleNamespace(manifest=lambda: rows)),
    }
    return list(describe_external_folders(config, plans))


def test_a_folder_that_fits_needs_no_line(tmp_path):
    (tmp_path / "ann.a.000000.000009").mkdir()
    (tmp_path / "bob.b.000000.000009.mp4").touch()
    assert lines_of(tmp_path) == []


def test_pairs_without_frames_and_files_of_no_pair_are_named(tmp_path):
    for number in range(5):
        (tmp_path / f"old{number}.mp4").touch()
    assert lines_of(tmp_path, rejected=["bob#b#000000#000009"]) == [
        "theirs, self: 1 of 2 pairs without frames: bob#b#000000#000009 (missing)",
        f"theirs: 5 files or folders of no pair in {tmp_path}: old0.mp4, old1.mp4, old2.mp4 and 2 more",
    ]


def test_nothing_is_said_of_files_before_pairs_are_known(tmp_path):
    (tmp_path / "old.mp4").touch()
    assert lines_of(tmp_path, has_artifact=False) == []
