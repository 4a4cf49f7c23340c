"""What a model gives `reenact animate` and the evaluation: sources encoded once, motion read from driving
frames, motion fitted to the source, pictures.

The class that `ModelSpec.inference` names is a `Reenactor`; models/loading.py loads it. Importing this
module loads neither torch nor any model. T = frames, S = their side, I = the model's own image side."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from models.errors import InvalidSettings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from models.checkpoint import Checkpoint
    from models.task import Clip

Motion = Mapping[str, "Tensor"]
"""What a model reads from frames, by name; the first dimension of each tensor is T. A few kB a frame, so that
a video's motion can be held where its frames cannot.
"""
Precision = Literal["auto", "fp32", "bf16"]
"""Numbers the nets work with. auto: bf16 on a GPU, else fp32. What needs fp32 keeps it."""
MotionMode = Literal["absolute", "relative"]
ANGLES = ("pitch", "yaw", "roll")
"""Degrees, all 0 for a head that looks at the camera; signs as in models/perception/head/pose.py."""
MAX_FACELESS_SHARE = 0.5
"""Share of the driving frames without a face, or without one that can be read, beyond which there is nothing
to drive with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceFrames:
    """Frames cropped as the model's training clips were."""

    frames: np.ndarray
    """(T,S,S,3) uint8 RGB"""
    boxes: np.ndarray
    """(T,4) float32: the face in pixels of these frames, x0, y0, x1, y1; NaN where none was found"""
    landmarks: np.ndarray | None = None
    """(T,68,2) float32 pixels of these frames, iBUG order, NaN where there is no face; for models that read
    them"""
    landmarks3d: np.ndarray | None = None
    """(T,68,3) float32: the same with a depth in pixels, likewise"""
    dense: np.ndarray | None = None
    """(T,m,3) float32: the points of a face mesh, with a depth in pixels, smaller nearer, likewise"""
    audio_features: np.ndarray | None = None
    """(T,A) float32: what is heard at each frame, as `Reenactor.audio_features_from_speech` makes it;
    without, what training gives clips that have no sound"""


