"""Inference: a source encoded once, the motion of a whole video fitted, mixed with the source's face, edited
and rendered (spec 9).

Legend: T driving frames, S their side, I image side, P numbers of a face (motion.HeadMotion.packed), W frames
of the driving window, A length of an audio vector.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.checkpoint_metadata import parse_checkpoint_settings
from models.errors import InvalidFile, InvalidSettings
from models.headgan import visualize
from models.headgan.audio import select_audio_vectors
from models.headgan.blocks import fold_spectral_norm
from models.headgan.conditions import FaceRenderer
from models.headgan.config import Architecture, AudioFeatureConfig, HeadModelName
from models.headgan.driving import coefficient_deltas, edit_motion, fit_motion, transfer_motion
from models.headgan.fitter import TrainedFits
from models.headgan.motion import (
    MOTION_PARTS,
    HeadMotion,
    IdentityChoice,
    check_motion_array,
    driving_window_indices,
    parse_head_motion_arrays,
    read_clip_head_motion,
)
from models.headgan.network import Generator, GeneratorOutput
from models.perception.head.face_fitter import make_point_fitter
from models.perception.head.morphable import MorphableModel
from models.perception.head.raster_torch import Shading
from models.precision import autocast, choose_precision
from models.reenactor import (
    ABSOLUTE_MOTION_TRANSFER,
    ClipFrames,
    FaceFrames,
    Motion,
    MotionMode,
    MotionTransfer,
    Precision,
)
from models.task import Clip

TRAINING_ONLY_PREFIXES = ("image_discriminator.", "mouth_discriminator.")
"""Parts that a checkpoint may hold and inference does not need."""
MAX_PIXELS_PER_PASS = {"cpu": 65_536, "cuda": 16 * 65_536}
"""Pixels rendered in one pass: a published image, 4.2 s on a core; more of them are no faster there."""


# --- checkpoints --------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointModelSettings:
    """What a checkpoint says of itself, besides its provenance."""

    net: Architecture
    head: HeadModelName = "analytic_head"
    """Of models.perception.NETS: the morphable model that is rendered"""
    identity: IdentityChoice = "clip_mean"
    shading: Shading = "smooth"
    hearing: AudioFeatureConfig
    speech: Mapping[str, Any]
    """Settings of the speech encoder, as far as they are known"""
    fits: TrainedFits
    components: tuple[int, int] | None = None
    """Identity and expression components of the head that it learned with, where they are known"""

    @classmethod
    def from_metadata(cls, about: Mapping[str, Any]) -> CheckpointModelSettings:
        """Metadata -> value. TypeError, KeyError, InvalidFile for what is not known here."""
        for name, known in (("head", HeadModelName), ("identity", IdentityChoice), ("shading", Shading)):
            if about[name] not in get_args(known):
                raise InvalidFile(f"{name} {about[name]!r}: expected one of {', '.join(get_args(known))}")
        return cls(
            net=parse_checkpoint_settings(Architecture, about["architecture"], "architecture"),
            head=about["head"],
            identity=about["identity"],
            shading=about["shading"],
            hearing=parse_checkpoint_settings(AudioFeatureConfig, about["hearing"], "hearing"),
            speech=dict(about["speech"] or {}),
            fits=TrainedFits.from_metadata(about, about["head"]),
            components=_parse_components(about.get("head_components")),
        )


def _parse_components(found: object) -> tuple[int, int] | None:
    if found is None:
        return None
    if not isinstance(found, (list, tuple)) or [type(one) for one in found] != [int, int] or min(found) < 1:
        raise InvalidFile(f"head_components {reprlib.repr(found)}: expected two whole numbers of 1 or more")
    return found[0], found[1]


# --- the model ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class HeadGanEncodedSource:
    """A source as the net looks at it."""

    head: HeadMotion
    """One frame: its face, place and size, in pixels of images of side I"""
    condition: Tensor
    """(1,3,I,I) in [0,1]: NMFC or sketch"""
    image: Tensor
    """(1,3,I,I) RGB in [-1,1]"""
    maps: list[Tensor]
    """Of G's encoder at I, I/2, I/4"""


