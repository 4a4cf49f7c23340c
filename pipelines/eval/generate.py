"""Nodes `generate.<method>.<protocol>`: the frames that a method makes of each pair, kept without loss.

Methods are the run's models, and what they are compared with: the truth (the driving frames at the judged
size, of protocols that have one), `copy_source` (the source frame, unchanged), `codec` (the truth through our
own MP4), `source_clip` (all frames of the clip that the source is from, of protocols without a truth), and
what landmarks alone give (landmark_baselines.py). All are scored at the protocol's size: pictures of another
size are resized, by area averages where they shrink, and everything is rounded to 8 bit, as a user would save
it. The frames that all of them begin with, truth included, are the clips' as they are stored, or lossless
(scored_frames.py).

T = driving frames of a pair, S = the scored size, I = a model's own image size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast
from typing import Protocol as Interface

import numpy as np

from models.reenactor import ClipFrames, MotionEdit, MotionTransfer
from pipelines.errors import UserError
from pipelines.eval.pair_clips import DubbedClip, FamilySamples, PairClip, Sample, clips_of_pair
from pipelines.eval.pair_sampling import driving_indices
from pipelines.eval.pairs import ClipPair, PairRow
from pipelines.eval.protocols import MotionMode, ProtocolKind, SweepConfig
from pipelines.figures import picture_grids
from pipelines.media.mp4_bytes import reencode_frames
from storage.frame_codec import EncodedFrames, encode_images

if TYPE_CHECKING:
    from models.reenactor import Reenactor
    from models.task import Clip
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.evaluated_models import EvaluatedModel

PAIRS_ROLE = "pairs"
"""Role of the input that is the table of pairs; all others are families of clips."""


class BaselineConfig(Interface):
    """What the baselines read of a protocol: all else of it is in the pair."""

    @property
    def size(self) -> int: ...


class SourceClipConfig(BaselineConfig, Interface):
    """What the frames of a source's whole clip are chosen by."""

    @property
    def frame_stride(self) -> int: ...
    @property
    def max_frames(self) -> int | None: ...


class GenerateConfig(BaselineConfig, Interface):
    """What a model reads of it."""

    @property
    def motion(self) -> MotionMode: ...
    @property
    def kind(self) -> ProtocolKind: ...
    @property
    def sweep(self) -> SweepConfig | None: ...


