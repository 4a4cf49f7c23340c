"""Splits in which nobody is, told before any work."""

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.dataset import splits
from pipelines.dataset.clips import Clips
from pipelines.dataset.splits import describe_empty_split
from pipelines.engine.node import Node, Read
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.units import UpstreamUnit
from pipelines.preprocess.recordings import DataConfig, list_corpus_recordings
from pipelines.preprocess.sources.folder import FolderConfig
from pipelines.preprocess.sources.synthetic import SyntheticConfig
from pipelines.preprocess.sources.voxceleb_csv import VoxcelebCsvConfig

HEAD = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    for name in ("ann/1.mp4", "ann/2.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "videos"


def folder(root, **more):
    own = {name: more.pop(name) for name in ("identity", "identities") if name in more}
    return DataConfig(source="folder", folder=FolderConfig(path=str(root), **own), **more)


def sentence(data, nodes=("train.fsrt.warmup", "pairs.self", "score.fsrt.self")):
    """Of a run in which these nodes are yet to run."""
    listing = Node(name="recordings", kind="whole", run="none", config={"data.source": "data.main.source"})
    reads = {"recordings": Read("recordings")}
    readers = [Node(name=name, kind="whole", run="none", reads=reads) for name in nodes]
    plans = {node.name: NodePlan(node, "stale") for node in (listing, *readers)}
    plans["recordings"].units = {
        row["id"]: UpstreamUnit("", row=row) for row in list_corpus_recordings(data).rows
    }
    return describe_empty_split(plans, {"main": data})


def table(tmp_path, partition, people=2):
    lines = [f"v{n},0,90,1-2-30-34,25,64,36,{partition},p{n}\n" for n in range(people)]
    (tmp_path / "m.csv").write_text(HEAD + "".join(lines))
    return DataConfig(source="voxceleb_csv", voxceleb_csv=VoxcelebCsvConfig(csv=f"{tmp_path}/m.csv"))


def test_one_person_is_told_with_what_to_set(videos):
    told = sentence(folder(videos))
    assert told.startswith(
        "the test split is empty, and pairs.self needs it: the only identity is in train; "
    )
    assert "data.main.folder.identity=file" in told
    assert sentence(folder(videos, identity="file")) == ""


def test_a_table_of_one_person_is_what_to_change(videos, tmp_path):
    (tmp_path / "who.csv").write_text("file,identity\nann/1.mp4,ann\nann/2.mp4,ann\n")
    told = sentence(folder(videos, identities=str(tmp_path / "who.csv")))
    assert "name more people in data.main.folder.identities" in told


def test_a_limit_of_one_is_what_to_change(videos):
    assert "set data.main.limit to 2 or more" in sentence(folder(videos, identity="file", limit=1))


def test_no_held_out_share_is_what_to_change(videos):
    assert "set data.main.test_fraction above 0" in sentence(
        folder(videos, identity="file", test_fraction=0.0)
    )


def test_the_word_of_the_source_is_what_to_change(tmp_path):
    told = sentence(table(tmp_path, "test"))
    assert "the train split is empty, and train.fsrt.warmup needs it: all 2 identities are in test" in told
    assert "the column partition of data.main.voxceleb_csv.csv decides on it" in told
    data = DataConfig(synthetic=SyntheticConfig(identities=3, test_identities=0, clips_per_identity=1))
    assert "data.main.synthetic.test_identities decide on it" in sentence(data)


def test_only_nodes_that_need_a_split_ask_for_it(videos, tmp_path):
    assert sentence(folder(videos), ("download", "clips", "train.fsrt.warmup")) == ""
    assert sentence(table(tmp_path, "test"), ("clips", "pairs.self")) == ""
    assert sentence(DataConfig()) == ""


def test_plan_says_it_in_a_line_and_run_stops_before_work(videos, tmp_path, monkeypatch, shared_cache):
    monkeypatch.setenv("REENACT_CACHE", str(shared_cache))  # the code's symbols take seconds to find anew
    given = ["configs/run/folder_tiny.yaml", "--set", f"data.main.folder.path={videos}"]
    given += ["--set", f"runtime.store={tmp_path / 'store'}"]
    planned = CliRunner().invoke(main, ["plan", *given])
    lines = [line for line in planned.output.splitlines() if "split is empty" in line]
    assert (planned.exit_code, len(lines)) == (0, 1)
    ran = CliRunner().invoke(main, ["run", *given])
    assert ran.exit_code == 2, ran.output
    assert "the test split is empty, and pairs.self needs it" in ran.output.splitlines()[-1]
    assert not (tmp_path / "store" / "packs").exists()


# --- the clips of a split -----------------------------------------------------------------------------------
@pytest.fixture
def clips(family):
    """Five clips, the second of them without sound; landmarks of all but the first."""
    records = {key: {"clip": {"has_sound": i != 1}} for i, key in enumerate(family.keys)}
    points = {key: family.samples[key] for key in family.keys[1:]}
    return Clips(family, {"clip": type(family)(records), "landmarks": type(family)(points)})


def test_clips_that_a_family_lacks_are_counted_by_its_node(clips, family):
    reads = {"clips": ("frames", "clip"), "keypoints": ("landmarks",)}
    assert splits.count_missing_clips(clips, reads, family.keys) == {"keypoints": 1}
    assert splits.count_missing_clips(clips, reads, family.keys[1:]) == {}


def test_a_clip_shows_the_pixels_of_its_recording_or_of_its_frames_if_these_are_fewer(family):
    sides, zooms = [100, 200, 300, 600, 700], [0.4, 0.8, 1.2, 2.0, 2.0]  # clips of 256 px, a view of 512
    records = {k: {"clip": {"side": side, "size": 256}} for k, side in zip(family.keys, sides, strict=True)}
    views = {k: {"affine": np.float32([[[zoom, 0, 0], [0, zoom, 0]]])}
             for k, zoom in zip(family.keys, zooms, strict=True)}  # fmt: skip
    record, view = type(family)(records), type(family)(views)
    of_clips = splits.measure_clip_sides(Clips(family, {"clip": record}), family.keys)
    assert of_clips == [100, 200, 256, 256, 256]
    of_view = splits.measure_clip_sides(Clips(view, {"clip": record, "affine": view}), family.keys)
    assert of_view == [100, 200, 300, 512, 512]


def test_clips_without_sound_are_counted_among_an_even_sample_of_many(clips, family, monkeypatch):
    assert splits.describe_clips_without_sound(clips, family.keys) == "1 of 5"
    monkeypatch.setattr(splits, "MAX_CHECKED_CLIPS", 3)
    assert splits.describe_clips_without_sound(clips, family.keys) == "0 of 3"