class HeadGanReenactor:
    """A trained generator, ready to drive (models.reenactor.Reenactor). Spectral norms are worked into its
    weights; `provenance` says which parts do not carry the published weights.
    """

    needs_full_video = True
    default_motion: MotionMode = "relative"

    def __init__(
        self,
        net: Generator,
        described: CheckpointModelSettings,
        provenance: Mapping[str, str],
        precision: Precision = "auto",
    ) -> None:
        """net: changed in place."""
        self.net, self.described = cast(Generator, fold_spectral_norm(net.eval())), described
        labels = described.fits.provenance(described.head)
        self.provenance = dict(provenance) | {part: what for part, what in labels.items() if what}
        self.image_size, self.speech_settings = described.net.image_size, described.speech
        self.fit_settings = described.fits.for_points
        points = dict.fromkeys(("landmarks", self.fit_settings.points))
        self.reads = (*points, "audio_features") if described.net.audio else tuple(points)
        self.nets = (described.head,)
        self.notes: list[str] = list(described.fits.notes)
        self.device = next(net.parameters()).device
        self.precision = choose_precision(precision, self.device)
        self.batch = max(
            1, MAX_PIXELS_PER_PASS["cuda" if self.device.type == "cuda" else "cpu"] // self.image_size**2
        )
        self._model: MorphableModel | None = None
        self._faces: FaceRenderer | None = None

    @classmethod
    def from_checkpoints(
        cls,
        checkpoints: Mapping[str, Checkpoint],
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
    ) -> HeadGanReenactor:
        """The checkpoint "renderer"; its discriminators are left out."""
        net, described, provenance = checkpoints["renderer"].load_net_and_metadata(
            CheckpointModelSettings.from_metadata,
            lambda described: Generator(described.net),
            TRAINING_ONLY_PREFIXES,
        )
        return cls(net.to(device), described, provenance, precision)

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """The head that it renders. InvalidSettings for one of other components than it learned with, and for
        one without the points that it fits."""
        model: MorphableModel = nets[self.described.head]
        found, expected = (model.n_id, model.n_exp), self.described.components
        if expected not in (None, found):
            raise InvalidSettings(
                f"head {self.described.head} has {found[0]} identity and {found[1]} expression components, "
                f"and this checkpoint learned with one of {expected[0]} and {expected[1]}: draw the head "
                "that it was trained with, from the same file (without --set headgan.head)"
            )
        make_point_fitter(self.fit_settings, model)
        self._model = model
        self._faces = FaceRenderer(model, self.image_size, self.described.shading, self.device)

    @property
    def morphable_model(self) -> MorphableModel:
        if self._model is None:
            raise ValueError(f"no {self.described.head} to fit: call `set_frozen_nets` first")
        return self._model

    def check_transfer(self, how: MotionTransfer) -> None:
        """InvalidSettings: relative motion always takes the source's size, so there is nothing to adapt; a
        component that the head does not have.
        """
        if how.adapt_scale:
            raise InvalidSettings(
                "headgan's relative motion always takes the source's size and place; leave out adapt_scale"
            )
        coefficient_deltas("expression", how.edit.expression, self.morphable_model)
        coefficient_deltas("identity", how.edit.identity, self.morphable_model)

    # --- what drives ---
    def audio_features_from_speech(self, speech: np.ndarray) -> np.ndarray:
        """speech (N,D), a row each 40 ms -> (N,A) float32."""
        if speech.shape[1] != self.described.net.audio:
            raise InvalidSettings(
                f"speech features of {speech.shape[1]} numbers, but this headgan learned with "
                f"{self.described.net.audio}: give the run that trained it (--run), for its speech encoder"
            )
        return select_audio_vectors(speech, range(len(speech)), self.described.hearing)

    def motion_from_arrays(self, parameters: Mapping[str, np.ndarray]) -> Motion:
        """What `motion.parse_head_motion_arrays` takes, and `size` (), the side of the image in whose
        pixels scale and translation are (without: I), and `speech` (T,A), what is heard (without: nothing).
        """
        given = dict(parameters)
        size, speech = np.asarray(given.pop("size", self.image_size)), given.pop("speech", None)
        zoom = self.image_size / float(check_motion_array("size", size, (), least=1))
        head = parse_head_motion_arrays(given, self.morphable_model.n_id, self.morphable_model.n_exp)
        return self._parts(head.rescale_pixels(zoom)) | self._sound(speech, len(head))

    def extract_motion(self, driving: FaceFrames) -> Motion:
        """-> landmarks (T,68,2) float32 in pixels of images of side I, NaN where there is no face; the points
        that faces are fitted to, if not those; speech (T,A).
        """
        zoom, motion = self.image_size / driving.frames.shape[1], {}
        for name in self.reads:
            if name == "audio_features":
                continue
            points: np.ndarray | None = getattr(driving, name)
            if points is None:
                raise ValueError(f"headgan reads {name}; these frames come without")
            motion[name] = torch.from_numpy(points.astype(np.float32) * zoom)
        return motion | self._sound(driving.audio_features, len(driving.frames))

    @torch.inference_mode()
    def encode_sources(self, sources: FaceFrames) -> HeadGanEncodedSource:
        """One source. InvalidSettings: more of them, or one to which the 3D face does not fit."""
        if len(sources.frames) != 1:
            raise InvalidSettings(
                f"headgan takes one source picture, found {len(sources.frames)}: it learned from one"
            )
        head, _ = self._fit(self.extract_motion(sources), "source")
        return self._scene(sources.frames, head)

    @torch.inference_mode()
    def transfer_motion(
        self, scene: HeadGanEncodedSource, driving: Motion, first: Motion, how: MotionTransfer
    ) -> Motion:
        """The whole video's motion -> packed (T,W,P) float32, windows; audio (T,A)."""
        self.check_transfer(how)
        head = self._transferred(scene, self._head(driving, "driving"), how)
        return {"packed": self._windows(head, range(len(head))), "audio": driving["speech"]}

    # --- pictures ---
    @torch.inference_mode()
    def render(self, scene: HeadGanEncodedSource, motion: Motion) -> np.ndarray:
        """-> (T,I,I,3) float32 in [0,1]"""
        parts = [(self.run_generator(scene, one)[0].image.float() + 1) / 2 for one in self._batches(motion)]
        return torch.cat(parts).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()

    @torch.inference_mode()
    def run_generator(self, scene: HeadGanEncodedSource, motion: Motion) -> tuple[GeneratorOutput, Tensor]:
        """All that the net makes of T frames, in one pass, and their own conditions (T,3,I,I) in [0,1]."""
        packed = motion["packed"].to(self.device)
        windows = self._conditions(packed)  # (T,W,3,I,I)
        audio = motion["audio"].to(self.device) if self.described.net.audio else None
        with autocast(self.precision, self.device):
            rendered = self.net.render(windows.flatten(1, 2), scene.image, scene.maps, audio)
        return rendered, windows[:, -1]

    @torch.inference_mode()
    def drive(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> np.ndarray:
        """From the clips' fits and the driving clip's speech features -> (T,I,I,3) float32 in [0,1].
        InvalidSettings for several sources.

        A clip that drives itself by absolute motion keeps its own fits, with `identity: frame` each frame's
        own face too. In all other pairs the face is the source's; relative motion is that of the whole
        driving clip."""
        return self.render(*self.prepare_drive(source, driving, transfer))

    @torch.inference_mode()
    def prepare_drive(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> tuple[HeadGanEncodedSource, Motion]:
        """What `drive` renders."""
        if len(source) != 1:
            raise InvalidSettings(
                f"headgan takes one source, found {len(source)}; set the protocol's sources to 1"
            )
        self.check_transfer(transfer)
        images = source.images()
        motion = self._stored_motion(source.clip, images.shape[1])
        scene = self._scene(images, motion.select_frames(list(source.indices)))
        if source.clip.key != driving.clip.key:
            motion = self._stored_motion(driving.clip, driving[:1].images().shape[1])
        if source.clip.key != driving.clip.key or transfer != ABSOLUTE_MOTION_TRANSFER:
            motion = self._transferred(scene, motion, transfer)
        packed = self._windows(motion, driving.indices)
        return scene, {"packed": packed, "audio": self._stored_audio(driving)}

    @torch.inference_mode()
    def visualize(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer = ABSOLUTE_MOTION_TRANSFER
    ) -> dict[str, np.ndarray]:
        """The frame's condition, the flow, and the source warped by it; title -> (I,I,3) uint8."""
        made, condition = self.run_generator(*self.prepare_drive(source, driving, transfer))
        nmfc = self.described.net.condition == "nmfc"
        panels = {"NMFC" if nmfc else "sketch": visualize.conditions_to_uint8(condition)[0]}
        if made.flow is not None:
            panels["flow"] = visualize.flow_to_colours(made.flow)[0]
            panels["warped source"] = visualize.images_to_uint8(made.warped)[0]
        return panels

    # --- details ---
    def _stored_motion(self, clip: Clip, side: int) -> HeadMotion:
        """Of a whole clip whose frames have this side, in pixels of images of side I."""
        motion = read_clip_head_motion(clip.read_field, self.described.identity)
        found = motion.identity.shape[1], motion.expression.shape[1]
        model = self.morphable_model
        if found != (model.n_id, model.n_exp):
            raise InvalidSettings(
                f"clip {clip.key}: fits of {found[0]} identity and {found[1]} expression components, and "
                f"head {self.described.head} has {model.n_id} and {model.n_exp}; set fits.NAME.model to the "
                "head that is drawn"
            )
        return motion.rescale_pixels(self.image_size / side)

    def _stored_audio(self, driving: ClipFrames) -> Tensor:
        """(T,A) of a clip's frames."""
        clip = driving.clip
        if not self.described.net.audio:
            return torch.zeros(len(driving), 0)
        has_sound = bool(clip.read_field("clip")["has_sound"])
        hearing, whose = self.described.hearing, f"clip {clip.key}"
        return torch.from_numpy(
            select_audio_vectors(clip.read_field("speech"), driving.indices, hearing, has_sound, whose)
        )

    def _transferred(
        self, scene: HeadGanEncodedSource, driving: HeadMotion, how: MotionTransfer
    ) -> HeadMotion:
        """The driving motion of a whole video on the source's face, edited."""
        other = how.edit.expression_of
        return edit_motion(
            transfer_motion(driving, scene.head, how.motion),
            how.edit,
            self.morphable_model,
            None if other is None else self._head(other, "expression").expression[0],
        )

    def _scene(self, frames: np.ndarray, head: HeadMotion) -> HeadGanEncodedSource:
        """frames (1,S,S,3) uint8"""
        image = visualize.frames_to_images(torch.from_numpy(frames).to(self.device)[None], self.image_size)[0]
        condition = self._conditions(torch.from_numpy(head.pack()).to(self.device))
        with autocast(self.precision, self.device):
            return HeadGanEncodedSource(head, condition, image, self.net.encode_reference(condition, image))

    def _head(self, motion: Motion, whose: str) -> HeadMotion:
        if "landmarks" not in motion:  # as `motion_from_arrays` gave it
            return HeadMotion(**{name: motion[name].numpy() for name in MOTION_PARTS})
        head, notes = self._fit(motion, whose)
        self.notes += notes
        return head

    def _fit(self, motion: Motion, whose: str) -> tuple[HeadMotion, list[str]]:
        """As the fits were made that the net learned from."""
        landmarks, points = (motion[name].numpy() for name in ("landmarks", self.fit_settings.points))
        return fit_motion(self.morphable_model, landmarks, whose, points, self.fit_settings)

    def _parts(self, head: HeadMotion) -> dict[str, Tensor]:
        return {name: torch.from_numpy(getattr(head, name)) for name in MOTION_PARTS}

    def _sound(self, speech: np.ndarray | None, frames: int) -> dict[str, Tensor]:
        """(T,A); zeros where nothing is heard, as in training. InvalidFile for another shape."""
        expected = (frames, self.described.net.audio)
        if speech is None or not self.described.net.audio:
            return {"speech": torch.zeros(expected)}
        return {"speech": torch.from_numpy(check_motion_array("speech", speech, expected).astype(np.float32))}

    def _windows(self, head: HeadMotion, frames: Sequence[int]) -> Tensor:
        """Motion of all frames -> (len(frames),W,P); before the first frame, that one again."""
        packed = torch.from_numpy(head.pack())
        return packed[
            torch.tensor([driving_window_indices(frame, self.described.net.frames) for frame in frames])
        ]

    def _conditions(self, packed: Tensor) -> Tensor:
        """packed (...,P) -> conditions (...,3,I,I). A frame that is in several windows is rendered once."""
        if self._faces is None:
            raise ValueError(f"no {self.described.head} to render: call `set_frozen_nets` first")
        flat, places = torch.unique(packed.flatten(0, -2), dim=0, return_inverse=True)
        nmfc = self.described.net.condition == "nmfc"
        conditions = self._faces.render_nmfc(flat) if nmfc else self._faces.render_sketch(flat)
        return conditions[places].unflatten(0, packed.shape[:-1])

    def _batches(self, motion: Motion) -> list[dict[str, Tensor]]:
        count = len(motion["packed"])
        return [
            {name: values[at : at + self.batch] for name, values in motion.items()}
            for at in range(0, count, self.batch)
        ]
