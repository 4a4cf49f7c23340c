from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from pipelines.config import load_config
from pipelines.engine.node import Node, Read
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.packs import PackJob
from pipelines.engine.units import UpstreamUnit
from pipelines.eval.frame_storage import describe_frame_disk_usage, estimate_frame_storage_bytes
from pipelines.runs.plan_table import print_plan_table
from pipelines.runs.session import CODE_ROOT
from storage.families import Artifact
from storage.frame_codec import encode_images

CONFIG = {"eval": {"protocols": {"self": {"size": 64}}}}


def generating(method: str, drops: bool = False, **units: UpstreamUnit) -> NodePlan:
    node = Node(
        name=f"generate.{method}.self", stage=f"generate.{method}", kind="keyed", run="a:b",
        units="pairs.self", reads={"pairs": Read("pairs.self")},
        config={"size": "eval.protocols.self.size"}, drops=drops,
    )  # fmt: skip
    return NodePlan(node, "stale", ["never run"], units=units)


@pytest.fixture
def pairs():
    """Two pairs of three driving frames each."""
    node = Node(name="pairs.self", stage="pairs", kind="whole", run="a:b", table=True)
    rows = {unit: UpstreamUnit("d", row={"driving_frames": [1, 2, 3]}) for unit in ("a", "b")}
    return NodePlan(node, "cached", units=rows)


def notes(pairs, *plans):
    return describe_frame_disk_usage({one.node.name: one for one in (pairs, *plans)}, CONFIG)


def test_the_estimate_lies_between_smooth_frames_and_noise():
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (3, 64, 64, 3))
    kept = [len(encode_images(frames, "png").data) for frames in (smooth, noise)]
    assert kept[0] < estimate_frame_storage_bytes(3, 64) < kept[1]


def test_the_frames_of_pairs_that_are_to_be_generated_are_told(pairs):
    plan = generating("fsrt", a=UpstreamUnit(None), b=UpstreamUnit("there", "pack"))
    assert notes(pairs, plan) == {"generate.fsrt.self": "keeps 3 frames of 64 px: about 22 kB"}


def test_of_the_copied_source_one_picture_a_pair_is_kept(pairs):
    plan = generating("copy_source", a=UpstreamUnit(None), b=UpstreamUnit(None))
    assert notes(pairs, plan)["generate.copy_source.self"].startswith("keeps 2 frames of 64 px")


def test_nothing_is_told_before_there_are_pairs_nor_of_what_is_there(pairs):
    done = generating("fsrt", a=UpstreamUnit("there", "pack"), b=UpstreamUnit("there", "pack"))
    assert notes(pairs, done, generating("headgan")) == {}


def test_frames_that_are_dropped_in_the_end_are_made_and_not_kept(pairs):
    plan = generating("fsrt", drops=True, a=UpstreamUnit(None))
    text = "makes 3 frames of 64 px: about 22 kB, and drops them in the end"
    assert notes(pairs, plan) == {"generate.fsrt.self": text}


def test_the_line_says_what_was_dropped_and_what_of_it_is_made_again(pairs):
    plan = generating("fsrt", a=UpstreamUnit("there", "pack1"), b=UpstreamUnit("there", "pack2"))
    plan.restore_jobs = {
        pack: PackJob("generate.fsrt.self", "generate.fsrt", pack, ()) for pack in ("pack1", "pack2")
    }
    text = "its 6 frames of 64 px were dropped: about 44 kB"
    assert notes(pairs, plan) == {"generate.fsrt.self": text}
    plan.to_restore = {"pack1"}
    assert notes(pairs, plan) == {"generate.fsrt.self": "keeps 3 frames of 64 px: about 22 kB"}


# --- the lossless frames that are scored ---
VIEWED = load_config(CODE_ROOT / "configs/run/demo.yaml", ["clips.size=64"]).config


def viewed(frames: dict[str, int] | None, stage: str = "views.clip_square", **units: UpstreamUnit):
    """The line of a view of clips with so many frames, None where they are not cut yet."""
    clips = NodePlan(Node(name="clips", kind="keyed", run="a:b", units="recordings"), "cached")
    if frames is not None:
        rows = [SimpleNamespace(unit=unit, frames=count) for unit, count in frames.items()]
        clips.artifact = cast("Artifact", SimpleNamespace(manifest=lambda: rows))
    node = Node(
        name="views.truth", stage=stage, kind="keyed", run="a:b", units="recordings",
        reads={"clips": Read("clips")}, config={"views": "views.truth"},
    )  # fmt: skip
    plan = NodePlan(node, "stale", ["never run"], units=units)
    return describe_frame_disk_usage({"clips": clips, "views.truth": plan}, VIEWED).get("views.truth")


def test_the_frames_of_the_view_that_is_scored_are_those_of_its_clips():
    text = viewed({"a": 3, "b": 5, "train": 90}, a=UpstreamUnit(None), b=UpstreamUnit("there", "pack"))
    assert text == "keeps 3 frames of 64 px: about 22 kB"


def test_before_there_are_clips_the_line_tells_what_one_frame_takes():
    assert viewed(None) == "keeps about 7 kB for each frame of 64 px"


def test_nothing_is_told_of_other_views():
    assert viewed({"a": 3}, stage="views.vox512", a=UpstreamUnit(None)) is None


def test_the_line_stands_below_the_reasons_of_its_node(pairs):
    plan = generating("fsrt", a=UpstreamUnit(None), b=UpstreamUnit(None))
    lines: list[str] = []
    print_plan_table({plan.node.name: plan}, lines.append, (), notes(pairs, plan))
    assert lines[1].endswith("never run")
    assert lines[2].strip() == "keeps 6 frames of 64 px: about 44 kB"
