"""How methods are compared, as values: where pairs of a source and a driving clip come from, and at what size
their frames are scored.

A protocol's name in a run file is a label. What two values must share to be compared is its id, a sentence
that holds every setting and a digest of the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec import Struct

from pipelines.eval.scored_frames import check_scored_family_name, describe_frame_codec

if TYPE_CHECKING:
    from pipelines.preprocess.clips_config import FrameCodecConfig

ProtocolKind = Literal["self_reenactment", "cross_reenactment"]
MotionMode = Literal["absolute", "relative"]


class EvaluationProtocol(Struct, frozen=True, kw_only=True):
    not_in_key: ClassVar[tuple[str, ...]] = ("source_data", "driving_data", "frames_from")

    kind: ProtocolKind = "self_reenactment"
    """self_reenactment: sources and driving frames are of one clip, so the driving frames are the ground
    truth. cross_reenactment: two clips of different identities, and no ground truth."""
    source_data: str = ""
    """The corpus whose test clips are sources; empty = `eval.data`. A still picture is a clip of one
    frame."""
    driving_data: str = ""
    """The corpus whose test clips drive; empty = `eval.data`."""
    frames_from: str = ""
    """The family whose frames are sources, driving frames and truth, of both corpora; empty =
    `eval.frames_from`."""
    size: int = 256
    """Side, in pixels, at which every method's frames are scored; pictures of another size are resized to it.
    The papers' tables are of 256 px."""
    sources: int = 1
    """Source frames, whatever the model was trained with: 1 the first of the clip, 2 first and last, 3 first,
    middle and last. The papers do not say which; none of them is scored."""
    motion: MotionMode = "absolute"
    """relative: the driving head's changes since its first frame, with the source's own size and place."""
    max_pairs: int | None = None
    """self_reenactment: clips, spread evenly over all test clips in order of their keys. cross_reenactment:
    pairs drawn. None = every clip once, or of two corpora all pairs that the draw gives."""
    frame_stride: int = 1
    """Judge every n-th driving frame."""
    max_frames: int | None = None
    """Driving frames of one pair, from the start of the clip; None = all."""
    pair_list: str = ""
    """A CSV file with the columns source and driving (clip keys): exactly these pairs, in place of drawing
    some."""
    seed: int = 0
    """Of the draw of pairs."""

    def __post_init__(self) -> None:
        if self.frames_from:
            check_scored_family_name(self.frames_from)
        for name in ("max_pairs", "max_frames", "frame_stride", "sources"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: expected 1 or more")
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size {self.size}: expected an even number of pixels, 16 or more")
        if self.kind == "self_reenactment" and self.source_data != self.driving_data:
            raise ValueError(
                f"source_data {self.source_data!r} and driving_data {self.driving_data!r}: self-reenactment "
                "pairs each clip with itself; set kind: cross_reenactment, or name one corpus in both"
            )
        if self.kind == "self_reenactment" and (self.motion != "absolute" or self.pair_list):
            setting = "motion" if self.motion != "absolute" else "pair_list"
            raise ValueError(
                f"{setting} {getattr(self, setting)}: self-reenactment pairs each clip with itself "
                "in absolute motion; set kind: cross_reenactment, or leave it out"
            )

    @property
    def has_truth(self) -> bool:
        """Whether each generated frame has a real one to be compared with."""
        return self.kind == "self_reenactment"

    def protocol_id(self, pairs: int, digest: str, stored: FrameCodecConfig) -> str:
        """The protocol's id. pairs: their number; digest: of their list; stored: how the frames are kept that
        it takes."""
        frames = "all" if self.max_frames is None else f"first {self.max_frames}"
        sources = "" if self.sources == 1 else f"{self.sources} sources from first to last, not scored; "
        motion = "" if self.has_truth else f"{self.motion} motion; "
        first = 1 if self.has_truth else 0
        what = "clips" if self.has_truth else "pairs"
        return (
            f"{self.kind}; {motion}{sources}{self.size} px, area-resized, 8 bit; "
            f"clips' frames kept as {describe_frame_codec(stored)}; "
            f"driving frames from {first}, stride {self.frame_stride}, {frames}; "
            f"{pairs} {what} that can drive every model, list {digest}"
        )
