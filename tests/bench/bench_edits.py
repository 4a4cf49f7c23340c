"""What HeadGAN's edits move, measured on the pictures that come out: the table of models/headgan/README.md.

python -m pytest -m bench -s tests/bench/bench_edits.py

Reads a store in which the demo was run (REENACT_BENCH_STORE, `.reenact/store` if not set) and writes nothing.
`FRAMES` frames of every held-out head are stills that drive themselves, as `reenact animate` without
--driving does it. What comes out is enlarged to `SIDE` pixels, found by dlib's landmarks and fitted again,
all pictures of a head as one clip. What an edit moves is the difference to the fit of the true frames, which
holds what the net gets wrong without an edit too, and to that of its own pictures without the edit. The heads
are rendered, so the truth can be edited alike: the third column tells what the same measure finds of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from models.checkpoint import read_checkpoint
from models.headgan.inference import HeadGanReenactor
from models.headgan.spec import SPEC
from models.loading import load_reenactor
from models.perception.head.default_head import get_analytic_head
from models.perception.head.face_fitter import FaceFitSettings, fit_video
from models.perception.head.pose import rotation_to_euler
from models.reenactor import FaceFrames, MotionEdit, MotionTransfer
from pipelines.animate.perception import PerceptionNets, load_perception_nets
from pipelines.animate.sound import silence_features
from pipelines.engine.packs import ok_units_digest
from pipelines.engine.published_artifacts import read_whole_node_artifact
from pipelines.figures.picture_grids import to_uint8
from pipelines.media import FPS
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState
from pipelines.preprocess.sources.synthetic import sample_talking_head_poses, synthesize_speech
from storage import locations
from storage.families import Artifact, Family, decode_parquet, read_node_manifest
from storage.files import Store

STORE = os.environ.get("REENACT_BENCH_STORE", ".reenact/store")
FRAMES = 12
"""Stills of a head, evenly over its clip."""
SIDE = 256
"""Pixels that pictures are enlarged to before a face is looked for."""
TURN, BAND = 20.0, (15.0, 25.0)
JAW = 1.5
COMPONENT, SIGMAS = "jaw_width", 2.0
"""Of the identity. 68 landmarks tell little of most components, and next to nothing of some (head_depth)."""
MODEL = get_analytic_head()
AT_JAW, AT_COMPONENT = MODEL.exp_names.index("jaw_open"), MODEL.id_names.index(COMPONENT)
OWN, EDITED = "own", "edited"
"""Identities of a head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """An edit of one frame, and the same of the rendered head."""

    edit: MotionEdit
    angles: np.ndarray
    """(3,) degrees that the head then has"""
    jaw: float = 0.0
    """Sigmas more"""
    identity: str = OWN


def asked(angles: np.ndarray) -> dict[str, Asked]:
    """angles (3,) of a true frame -> the edits of it, by their names."""
    turn = float(-np.copysign(TURN, angles[1]))
    return {
        "none": Asked(edit=MotionEdit(), angles=angles),
        "turn": Asked(edit=MotionEdit(turn={"yaw": turn}), angles=angles + np.array([0, turn, 0])),
        "frontal": Asked(edit=MotionEdit(frontal=True), angles=np.zeros(3)),
        "jaw": Asked(edit=MotionEdit(expression={"jaw_open": JAW}), angles=angles, jaw=JAW),
        "identity": Asked(edit=MotionEdit(identity={COMPONENT: SIGMAS}), angles=angles, identity=EDITED),
    }


# --- the store ----------------------------------------------------------------------------------------------
def wholes(store: Store, node: str) -> list[Artifact]:
    """What a whole node published, the newest last."""
    found = []
    for folder in store.list_folders(locations.artifacts_folder(node)):
        key, _, steps = folder.partition("-")
        if (
            artifact := read_whole_node_artifact(store, node, key, int(steps) if steps else None)
        ) is not None:
            dated = {entry.name: entry.mtime for entry in store.list(artifact.folder)}
            found.append((dated["record.json"], artifact))
    return [artifact for _, artifact in sorted(found, key=lambda one: one[0])]


