"""Settings of stage `clips`, for those who cut, track and store as it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from msgspec import Struct, field

from storage import frame_codec


class FrameCodecConfig(Struct, frozen=True, kw_only=True):
    codec: frame_codec.FrameCodec = "jpeg"
    """jpeg; png: lossless, four to five times the bytes, as views.truth has it for evaluation; h264: short
    GOPs for small disks, a quarter of the bytes and twenty times the work for two frames."""
    quality: int = 95
    """jpeg, 1 to 100: 95 is 44.6 dB against the crop (41 to 47 in eight real clips at 256 px, halved colour
    takes most of it), 90 is 43.0 dB for 30 % fewer bytes."""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality {self.quality}: expected 1 to 100")


class ClipsConfig(Struct, frozen=True, kw_only=True):
    as_before: ClassVar[Mapping[str, object]] = {"max_drift": 0.45}

    size: int = 256
    """Side of a clip's frames in pixels."""
    frames: FrameCodecConfig = field(default_factory=FrameCodecConfig)
    """How the frames are stored."""
    min_frames: int = 64
    """Shorter tracks are dropped, but for still pictures."""
    max_frames: int = 1024
    """Longer tracks are cut into pieces."""
    min_size: int = 128
    """Tracks whose square (by voxceleb rules: the longer side of what the face's boxes cover, before that
    grows) is smaller, in pixels of the recording, are dropped."""
    rules: Literal["steady", "voxceleb", "headgan"] = "steady"
    """How boxes become tracks and crops: our way, or that of the published VoxCeleb cropper, or of HeadGAN's
    authors (preprocess/median_box.py), to the pixel."""
    increase: float = 0.1
    """voxceleb rules: growth of what a found face's boxes cover on each side, in its sides. Boxes given by
    the source bring their growth along. headgan rules: growth of the median box, likewise."""
    max_drift: float = 0.45
    """headgan rules: tracks are dropped in which an edge of the face's box lies further apart in two frames,
    in means of the frame's width and height."""
    detector: Literal["mp_face", "dlib_hog", "dlib_ladder", "s3fd", "mtcnn"] = "mp_face"
    """Net that finds faces where the source gives no tracks. mp_face: MediaPipe's detectors, for near, far
    and small faces, and in profile; dlib_ladder tries a CNN where HOG sees none; mtcnn: facenet-pytorch's,
    which HeadGAN's clips are cut by."""
    detect_every: int = 5
    """Frames between detections; boxes between them are interpolated."""
    detect_size: int = 512
    """Longest side of the frames shown to the detector; smaller recordings are shown as they are."""
    max_gap: int = 15
    """Frames a track survives without a detection."""
    iou: float = 0.25
    """Least overlap with a track's first box, both grown by `margin`; less starts a new track."""
    smooth: int = 13
    """Frames of the median filter over boxes."""
    margin: float = 0.35
    """Growth of the box on each side in boxes; boxes given by the source have theirs already."""
    lift: float = 0.12
    """Shift of the square upwards in boxes: detectors frame the face, a clip shows the head."""
    faces: Literal["largest", "all"] = "largest"
    """Of tracks that overlap in time, keep the one with the larger face, or all, each as an identity of its
    own."""
    aspect: Literal["square", "stretch"] = "square"
    """Boxes given by the source: made square about their centre, or squeezed as the VoxCeleb loaders of FOMM
    do."""
    out_of_frame: Literal["drop", "pad", "clamp", "clip"] = "clamp"
    """A square that leaves the frame: drop the track, mirror the border, move (and if need be shrink) the
    square, or clip it at the border, which stretches what is left."""
    scene_cuts: Literal["off", "found", "all"] = "found"
    """Part tracks where the scene changes: never, those we find, or given ones too (one more decode)."""
    scene_change: float = 10.0
    """Score of ffmpeg's scdet filter, 0 to 100, from which a change that lasts is a cut."""
    identity: Literal["off", "dlib128_mesh", "dlib128"] = "off"
    """Net whose embeddings part the tracks we find where one face becomes another."""
    identity_distance: float = 0.6
    """Distance of two embeddings from which they are two people; dlib's own figure is 0.6."""
    identity_every: int = 25
    """Frames between embeddings, of those that the detector sees; one costs 80 ms with dlib128, 12 ms with
    dlib128_mesh, the same net in torch."""
    min_sharpness: float = 0.0
    """Clips whose face is blurred more are dropped: median variance of the Laplacian, in grey levels squared
    at the clip's size. This and the next two gates are off at 0; their scores are recorded anyway."""
    min_visible: float = 0.0
    """Clips in which the detector sees the face in a smaller share of the frames looked at are dropped."""
    min_audible: float = 0.0
    """Clips with sound in a smaller share of the frames are dropped."""
    sound_floor: float = 0.001
    """RMS of a frame's sound, of 1, above which it counts as sound: 0.001 is -60 dB."""

    @property
    def nets(self) -> tuple[str, ...]:
        """Perception nets of this stage."""
        return (self.detector,) if self.identity == "off" else (self.detector, self.identity)

    def __post_init__(self) -> None:
        if not (32 <= self.size <= 1024 and self.size % 2 == 0):
            raise ValueError(f"size {self.size}: expected an even number from 32 to 1024")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(f"min_frames {self.min_frames}: expected 1 to max_frames {self.max_frames}")
        if not 1 <= self.detect_every <= 50:
            raise ValueError(f"detect_every {self.detect_every}: expected 1 to 50")
        if not 128 <= self.detect_size <= 2048:
            raise ValueError(f"detect_size {self.detect_size}: expected 128 to 2048")
        if self.max_gap < 0 or self.min_size < 2:
            raise ValueError(f"max_gap {self.max_gap}, min_size {self.min_size}: expected at least 0 and 2")
        if not 0 < self.iou < 1:
            raise ValueError(f"iou {self.iou}: expected a number between 0 and 1")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ValueError(f"smooth {self.smooth}: expected an odd number of frames")
        if not (0 <= self.margin <= 3 and -1 <= self.lift <= 1):
            raise ValueError(f"margin {self.margin}, lift {self.lift}: expected 0 to 3 and -1 to 1")
        if self.rules == "headgan" and (self.identity != "off" or self.faces != "largest"):
            raise ValueError(
                f"rules headgan with identity {self.identity} and faces {self.faces}: they frame one face a "
                "track and embed none; expected off and largest"
            )
        if not self.max_drift > 0:
            raise ValueError(f"max_drift {self.max_drift}: expected a number above 0")
        if not 0 <= self.increase <= 3:
            raise ValueError(f"increase {self.increase}: expected 0 to 3")
        if not 0 < self.scene_change <= 100 or not 0 < self.identity_distance <= 2 or self.identity_every < 1:
            raise ValueError(
                f"scene_change {self.scene_change}, identity_distance {self.identity_distance}, "
                f"identity_every {self.identity_every}: expected 0 to 100, 0 to 2, and at least 1"
            )
        if not (0 <= self.min_visible <= 1 and 0 <= self.min_audible <= 1 and self.min_sharpness >= 0):
            raise ValueError(
                f"min_visible {self.min_visible}, min_audible {self.min_audible}, min_sharpness "
                f"{self.min_sharpness}: expected shares from 0 to 1, and 0 or more"
            )
        if not 0 <= self.sound_floor < 1:
            raise ValueError(f"sound_floor {self.sound_floor}: expected 0 up to, not including, 1")


