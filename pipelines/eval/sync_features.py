"""What metrics compare of lips and sound by SyncNet: an embedding of every five frames, cropped in one of
three ways, and of the sound beside them.

A row is of the window that begins at its driving frame. The sound's are computed once, of the driving clip;
those of a window that is no fifth of a second in a row, as driving frames leave a source frame out, are NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from models.perception.speech.syncnet import (
    EMBEDDING_SIZE,
    SAMPLES_PER_FRAME,
    WINDOW_FRAMES,
    count_windows,
    speech_coefficients,
)
from pipelines.eval.features import (
    MAX_SOUND_LAG,
    MESH_LANDMARKS_FEATURE,
    NET_FRAME_SIZE,
    largest_faces,
    read_input_feature,
)
from pipelines.eval.lip_crops import (
    crop_faces,
    face_track,
    finite_runs,
    landmark_boxes,
    resize_to_face_side,
)
from pipelines.eval.mesh_features import configure_nets
from pipelines.eval.pair_clips import PairClip
from pipelines.preprocess.keypoints import perception_inference_settings

if TYPE_CHECKING:
    from models.perception.interfaces import FaceDetector
    from models.perception.speech.syncnet import SyncNet
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample
    from pipelines.eval.pairs import PairRow

MIN_FACE_SCORE = 0.9
"""Of S3FD, as the authors ask for."""
WINDOWS_PER_BATCH = 8
"""The first maps of one window take 4.6 MB."""


def compute_lips_of_mesh_boxes(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """sync_lips (W,1024) float32, W = T - 4, of faces cropped about 68 mesh landmarks; NaN where there is no
    face, and one such row of a clip under five frames. Of a single picture one row, of five times the same.
    Without the net, or without landmarks, their weights."""
    sample, points = inputs["generated"][0], read_input_feature(inputs, MESH_LANDMARKS_FEATURE)
    if needs := points.get("needs") or _needs_syncnet(nets):
        yield {"__key__": sample["__key__"], "needs": needs}
        return
    frames = sample["frames"]
    boxes = landmark_boxes(points["landmarks"]) * frames.shape[1] / NET_FRAME_SIZE
    net = _configured(nets, runtime)
    yield {"__key__": sample["__key__"], "sync_lips": embed_cropped_lips(net, frames, boxes)}


def compute_lips_of_s3fd_boxes(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The same of S3FD's boxes, those of the authors: the largest of at least .9 in each frame."""
    sample = inputs["generated"][0]
    if needs := _needs_syncnet(nets) or ({} if "s3fd" in nets else {"weights": "s3fd"}):
        yield {"__key__": sample["__key__"], "needs": needs}
        return
    detector = cast("FaceDetector", nets["s3fd"])
    configure_nets((detector,), runtime)
    found = detector.detect(sample["frames"])
    boxes = largest_faces([rows[rows[:, 4] >= MIN_FACE_SCORE] for rows in found])
    net = _configured(nets, runtime)
    yield {"__key__": sample["__key__"], "sync_lips": embed_cropped_lips(net, sample["frames"], boxes)}