def family(store: Store, node: str, digest: str) -> Family:
    """The shards with this content."""
    for entry in store.list(locations.manifests_folder(node)):
        key = entry.name.removesuffix(".parquet")
        if ok_units_digest(read_node_manifest(store, node, key)) == digest:
            return Family(store, node, key)
    raise AssertionError(f"{store.base} no longer holds the {node} that headgan learned from")


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(STORE)


@pytest.fixture(scope="module")
def trained(store) -> Artifact:
    """The newest checkpoint of HeadGAN's last phase that was trained."""
    for phase in ("decay", "adversarial"):
        if found := wholes(store, f"train.headgan.{phase}"):
            return found[-1]
    pytest.skip(
        f"{store.base} holds no train.headgan.* artifact: `reenact run configs/run/demo.yaml` makes one, or "
        "set REENACT_BENCH_STORE to a store that does"
    )


# --- heads --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Head:
    """Frames of a held-out clip, and what draws them again."""

    frames: np.ndarray
    """(FRAMES,S,S,3) uint8, as stored"""
    squares: np.ndarray
    """(FRAMES,4) in pixels of the recording"""
    poses: Sequence[SyntheticHeadState]
    renderers: Mapping[str, HeadRenderer]
    """Of its identities"""

    def asked(self, name: str) -> list[Asked]:
        """An edit of every frame."""
        return [asked(pose.angles)[name] for pose in self.poses]

    def true(self, name: str, side: int) -> np.ndarray:
        """-> (FRAMES,side,side,3) uint8: the head drawn as the edit asks, cut and scaled as a clip is."""
        pictures = []
        for pose, square, what in zip(self.poses, self.squares, self.asked(name), strict=True):
            exp = pose.exp.copy()
            exp[AT_JAW] += what.jaw
            drawn = self.renderers[what.identity].render_frame(replace(pose, angles=what.angles, exp=exp))
            box = tuple(map(float, square))
            pictures.append(Image.fromarray(drawn).resize((side, side), Image.Resampling.BOX, box))
        return np.stack(pictures)


@pytest.fixture(scope="module")
def heads(store, trained) -> list[Head]:
    inputs = store.read_json(f"{trained.folder}/record.json")["inputs"]
    (table,) = [one for one in wholes(store, "recordings") if one.digest == inputs["recordings"]]
    path, clips = table.path("recordings.parquet"), family(store, "clips", inputs["clips"])
    rows = {row["id"]: row for row in decode_parquet(path.read_bytes()).to_pylist()}
    keys = [key for key in clips.keys if rows[clips.recording_of(key)]["split"] == "test"]
    if any(rows[clips.recording_of(key)]["source"] != "synthetic" for key in keys):
        pytest.skip(f"the held-out heads of {store.base} are not rendered ones, whose truth is known")
    return [head_of(rows[clips.recording_of(key)], clips, key) for key in keys]


def head_of(row: Mapping[str, Any], clips: Family, key: str) -> Head:
    """Draws a recording as `synthetic.render_synthetic_recording` does."""
    spec = json.loads(row["spec"])
    height, width = spec["height"], spec["width"]
    look = sample_person_appearance(np.random.default_rng(spec["identity_seed"]), spec["identity"], MODEL)
    rng = np.random.default_rng(row["seed"])
    setting = sample_synthetic_recording_appearance(rng, height, width)
    pitch = np.random.default_rng(spec["identity_seed"] + 1).uniform(95, 230)
    poses = sample_talking_head_poses(
        rng, synthesize_speech(rng, round(spec["seconds"] * FPS), pitch), height, width, MODEL.exp_names
    )
    other = look.id.copy()
    other[AT_COMPONENT] += SIGMAS
    stored = clips.read(key, ["clip", "crop"])
    chosen = np.linspace(0, clips.frame_count(key) - 1, FRAMES).round().astype(int)
    head = Head(
        clips.frames(key, chosen.tolist()),
        stored["crop"][chosen],
        [poses[stored["clip"]["start"] + frame] for frame in chosen],
        {
            name: HeadRenderer(MODEL, replace(look, id=id), setting, height, width)
            for name, id in ((OWN, look.id), (EDITED, other))
        },
    )
    side = head.frames.shape[1]
    off = np.abs(head.true("none", side).astype(float) - head.frames).mean()
    assert off < 6, f"{key}: drawn again it is off by {off:.1f} of 255; run the demo again with this code"
    return head