def generate_frames(
    inputs: Mapping[str, FamilySamples],
    config: GenerateConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """A model drives one pair. nets: `model`, and the perception nets that it needs."""
    pair, source, driving = read_pair_clips(inputs)
    model = cast("EvaluatedModel", nets["model"])
    reenactor = model.load_reenactor(nets, "cuda" if runtime.use_gpu else "cpu")
    transfers = motion_transfers(config)
    images = drive_pair(reenactor, pair, source, driving, transfers)
    frames = picture_grids.to_uint8(
        images if images.shape[1] == config.size else picture_grids.resize_frames(images, config.size)
    )
    yield {
        "__key__": pair.id,
        "frames": encode_frames_as_png(frames),
        "visualization": visualize_middle_frame(reenactor, pair, source, driving, transfers),
        "method": {"provenance": dict(reenactor.provenance), "image_size": reenactor.image_size},
    }


def driving_frames(
    inputs: Mapping[str, FamilySamples],
    config: BaselineConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The driving frames themselves."""
    pair, _, driving = read_pair_clips(inputs)
    yield {
        "__key__": pair.id,
        "frames": encode_frames_as_png(_at_size(driving, pair.driving_frames, config.size)),
    }


def copy_source(
    inputs: Mapping[str, FamilySamples],
    config: BaselineConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The first source frame: one picture, which stands for every driving frame."""
    pair, source, _ = read_pair_clips(inputs)
    yield {
        "__key__": pair.id,
        "frames": encode_frames_as_png(_at_size(source, pair.source_frames[:1], config.size)),
    }


def source_clip_frames(
    inputs: Mapping[str, FamilySamples],
    config: SourceClipConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """Frames of the clip that the source is from, as many and as far apart as driving frames would be: what
    that person really looks like."""
    pair, source, _ = read_pair_clips(inputs)
    frames = driving_indices(source.length, config.frame_stride, config.max_frames, [])
    yield {"__key__": pair.id, "frames": encode_frames_as_png(_at_size(source, frames, config.size))}


def codec(
    inputs: Mapping[str, FamilySamples],
    config: BaselineConfig,
    nets: Mapping[str, object],
    runtime: object = None,
) -> Iterator[Sample]:
    """The driving frames after one trip through the MP4 that we write: what a perfect model's video
    scores."""
    pair, _, driving = read_pair_clips(inputs)
    frames = reencode_frames(_at_size(driving, pair.driving_frames, config.size))
    yield {"__key__": pair.id, "frames": encode_frames_as_png(frames)}


def motion_transfers(config: GenerateConfig) -> list[MotionTransfer]:
    """What is done with the driving motion: one for all frames, or of an editing protocol one for each."""
    if config.sweep is not None:
        return [MotionTransfer(edit=config.sweep.edit(value)) for value in config.sweep.values]
    edit = MotionEdit(frontal=config.kind == "frontalisation")
    return [MotionTransfer(motion=config.motion, edit=edit)]


def drive_pair(
    reenactor: Reenactor,
    pair: ClipPair,
    source: PairClip,
    driving: PairClip | DubbedClip,
    transfers: Sequence[MotionTransfer],
) -> np.ndarray:
    """-> (T,I,I,3) float in [0,1]. UserError where the checkpoint gives what is no number."""
    for transfer in transfers:
        reenactor.check_transfer(transfer)
    sources = _frames_of(source, pair.source_frames)
    parts = _split_frames(pair.driving_frames, len(transfers))
    images = np.concatenate([
        reenactor.drive(sources, _frames_of(driving, frames), transfer)
        for frames, transfer in zip(parts, transfers, strict=True)
    ])  # fmt: skip
    size = reenactor.image_size
    expected = (len(pair.driving_frames), size, size, 3)
    if images.shape != expected:
        raise ValueError(
            f"pair {pair.id}: the model gave frames of shape {images.shape}, expected {expected}"
        )
    if not np.isfinite(images).all():
        raise UserError(
            f"pair {pair.id}: the model gave values that are not finite; its checkpoint is unusable"
        )
    return images


def _split_frames(frames: Sequence[int], parts: int) -> list[Sequence[int]]:
    """All of them, or one for each part."""
    return [frames] if parts == 1 else [[frame] for frame in frames]


def visualize_middle_frame(
    reenactor: Reenactor,
    pair: ClipPair,
    source: PairClip,
    driving: PairClip | DubbedClip,
    transfers: Sequence[MotionTransfer],
) -> dict[str, np.ndarray]:
    """What the model shows of how it made the middle frame: title, with its place in front -> (I,I,3)
    uint8."""
    middle = pair.driving_frames[len(pair.driving_frames) // 2]
    sources, driving_frame = _frames_of(source, pair.source_frames), _frames_of(driving, [middle])
    own = reenactor.visualize(sources, driving_frame, transfers[len(transfers) // 2])
    expected = (reenactor.image_size,) * 2 + (3,)
    for title, image in own.items():
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"picture {title!r}: {image.dtype} {image.shape}, expected uint8 {expected}")
    return {f"{place} {title}": image for place, (title, image) in enumerate(own.items())}


def encode_frames_as_png(frames: np.ndarray) -> EncodedFrames:
    """(T,S,S,3) uint8 -> PNG files in one member"""
    return encode_images(frames, "png")


def read_pair_clips(inputs: Mapping[str, FamilySamples]) -> tuple[ClipPair, PairClip, PairClip | DubbedClip]:
    """-> the pair, its source clip and its driving clip, which has the sound of the pair."""
    pair = ClipPair.from_row(cast("PairRow", inputs[PAIRS_ROLE][0]))
    clips = clips_of_pair(pair.source_clip, pair.driving_clip, inputs, [PAIRS_ROLE], pair.sound_clip)
    return pair, *clips


def _frames_of(clip: PairClip | DubbedClip, frames: Sequence[int]) -> ClipFrames:
    return ClipFrames(cast("Clip", clip), list(frames))


def _at_size(clip: PairClip | DubbedClip, frames: Sequence[int], size: int) -> np.ndarray:
    """-> (len(frames),S,S,3) uint8"""
    return picture_grids.to_uint8(picture_grids.resize_frames(clip.frames(frames), size))