@dataclass(frozen=True, slots=True)
class ClipFrames:
    """Some frames of a stored clip, as sources or to drive. Fields are read of the whole clip."""

    clip: Clip
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> ClipFrames:
        return ClipFrames(self.clip, self.indices[part])

    def images(self) -> np.ndarray:
        """(n,S,S,3) uint8 RGB"""
        return self.clip.frames(self.indices)


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionEdit:
    """What is changed of the motion before it is rendered, the same in every frame, in this order."""

    frontal: bool = False
    """The head looks at the camera: all angles 0."""
    pose: Mapping[str, float] = field(default_factory=dict)
    """Some of `ANGLES` -> degrees that they are set to"""
    turn: Mapping[str, float] = field(default_factory=dict)
    """Some of `ANGLES` -> degrees added"""
    expression_of: Motion | None = None
    """One frame of motion, whose expression is taken"""
    expression: Mapping[str, float] = field(default_factory=dict)
    """Component of the expression, by its number from 0 or its name -> what is added, in sigmas"""
    identity: Mapping[str, float] = field(default_factory=dict)
    """The same of the identity: whose face is drawn"""

    def __post_init__(self) -> None:
        for name, changes in (("pose", self.pose), ("turn", self.turn)):
            if unknown := sorted(set(changes) - set(ANGLES)):
                raise InvalidSettings(f"{name} {', '.join(unknown)}: expected some of {', '.join(ANGLES)}")
        for name in ("pose", "turn", "expression", "identity"):
            for key, value in getattr(self, name).items():
                if not isfinite(value):
                    raise InvalidSettings(f"{name} {key}={value}: expected a finite number")

    @property
    def changes(self) -> list[str]:
        """What is changed, for people; empty where nothing is."""
        return [
            *["frontal"] * self.frontal,
            *(f"{angle} set to {value:g} degrees" for angle, value in self.pose.items()),
            *(f"{angle} {value:+g} degrees" for angle, value in self.turn.items()),
            *["expression of another picture"] * (self.expression_of is not None),
            *(f"expression {name} {value:+g} sigmas" for name, value in self.expression.items()),
            *(f"identity {name} {value:+g} sigmas" for name, value in self.identity.items()),
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionTransfer:
    """How the driving person's motion becomes the source's."""

    motion: MotionMode = "absolute"
    """absolute: pose and place of the driving head. relative: its changes, with the source's own size and
    place: since a first frame, or of the whole video's mean, as the model does it."""
    adapt_scale: bool = False
    """relative: changes are scaled by the size of the source's face over that of the driving face."""
    edit: MotionEdit = field(default_factory=MotionEdit)

    def __post_init__(self) -> None:
        if self.motion not in ("absolute", "relative"):
            raise InvalidSettings(f"motion {self.motion!r}: expected absolute or relative")
        if self.adapt_scale and self.motion == "absolute":
            raise InvalidSettings(
                "adapt_scale scales the changes of relative motion; with absolute it has no use"
            )


ABSOLUTE_MOTION_TRANSFER = MotionTransfer()
"""Pose and place of the driving head, unchanged."""


class Reenactor(Protocol):
    """A trained model, ready to be driven."""

    @classmethod
    @abstractmethod
    def from_checkpoints(
        cls, checkpoints: Mapping[str, Checkpoint], device: str | torch.device, precision: Precision
    ) -> Reenactor:
        """Checkpoints by their role (`ModelSpec.checkpoints`) -> the model. Raises InvalidFile where the
        tensors are not those of the net that the metadata describes."""
        ...

    image_size: int
    """I: side of the pictures it renders."""
    provenance: Mapping[str, str]
    """Parts that do not carry the published weights, e.g. {"kp_detector": "distilled"}."""
    batch: int
    """Driving frames to hand over at once: enough to keep the device busy; no result depends on it."""
    reads: tuple[str, ...]
    """What `FaceFrames` must carry besides frames: some of landmarks, landmarks3d, dense, audio_features;
    points of any kind come with landmarks."""
    speech_settings: Mapping[str, Any]
    """Settings of the speech encoder that it learned with, as far as its checkpoint tells them."""
    nets: tuple[str, ...]
    """Names in models.perception.NETS of what `set_frozen_nets` is to be given."""
    needs_full_video: bool
    """Whether `transfer` must be given the motion of the whole video, before its first frame is rendered.
    Frames without a face then stay in it; `notes` tell what stands for them."""
    default_motion: MotionMode
    """`MotionTransfer.motion` where the user says nothing."""
    notes: list[str]
    """What `transfer` had to mend, for people; grows."""

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """Called once, before anything else, with the nets of `nets`, by name."""
        ...

    def check_transfer(self, how: MotionTransfer) -> None:
        """Raises InvalidSettings, which says why, where the model cannot transfer motion this way."""
        ...

    def audio_features_from_speech(self, speech: np.ndarray) -> np.ndarray:
        """speech (N,D) of a whole sound, a row each 40 ms, as stage `speech` writes it -> (N,A) float32. Only
        of models that read speech; InvalidSettings where D is not what it learned with."""
        ...

    def motion_from_arrays(self, parameters: Mapping[str, np.ndarray]) -> Motion:
        """Motion that a user gives as numbers. Raises InvalidSettings or InvalidFile: the model takes none,
        or what is wrong with these."""
        ...

    @abstractmethod
    def encode_sources(self, sources: FaceFrames) -> Any:
        """All that rendering needs of one or more source pictures, computed once. Raises InvalidSettings or
        InvalidFile where it cannot make anything of one."""
        ...

    @abstractmethod
    def extract_motion(self, driving: FaceFrames) -> Motion: ...

    def transfer_motion(self, scene: Any, driving: Motion, first: Motion, how: MotionTransfer) -> Motion:
        """driving (T frames), first (one frame: where relative motion starts) -> motion to render (T).
        Raises InvalidFile where the motion cannot be told."""
        ...

    @abstractmethod
    def render(self, scene: Any, motion: Motion) -> np.ndarray:
        """-> (T,I,I,3) float32 in [0,1]"""
        ...

    def drive(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> np.ndarray:
        """Any pair of stored clips, or a clip and itself -> (T,I,I,3) float32 in [0,1]. Besides frames it
        reads the fields of `ModelSpec.driving_reads`, of both clips. Raises InvalidSettings for more sources
        than `ModelSpec.max_sources`."""
        ...

    def visualize(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> dict[str, np.ndarray]:
        """How `drive` came by one driving frame, for the report's pictures: title -> (I,I,3) uint8 RGB, the
        same titles for every pair. Empty for a model with nothing to show."""
        ...


class FrameDrivenReenactor(Reenactor):
    """Base of a `Reenactor` that is driven by frames alone and renders each of them by itself. It hears
    nothing, looks through no net but its own, and has no coefficients that could be edited; a subclass that
    can do more overrides `check`, and `transfer` for relative motion."""

    reads: tuple[str, ...] = ()
    speech_settings: Mapping[str, Any] = MappingProxyType({})
    nets: tuple[str, ...] = ()
    needs_full_video = False
    default_motion: MotionMode = "absolute"
    batch = 64

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """It has no use for any."""

    def check_transfer(self, how: MotionTransfer) -> None:
        """InvalidSettings: it neither edits nor transfers relative motion."""
        if wanted := [*how.edit.changes, *["relative motion"] * (how.motion == "relative")]:
            raise InvalidSettings(f"{', '.join(wanted)}: this model renders the driving motion unchanged")

    def audio_features_from_speech(self, speech: np.ndarray) -> np.ndarray:
        """InvalidSettings: it hears nothing."""
        raise InvalidSettings("this model hears nothing")

    def motion_from_arrays(self, parameters: Mapping[str, np.ndarray]) -> Motion:
        """InvalidSettings: nobody can state its motion in numbers."""
        raise InvalidSettings("this model is driven by a video or a picture, not by numbers")

    def transfer_motion(self, scene: Any, driving: Motion, first: Motion, how: MotionTransfer) -> Motion:
        """Absolute motion only."""
        self.check_transfer(how)
        return driving

    def drive(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> np.ndarray:
        """Reads the clips' frames alone. Relative motion starts at the first driving frame."""
        import numpy as np

        def faces(clip: ClipFrames) -> FaceFrames:
            frames = clip.images()
            return FaceFrames(frames=frames, boxes=np.full((len(frames), 4), np.nan, np.float32))

        scene, first, parts = self.encode_sources(faces(source)), None, []
        for start in range(0, len(driving), self.batch):
            motion = self.extract_motion(faces(driving[start : start + self.batch]))
            first = first or {name: values[:1] for name, values in motion.items()}
            parts.append(self.render(scene, self.transfer_motion(scene, motion, first, transfer)))
        return np.concatenate(parts)

    def visualize(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> dict[str, np.ndarray]:
        """Nothing to show."""
        return {}
