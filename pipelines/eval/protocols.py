"""How methods are compared, as values: where pairs of a source and a driving clip come from, what is done
with them, and at what size the frames are scored.

| kind | source | frames that drive | sound | truth |
|---|---|---|---|---|
| self_reenactment | frames of a clip | the clip | its own | the clip |
| cross_reenactment | frames of a clip | a clip of another identity | that clip's | none |
| audio_driven, sound: own | frames of a clip | the clip | its own | the clip |
| audio_driven, sound: other | frames of a clip | the clip | of a clip of another identity | none |
| frontalisation | frames of a clip | the clip, its head turned to the camera | its own | none |
| editing | frames of a clip | the source frame, one attribute at each value of a sweep | its own | none |

A protocol's name in a run file is a label. What two values must share to be compared is its id, a sentence
that holds every setting and a digest of the pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec import Struct

from models.reenactor import ANGLES, MotionEdit
from pipelines.eval.scored_frames import check_scored_family_name, describe_frame_codec

if TYPE_CHECKING:
    from pipelines.preprocess.clips_config import FrameCodecConfig

ProtocolKind = Literal["self_reenactment", "cross_reenactment", "audio_driven", "frontalisation", "editing"]
SoundChoice = Literal["own", "other"]
MotionMode = Literal["absolute", "relative"]
SWEPT_PARTS = ("pose", "turn", "expression", "identity")


class SweepConfig(Struct, frozen=True, kw_only=True):
    """What an editing protocol changes of the source: one frame is generated for each value."""

    attribute: str
    """pose.ANGLE: pitch, yaw or roll, set to the values, in degrees. turn.ANGLE: the values are added.
    expression.N, identity.N: coefficient N of the 3D head, by its number from 0; the values are added, in
    sigmas."""
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        part, _, name = self.attribute.partition(".")
        angle = part in ("pose", "turn")
        if part not in SWEPT_PARTS or (name not in ANGLES if angle else not name.isdecimal()):
            raise ValueError(
                f"attribute {self.attribute!r}: expected pose.ANGLE or turn.ANGLE, ANGLE one of "
                f"{', '.join(ANGLES)}, or expression.N or identity.N, N a number from 0"
            )
        if not self.values:
            raise ValueError("values []: expected one at least")

    def edit(self, value: float) -> MotionEdit:
        part, _, name = self.attribute.partition(".")
        return replace(MotionEdit(), **{part: {name: value}})


class EvaluationProtocol(Struct, frozen=True, kw_only=True):
    not_in_key: ClassVar[tuple[str, ...]] = ("source_data", "driving_data", "frames_from", "models")

    kind: ProtocolKind = "self_reenactment"
    """See the table of this module."""
    sound: SoundChoice = "own"
    """audio_driven: whose sound is heard. other: that of a clip of another identity, and for as many frames
    as both clips have."""
    sweep: SweepConfig | None = None
    """editing: what is changed."""
    models: tuple[str, ...] = ()
    """The models of the run that are judged by it; empty = all."""
    source_data: str = ""
    """The corpus whose test clips are sources; empty = `eval.data`. A still picture is a clip of one
    frame."""
    driving_data: str = ""
    """The corpus whose test clips drive, or of audio_driven the one whose sound does; empty = `eval.data`."""
    frames_from: str = ""
    """The family whose frames are sources, driving frames and truth, of both corpora; empty =
    `eval.frames_from`."""
    size: int = 256
    """Side, in pixels, at which every method's frames are scored; pictures of another size are resized to it.
    The papers' tables are of 256 px."""
    sources: int = 1
    """Source frames, whatever the model was trained with: 1 the first of the clip, 2 first and last, 3 first,
    middle and last. The papers do not say which; none of them is scored where there is a truth."""
    motion: MotionMode = "absolute"
    """relative: the driving head's changes since its first frame, with the source's own size and place."""
    max_pairs: int | None = None
    """Clips that are paired with themselves, spread evenly over all test clips in order of their keys; of
    pairs of two clips, pairs drawn. None = every clip once, or of two corpora all pairs that the draw
    gives."""
    frame_stride: int = 1
    """Judge every n-th driving frame."""
    max_frames: int | None = None
    """Driving frames of one pair, from the start of the clip; None = all."""
    pair_list: str = ""
    """A CSV file with the columns source and driving (clip keys; of audio_driven, driving is the clip that
    is heard): exactly these pairs, in place of drawing some. Further columns source_frames and
    driving_frames, numbers of frames of the clip at 25 fps with spaces in between, take the place of the
    protocol's choice."""
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
        if self.sound != "own" and self.kind != "audio_driven":
            raise ValueError(
                f"sound {self.sound}: only kind audio_driven hears another sound than the driving clip's"
            )
        if (self.kind == "editing") != (self.sweep is not None):
            found = "is there" if self.sweep else "is missing"
            raise ValueError(f"sweep {found}: kind editing, and no other, has one")
        if not self.joins_clips and self.source_data != self.driving_data:
            raise ValueError(
                f"source_data {self.source_data!r} and driving_data {self.driving_data!r}: {self.kind} "
                "pairs each clip with itself; set kind: cross_reenactment, or name one corpus in both"
            )
        if self.motion == "relative" and self.kind != "cross_reenactment":
            raise ValueError(
                f"motion relative: {self.kind} keeps the driving frames' own motion; set kind: "
                "cross_reenactment, or leave it out"
            )

    @property
    def joins_clips(self) -> bool:
        """Whether a pair is of two clips, of different identities."""
        return self.kind == "cross_reenactment" or self.has_other_sound

    @property
    def has_other_sound(self) -> bool:
        """Whether the second clip of a pair is heard, and not seen."""
        return self.kind == "audio_driven" and self.sound == "other"

    @property
    def has_truth(self) -> bool:
        """Whether each generated frame has a real one to be compared with."""
        return self.kind == "self_reenactment" or (self.kind == "audio_driven" and self.sound == "own")

    @property
    def follows_driving(self) -> bool:
        """Whether generated heads are to do what the driving frames do."""
        return self.kind not in ("frontalisation", "editing")

    def protocol_id(self, pairs: int, digest: str, stored: FrameCodecConfig) -> str:
        """The protocol's id. pairs: their number; digest: of their list; stored: how the frames are kept that
        it takes."""
        frames = "all" if self.max_frames is None else f"first {self.max_frames}"
        scored = ", not scored" if self.has_truth else ""
        sources = "" if self.sources == 1 else f"{self.sources} sources from first to last{scored}; "
        motion = f"{self.motion} motion; " if self.kind == "cross_reenactment" else ""
        sound = f"{self.sound} sound; " if self.kind == "audio_driven" else ""
        first = 1 if self.has_truth else 0
        what = "pairs" if self.joins_clips else "clips"
        driving = f"driving frames from {first}, stride {self.frame_stride}, {frames}"
        if self.sweep is not None:
            driving = f"{self.sweep.attribute} at {', '.join(f'{value:g}' for value in self.sweep.values)}"
        return (
            f"{self.kind}; {sound}{motion}{sources}{self.size} px, area-resized, 8 bit; "
            f"clips' frames kept as {describe_frame_codec(stored)}; {driving}; "
            f"{pairs} {what} that can drive every model, list {digest}"
        )