def compute_lips_of_whole_frames(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The same of whole frames at 224 px, as Wav2Lip evaluates clips that are cropped already."""
    sample = inputs["generated"][0]
    if needs := _needs_syncnet(nets):
        yield {"__key__": sample["__key__"], "needs": needs}
        return
    net = _configured(nets, runtime)
    yield {"__key__": sample["__key__"], "sync_lips": embed_lips(net, resize_to_face_side(sample["frames"]))}


def compute_speech(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """sync_sound (W,1024) float32 of the driving sound, W = T - 5; NaN of a clip without sound, and one such
    row of a clip under six frames. Without the net, its weights."""
    pair = cast("PairRow", inputs["pairs"][0])
    if needs := _needs_syncnet(nets):
        yield {"__key__": pair["id"], "needs": needs}
        return
    sound = driving_sound(inputs)
    net = _configured(nets, runtime)
    yield {"__key__": pair["id"], "sync_sound": embed_speech(net, sound, pair["driving_frames"])}


def compute_loudness(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """loudness (T,11) float32: root mean square, in [0,1], of the sound beside each driving frame and the
    five frames on either side of it, the latest first; NaN of a clip without sound and beyond its ends."""
    pair = cast("PairRow", inputs["pairs"][0])
    yield {
        "__key__": pair["id"],
        "loudness": loudness_at_lags(driving_sound(inputs), pair["driving_frames"]),
    }


def driving_sound(inputs: Mapping[str, FamilySamples]) -> np.ndarray | None:
    """The sound (n,) float32 that goes with the driving frames, at 16 kHz from its clip's first frame on;
    None of a clip that has none."""
    pair = cast("PairRow", inputs["pairs"][0])
    clip = PairClip(pair["sound_clip"] or pair["driving_clip"], [inputs["clips"]])
    return clip.read_field("sound") if clip.read_field("clip")["has_sound"] else None


def _needs_syncnet(nets: Mapping[str, object]) -> dict[str, str]:
    return {} if "syncnet" in nets else {"weights": "syncnet"}


def _configured(nets: Mapping[str, object], runtime: RuntimeConfig) -> SyncNet:
    net = cast("SyncNet", nets["syncnet"])
    net.configure_inference(perception_inference_settings(runtime, "float32"))
    return net


# --- windows ------------------------------------------------------------------------------------------------
def embed_cropped_lips(net: SyncNet, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """frames (T,S,S,3) uint8, boxes (T,4) in their pixels, NaN without a face -> (max(1, T - 4),1024)
    float32"""
    track = face_track(boxes)
    runs = finite_runs(track)
    if len(frames) == 1 and runs:
        return embed_lips(net, crop_faces(frames, track))
    out = np.full((max(1, len(frames) - WINDOW_FRAMES + 1), EMBEDDING_SIZE), np.nan, np.float32)
    for run in runs:
        if run.stop - run.start >= WINDOW_FRAMES:
            out[run.start : run.stop - WINDOW_FRAMES + 1] = embed_lips(
                net, crop_faces(frames[run], track[run])
            )
    return out


@torch.inference_mode()
def embed_lips(net: SyncNet, faces: torch.Tensor) -> np.ndarray:
    """faces (T,3,224,224) float32 RGB in 0..255 -> (T - 4,1024) float32; of a single picture one row, of five
    times the same, and of two to four frames one of NaN."""
    if len(faces) == 1:
        faces = faces.expand(WINDOW_FRAMES, -1, -1, -1)
    windows = len(faces) - WINDOW_FRAMES + 1
    if windows < 1:
        return np.full((1, EMBEDDING_SIZE), np.nan, np.float32)
    found = []
    for start in range(0, windows, WINDOWS_PER_BATCH):
        some = faces[start : min(start + WINDOWS_PER_BATCH, windows) + WINDOW_FRAMES - 1]
        found.append(net.embed_lips(some[None].to(net.device) / 255)[0].cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def embed_speech(net: SyncNet, sound: np.ndarray | None, frames: Sequence[int]) -> np.ndarray:
    """sound (n,) float32 of the whole clip at 16 kHz; frames: numbers of the driving frames, ascending ->
    (max(1, T - 5),1024) float32"""
    out = np.full((max(1, len(frames) - WINDOW_FRAMES), EMBEDDING_SIZE), np.nan, np.float32)
    if sound is None:
        return out
    for start, stop in runs_of_frames(frames):
        piece = sound[SAMPLES_PER_FRAME * frames[start] : SAMPLES_PER_FRAME * (frames[stop - 1] + 1)]
        windows = count_windows(stop - start, len(piece))
        if windows:
            coefficients = torch.from_numpy(speech_coefficients(piece))[None].to(net.device)
            out[start : start + windows] = net.embed_speech(coefficients)[0, :windows].cpu().numpy()
    return out


def runs_of_frames(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending frame numbers -> (start, stop) of the longest runs of consecutive ones, as places in the
    list."""
    breaks = [i for i in range(1, len(frames)) if frames[i] != frames[i - 1] + 1]
    return list(zip([0, *breaks], [*breaks, len(frames)], strict=True)) if frames else []


def loudness_at_lags(sound: np.ndarray | None, frames: Sequence[int]) -> np.ndarray:
    """sound (n,) float32 at 16 kHz or None, numbers of frames at 25 fps -> (T,11) float32 root mean squares
    of the sound beside the frame MAX_SOUND_LAG after each, to that beside the frame as many before it; NaN
    where there is no sound."""
    out = np.full((len(frames), 2 * MAX_SOUND_LAG + 1), np.nan, np.float32)
    if sound is None:
        return out
    pieces = sound[: len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    loudness = np.sqrt(np.square(pieces, dtype=np.float64).mean(axis=1))
    beside = np.asarray(frames)[:, None] - np.arange(-MAX_SOUND_LAG, MAX_SOUND_LAG + 1)
    inside = (beside >= 0) & (beside < len(loudness))
    out[inside] = loudness[beside[inside]]
    return out