# --- pictures and what is found in them ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Found:
    """The fit of a head's pictures; NaN where none counts."""

    angles: np.ndarray
    """(FRAMES,3) degrees"""
    jaw: np.ndarray
    """(FRAMES,) sigmas"""
    id: np.ndarray
    """(n_id,) sigmas"""


@pytest.fixture(scope="module")
def nets(store) -> PerceptionNets:
    return load_perception_nets({"detector": "dlib_hog", "landmarker": "dlib68"}, store, "cpu")


def landmarks(nets: PerceptionNets, pictures: np.ndarray) -> np.ndarray:
    """(FRAMES,S,S,3) uint8 -> (FRAMES,68,2) pixels, NaN where no face is seen."""
    nothing = np.full(4, np.nan, np.float32)
    boxes = [some[0, :4] if len(some) else nothing for some in nets.detector.detect(pictures)]
    return nets.landmarker.landmarks(pictures, np.stack(boxes))


def found(nets: PerceptionNets, pictures: np.ndarray) -> Found:
    """Pictures of one head -> what it does in them."""
    large = [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in pictures]
    points = landmarks(nets, np.stack(large))
    fit, good = fit_video(MODEL, points, points, FaceFitSettings())
    lost = np.where(good, 0.0, np.nan)
    return Found(rotation_to_euler(fit.rotation) + lost[:, None], fit.exp[:, AT_JAW] + lost, fit.id)


def animated(reenactor: HeadGanReenactor, nets: PerceptionNets, head: Head) -> Callable[[str], np.ndarray]:
    """-> name of an edit -> (FRAMES,I,I,3) uint8: every frame driven by itself."""
    points, quiet = landmarks(nets, head.frames), silence_features(1, reenactor, nets)
    assert np.isfinite(points).all(), "dlib sees no face in a frame that is a source"
    boxes = np.zeros((1, 4), np.float32)  # not read by HeadGAN
    shown = [
        FaceFrames(frames=frame[None], boxes=boxes, landmarks=marks[None], audio_features=quiet)
        for frame, marks in zip(head.frames, points, strict=True)
    ]
    sources = [(reenactor.encode_sources(one), reenactor.extract_motion(one)) for one in shown]

    def edited(name: str) -> np.ndarray:
        result = []
        for (scene, motion), what in zip(sources, head.asked(name), strict=True):
            how = MotionTransfer(motion=reenactor.default_motion, edit=what.edit)
            result.append(reenactor.render(scene, reenactor.transfer_motion(scene, motion, motion, how))[0])
        return to_uint8(np.stack(result))

    return edited


# --- the table ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Moved:
    """How far pictures are from others, head by head."""

    angles: np.ndarray
    """(heads,FRAMES,3) degrees; yaw is positive towards the other side"""
    jaw: np.ndarray
    """(heads,FRAMES) sigmas"""
    id: np.ndarray
    """(heads,n_id) sigmas"""

    @property
    def component(self) -> np.ndarray:
        """(heads,1) sigmas"""
        return self.id[:, [AT_COMPONENT]]


def moved(heads: Sequence[Head], before: Sequence[Found], after: Sequence[Found]) -> Moved:
    """From before to after."""
    angles = np.stack([now.angles - then.angles for then, now in zip(before, after, strict=True)])
    angles[..., 1] *= -np.sign([[pose.angles[1] for pose in head.poses] for head in heads])
    return Moved(
        angles,
        np.stack([now.jaw - then.jaw for then, now in zip(before, after, strict=True)]),
        np.stack([now.id - then.id for then, now in zip(before, after, strict=True)]),
    )


def spread(values: np.ndarray, digits: int = 1) -> str:
    return f"{np.nanmean(values):.{digits}f} +- {np.nanstd(values):.{digits}f}"