# --- views -------------------------------------------------------------------------------------------------
VIEW_SIZES = {"vox_max": 512, "vox512": 512, "ffhq256": 256}


class CropViewConfig(Struct, frozen=True, kw_only=True):
    not_in_key: ClassVar[tuple[str, ...]] = ("splits", "keypoints")
    as_before: ClassVar[Mapping[str, object]] = {"min_size": 0}

    recipe: Literal["vox_max", "vox512", "ffhq256", "clip_square"] = "vox512"
    """See the table above."""
    size: int | None = None
    """Side of the frames in pixels, of vox_max the longest; None = 512, ffhq256 256. clip_square has the
    clips' own, and takes none."""
    min_size: int = 0
    """Clips whose square is smaller, in pixels of the recording, are left out of the view, and so of what is
    trained on it; 0 = none. ffhq256: frames whose square about the face is."""
    every: int = 25
    """ffhq256: one frame in so many; 25 is one a second, as the directions are trained."""
    frames: FrameCodecConfig = field(default_factory=FrameCodecConfig)
    """How the frames are stored."""
    splits: tuple[Literal["train", "test"], ...] = ()
    """Only recordings of these splits are cut; empty = all."""
    keypoints: str = "main"
    """ffhq256: the instance of keypoints whose landmarks frame the face."""

    def __post_init__(self) -> None:
        if self.recipe == "clip_square":
            if self.size is not None:
                raise ValueError(
                    f"size {self.size}: recipe clip_square has the clips' own, clips.size; leave it out"
                )
        elif not (64 <= self.frame_side <= 2048 and self.frame_side % 2 == 0):
            raise ValueError(f"size {self.size}: expected an even number from 64 to 2048")
        if self.every < 1 or self.min_size < 0:
            raise ValueError(f"every {self.every}, min_size {self.min_size}: expected at least 1, and 0")

    @property
    def frame_side(self) -> int:
        """Not of clip_square, whose side is that of the clips."""
        return self.size or VIEW_SIZES[self.recipe]


def default_crop_views() -> dict[str, CropViewConfig]:
    """One of each recipe, by its name."""
    return {
        "vox_max": CropViewConfig(recipe="vox_max"),
        "vox512": CropViewConfig(recipe="vox512"),
        "ffhq256": CropViewConfig(recipe="ffhq256"),
        "truth": CropViewConfig(recipe="clip_square", frames=FrameCodecConfig(codec="png"), splits=("test",)),
    }