def each(values: np.ndarray, digits: int) -> str:
    """(heads,n) -> the spread of all, and the mean of each head."""
    means = [f"{value:.{digits}f}" for value in np.nanmean(values, axis=1)]
    return f"{spread(values, digits)}; {', '.join(means)} a head"


def turned(one: Moved) -> str:
    yaw = one.angles[..., 1]
    share = np.mean((yaw >= BAND[0]) & (yaw <= BAND[1]), where=np.isfinite(yaw))
    return f"{each(yaw, 1)}; {share:.0%} within {BAND[0]:.0f} to {BAND[1]:.0f}"


def beside(name: str, one: Moved) -> str:
    """What the edit is not about."""
    axes = {"turn": (0, 2), "frontal": ()}.get(name, (0, 1, 2))
    angles = [f"{('pitch', 'yaw', 'roll')[axis]} {spread(one.angles[..., axis])}" for axis in axes]
    jaw = [f"jaw {spread(one.jaw, 2)}"] * (name != "jaw")
    others = np.delete(one.id, AT_COMPONENT, axis=1) if name == "identity" else one.id
    return ", ".join([*angles, *jaw, f"identity {np.sqrt(np.square(others).mean()):.2f} a component"])


TITLES = {
    "none": "none",
    "turn": f"yaw by {TURN:.0f} degrees towards the other side",
    "frontal": "frontal",
    "jaw": f"`jaw_open` by {JAW:g} sigmas",
    "identity": f"`{COMPONENT}` by {SIGMAS:g} sigmas",
}
FIGURES: Mapping[str, Callable[[Moved], str]] = {
    "turn": turned,
    "jaw": lambda one: each(one.jaw, 2),
    "identity": lambda one: each(one.component, 2),
}


def left(some: Sequence[Found]) -> str:
    """How far heads are from frontal."""
    pitch, yaw, roll = np.nanmean(np.abs([one.angles for one in some]), axis=(0, 1))
    return f"pitch {pitch:.1f}, yaw {yaw:.1f}, roll {roll:.1f} left"


@pytest.mark.bench
def test_what_edits_move(heads, trained, nets):
    torch.set_num_threads(1)  # more are no faster on a tiny net
    files = {"renderer": read_checkpoint(trained.path("model.safetensors"))}
    net = load_reenactor(SPEC, files)
    net.set_frozen_nets({"analytic_head": MODEL})
    result = [animated(net, nets, head) for head in heads]
    ours = {name: [found(nets, edited(name)) for edited in result] for name in TITLES}
    true = {name: [found(nets, head.true(name, net.image_size)) for head in heads] for name in TITLES}
    lost = sum(int(np.isnan(one.jaw).sum()) for some in (*ours.values(), *true.values()) for one in some)
    print(
        f"\n{trained.node}, {trained.steps} steps, {net.image_size} px; {len(heads)} heads, {FRAMES} frames "
        f"each; {lost} of {2 * len(TITLES) * len(heads) * FRAMES} pictures show no face that fits\n\n"
        "| edit | from the true frame | from the same without the edit | true head, edited alike | what else "
        "moved, from the same without the edit |\n|---|---|---|---|---|"
    )
    gains = {name: moved(heads, true["none"], ours[name]) for name in TITLES}
    effects = {name: moved(heads, ours["none"], ours[name]) for name in TITLES}
    for name, title in TITLES.items():
        if name == "none":
            cells = [beside(name, gains[name]), "-", "-", "-"]
        elif name == "frontal":
            cells = [left(ours[name]), f"from {left(ours['none'])}", left(true[name])]
            cells.append(beside(name, effects[name]))
        else:
            of_true = moved(heads, true["none"], true[name])
            figure = FIGURES[name]
            cells = [figure(one) for one in (gains[name], effects[name], of_true)]
            cells.append(beside(name, effects[name]))
        print(f"| {title} | {' | '.join(cells)} |")
    assert BAND[0] <= np.nanmean(gains["turn"].angles[..., 1]) <= BAND[1]
    assert np.nanmean(effects["jaw"].jaw) > 0
    assert np.nanmean(effects["identity"].component) > 0
    assert np.abs(np.nanmean(effects["identity"].angles, axis=(0, 1))).max() < BAND[0] / 3
