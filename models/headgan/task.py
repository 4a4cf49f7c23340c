"""HeadGAN's training step: self-reenactment (supplement 2 and 3), and what inference loads.

A sample is two frames of one clip: the reference, and a driving frame, which is also what the net must
render; validation also looks at a reference and a driving frame of two people. What the net is told of them
(NMFC, or a sketch) is drawn on the training device from the stored coefficients and cameras, never stored as
pictures. Legend: B samples, S frame side, I image side, P numbers of a face (motion.HeadMotion.packed), W
frames of the driving window, A length of an audio vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from msgspec import to_builtins
from torch import Tensor, nn

from models import provenance
from models.errors import InvalidSettings
from models.gan import forward_with_frozen_weights
from models.headgan import losses, visualize
from models.headgan.audio import select_audio_vectors
from models.headgan.conditions import FaceRenderer
from models.headgan.config import (
    Architecture,
    AudioFeatureConfig,
    DiscriminatorConfig,
    ReconstructionLossConfig,
)
from models.headgan.discriminator import (
    crop_around_centres,
    image_discriminator,
    mouth_centre,
    mouth_discriminator,
)
from models.headgan.driving import transfer_motion
from models.headgan.fitter import TrainedFits, fits_record
from models.headgan.motion import (
    IdentityChoice,
    driving_window_indices,
    is_fit_window_valid,
    read_clip_head_motion,
)
from models.headgan.network import Generator, GeneratorOutput
from models.perception.head.morphable import MorphableModel
from models.perception.head.raster_torch import Shading
from models.perception.interfaces import PerceptualLossNet
from models.perception.vgg19 import VGG19_NAMES
from models.precision import at_least_float32
from models.task import Batch, Clip, Sample, StatelessTask, TrainingTable, TrainStep, ValidationOutput

Maps = list[list[Tensor]]
LossTerms = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True, slots=True)
class StepTensors:
    """Inputs, targets and outputs of a step."""

    source: Tensor
    """(B,3,I,I) the reference, RGB in [-1,1]"""
    target: Tensor
    """(B,3,I,I) the driving frame"""
    source_condition: Tensor
    """(B,3,I,I) in [0,1]: the reference's condition"""
    condition: Tensor
    """(B,3,I,I) that of the driving frame, the last of its window"""
    audio: Tensor | None
    """(B,A) what is heard at the driving frame"""
    packed: Tensor
    """(B,1+W,P) reference, then the driving window: pixels of images of side I"""
    rendered: GeneratorOutput


class HeadGanTask(StatelessTask):
    """Render the driving frame from the reference and the driving frame's face and sound."""

    def __init__(
        self,
        net: Architecture,
        discriminators: DiscriminatorConfig,
        terms: ReconstructionLossConfig,
        head: str,
        hearing: AudioFeatureConfig,
        identity: IdentityChoice,
        shading: Shading,
        recompute: bool,
        speech: Any = None,
        fit3dmm: Any = None,
        keypoints: Any = None,
    ) -> None:
        """head: the morphable model's name in models.perception.NETS. For `architecture_metadata`, settings
        of the stages of these names: how the features were made that a net which hears is given, None for one
        that does not; and how the faces were fitted, None where nobody knows.
        """
        self.architecture, self.discriminators, self.compared = net, discriminators, terms
        self.head, self.hearing = head, hearing
        self.identity: IdentityChoice = identity
        self.shading: Shading = shading
        self.speech = None if speech is None else to_builtins(speech)
        known = fit3dmm is not None and keypoints is not None
        self.fits = fits_record({"fit3dmm": fit3dmm, "keypoints": keypoints}) if known else {}
        self.net = Generator(net, recompute)
        nets: dict[str, nn.Module] = {"image_discriminator": image_discriminator(discriminators)}
        if discriminators.mouth:
            nets["mouth_discriminator"] = mouth_discriminator(discriminators, net.audio)
        for name, one in nets.items():
            self.net.add_module(name, one)
        self.eval_discriminators = {name: deepcopy(one).to("meta").eval() for name, one in nets.items()}
        """The discriminators without tensors of their own, in eval mode: see `DiscriminatorOutputs`."""
        self.model: MorphableModel | None = None
        self.perceptual_net: PerceptualLossNet | None = None
        self.renderers: dict[tuple[torch.device, bool], FaceRenderer] = {}

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """The head, and the perceptual losses' net, if the phase weighs one; else they have no losses."""
        self.model = nets[self.head]
        self.perceptual_net = next((net for name, net in nets.items() if name != self.head), None)

    def get_renderer(self, device: torch.device, full_head: bool = False) -> FaceRenderer:
        """The renderer of conditions on this device; full_head: of all of the head, not only the region that
        NMFC shows."""
        if self.model is None:
            raise ValueError(f"no {self.head} to render: call `use` first")
        if (device, full_head) not in self.renderers:
            size = self.architecture.image_size
            self.renderers[device, full_head] = FaceRenderer(
                self.model, size, self.shading, device, full_head=full_head
            )
        return self.renderers[device, full_head]

    # --- sampling: numpy, in the reader's threads ---
    def sample(
        self, rng: np.random.Generator, tables: Mapping[str, TrainingTable], training: bool
    ) -> Sample | None:
        """frames (2,S,S,3) uint8: reference and driving; packed (1+W,P) float32 in pixels of the net's
        images: the reference, then the driving window; audio (A,) float32, if the net hears.

        Training: any two frames whose fits count (C: the reference is one of eight chosen for their poses).
        Validation: the first frame and a later one, those that FSRT's looks at.
        """
        clip = tables["clips"].pick_clip(rng)
        chosen = self.choose_frames(rng, np.asarray(clip.read_field("fit_valid"), bool), training)
        if chosen is None:
            return None
        reference, driving = chosen
        frames = clip.frames([reference, driving])
        motion = read_clip_head_motion(
            clip.read_field,
            self.identity,
            [reference, *driving_window_indices(driving, self.architecture.frames)],
        ).rescale_pixels(self.architecture.image_size / frames.shape[1])
        sample = {"frames": np.ascontiguousarray(frames), "packed": motion.pack()}
        if self.architecture.audio:
            sample["audio"] = self.audio_vector(clip, driving)
        return sample

    def choose_frames(
        self, rng: np.random.Generator, valid: np.ndarray, training: bool
    ) -> tuple[int, int] | None:
        """valid (T,) bool -> reference and driving frame, or None where no two frames will do."""
        frames = self.architecture.frames
        if not training:
            if len(valid) < 2:
                return None
            driving = int(rng.integers(1, len(valid)))
            return (0, driving) if valid[0] and is_fit_window_valid(valid, driving, frames) else None
        usable = np.flatnonzero(valid)
        drivable = (
            usable if valid.all() else [t for t in usable if is_fit_window_valid(valid, int(t), frames)]
        )
        if len(usable) < 2 or not len(drivable):
            return None
        driving = int(rng.choice(drivable))
        return int(rng.choice(usable[usable != driving])), driving

    def audio_vector(self, clip: Clip, frame: int) -> np.ndarray:
        """(A,) float32; zeros where the recording has no sound. InvalidSettings for features of another
        length."""
        speech = clip.read_field("speech")
        if speech.shape[1] != self.architecture.audio:
            raise InvalidSettings(
                f"clip {clip.key}: speech features of {speech.shape[1]}, net.audio {self.architecture.audio}"
            )
        has_sound = bool(clip.read_field("clip")["has_sound"])
        return select_audio_vectors(speech, [frame], self.hearing, has_sound, f"clip {clip.key}")[0]

    def sample_cross(self, rng: np.random.Generator, source: Clip, driving: Clip) -> Sample | None:
        """As `sample`, the reference being the first frame of one clip and the driving frame one of another:
        the reference's face under the driving rotation and expression, with the size and place of relative
        motion, which is inference's default (1.6).
        """
        t = int(rng.integers(driving.length))
        fits = (
            np.asarray(source.read_field("fit_valid"), bool),
            np.asarray(driving.read_field("fit_valid"), bool),
        )
        if not (fits[0][0] and is_fit_window_valid(fits[1], t, self.architecture.frames)):
            return None
        frames = np.concatenate([source.frames([0]), driving.frames([t])])
        zoom = self.architecture.image_size / frames.shape[1]
        reference, motion = (
            read_clip_head_motion(clip.read_field, self.identity, chosen).rescale_pixels(zoom)
            for clip, chosen in ((source, [0]), (driving, None))
        )
        window = driving_window_indices(t, self.architecture.frames)
        transferred = transfer_motion(motion, reference, "relative").select_frames(window)
        sample = {"frames": frames, "packed": np.concatenate([reference.pack(), transferred.pack()])}
        if self.architecture.audio:
            sample["audio"] = self.audio_vector(driving, t)
        return sample

    # --- the step ---
    def run_generator(self, batch: Batch) -> StepTensors:
        """Render the conditions and run the generator."""
        images = visualize.frames_to_images(batch["frames"], self.architecture.image_size)  # (B,2,3,I,I)
        packed, audio = batch["packed"], batch.get("audio")
        renderer = self.get_renderer(packed.device)
        nmfc = self.architecture.condition == "nmfc"
        conditions = renderer.render_nmfc(packed) if nmfc else renderer.render_sketch(packed)  # (B,1+W,3,I,I)
        source_condition, driving = conditions[:, 0], conditions[:, 1:].flatten(1, 2)
        rendered = self.net(driving, source_condition, images[:, 0], audio)
        return StepTensors(
            images[:, 0], images[:, 1], source_condition, conditions[:, -1], audio, packed, rendered
        )

    def losses(self, batch: Batch, step: TrainStep | None = None) -> Mapping[str, Callable[[], Tensor]]:
        """step: not used, since every random number lies in the batch."""
        made = self.run_generator(batch)
        counted = losses.head_mask(made.condition) if self.compared.masked else None
        found: LossTerms = {"l1": lambda: losses.pixel_l1_loss(made.rendered.image, made.target, counted)}
        if self.architecture.flow:
            found["l1_warped"] = lambda: losses.pixel_l1_loss(made.rendered.warped, made.target, counted)
        if self.architecture.mask:
            found["mask"] = lambda: self.mask_loss(made)
        return found | self.perceptual_losses(made) | self.adversarial_losses(made)

    def perceptual_losses(self, step: StepTensors) -> LossTerms:
        """The net looks at the target once for both terms."""
        net = self.perceptual_net
        if net is None:
            return {}
        normalised = self.compared.vgg_normalised or net.name not in VGG19_NAMES
        known: list[list[Tensor]] = []

        def compare(image: Tensor) -> Tensor:
            if not known:
                with torch.no_grad():
                    known.append(net.features(losses.perceptual_net_input(step.target, normalised)))
            maps = net.features(losses.perceptual_net_input(image, normalised))
            return losses.perceptual_loss(maps, known[0], self.compared.perceptual_layers, net.name)

        found: LossTerms = {"perceptual": lambda: compare(step.rendered.image)}
        if self.architecture.flow:
            found["perceptual_warped"] = lambda: compare(step.rendered.warped)
        return found

    def mask_loss(self, step: StepTensors) -> Tensor:
        """The mask loss of C, with a target of our own: where the fitted heads of both frames lie.

        C takes all that a face parser does not call background, hair and clothes among it; we have no such
        net. Pixels of a person that the morphable model does not cover count as background here, so what is
        learnt from it is a tighter mask; a net that starts from released weights does better without the
        term.
        """
        found = step.rendered.mask
        assert found is not None  # `terms` offers this with a mask head only
        heads = self.get_renderer(step.packed.device, full_head=True).render_nmfc(
            step.packed[:, [0, -1]]
        )  # (B,2,3,I,I)
        return losses.mask_loss(found, losses.head_mask(heads[:, 1]), losses.head_mask(heads[:, 0]))

    def adversarial_losses(self, step: StepTensors) -> LossTerms:
        """The terms of both discriminators, theirs and those of the generator. The mouth lies where the
        fitted head has it, in both images alike.
        """
        image, target = at_least_float32(step.rendered.image), step.target
        found = self.discriminator_losses("image_discriminator", step.condition, image, target, "")
        if self.discriminators.mouth:
            centres = mouth_centre(
                self.get_renderer(step.packed.device).project_landmarks(step.packed[:, -1])
            )
            image, target = (
                crop_around_centres(one, centres, self.discriminators.mouth_size) for one in (image, target)
            )
            found |= self.discriminator_losses("mouth_discriminator", step.audio, image, target, "_mouth")
        return found

    def discriminator_losses(
        self, name: str, condition: Tensor | None, image: Tensor, target: Tensor, suffix: str
    ) -> LossTerms:
        """One discriminator's terms; suffix: of their names."""
        discriminator, frozen = self.net.get_submodule(name), self.eval_discriminators[name]
        outputs = DiscriminatorOutputs(discriminator, frozen, condition, image, target)
        return {
            f"gan{suffix}": lambda: losses.generator_gan_loss(outputs.fake_for_generator),
            f"feature_matching{suffix}": lambda: losses.feature_matching_loss(
                outputs.fake_for_generator, outputs.real
            ),
            f"discriminator{suffix}": lambda: (
                losses.real_hinge_loss(outputs.real) + losses.fake_hinge_loss(outputs.fake)
            ),
        }

    # --- validation ---
    def validation_step(self, batch: Batch) -> ValidationOutput:
        """Scores, with F: l1_warped, of images in [0,1] as validation's l1 and copy_l1 are; flow, its mean
        length in pixels.
        """
        step = self.run_generator(batch)
        scores: dict[str, float] = {}
        if (flow := step.rendered.flow) is not None:
            scores["l1_warped"] = losses.pixel_l1_loss(step.rendered.warped, step.target).item() / 2
            scores["flow"] = flow.norm(dim=1).mean().item()
        return self.show_step(step, scores)

    def cross_validation_step(self, batch: Batch) -> ValidationOutput:
        """The same row of a pair of two people: the condition that drives is of the source's face."""
        return self.show_step(self.run_generator(batch), {})

    def show_step(self, step: StepTensors, scores: dict[str, float]) -> ValidationOutput:
        """Row, as in the paper's Figure 3: source | its condition | driving frame | the condition that drives
        | flow | warped source | output; without F neither flow nor warped source.
        """
        made, what = step.rendered, "NMFC" if self.architecture.condition == "nmfc" else "sketch"
        source, driving, output = (
            visualize.images_to_uint8(one) for one in (step.source, step.target, made.image)
        )
        row = {
            "source": source,
            f"its {what}": visualize.conditions_to_uint8(step.source_condition),
            "driving frame": driving,
            f"driving {what}": visualize.conditions_to_uint8(step.condition),
        }
        if made.flow is not None:
            row["flow"] = visualize.flow_to_colours(made.flow)
            row["warped source"] = visualize.images_to_uint8(made.warped)
        row["output"] = output
        return ValidationOutput(
            row=np.concatenate(list(row.values()), axis=2),
            titles=tuple(row),
            scores=scores,
            source=source,
            driving=driving,
            output=output,
        )

    def architecture_metadata(self) -> dict[str, Any]:
        """What models/headgan/inference.py rebuilds net, head and sound from."""
        speech = self.speech and {name: v for name, v in self.speech.items() if name != "transcripts"}
        return {
            "model": "headgan",
            "architecture": to_builtins(self.architecture),
            "head": self.head,
            "identity": self.identity,
            "shading": self.shading,
            "hearing": to_builtins(self.hearing),
            "speech": speech,
            **({"head_components": [self.model.n_id, self.model.n_exp]} if self.model else {}),
            **self.fits,
        }

    def provenance(self) -> dict[str, str]:
        found = TrainedFits.from_metadata(self.fits, self.head).provenance(self.head) if self.fits else {}
        if self.speech and self.speech["encoder"] == "headgan":
            found["tokens"] = "transcripts" if self.speech["transcripts"] else "none"
        return found | provenance.perceptual_net_provenance(self.perceptual_net)


class DiscriminatorOutputs:
    """What one discriminator gives for a step's images, each computed when it is first asked for.

    Which terms share one is not known beforehand, and a term of weight 0 is computed without gradient: so all
    are computed in the gradient mode of the step. Spectral norm moves its estimate on by one power iteration
    in the discriminator's own pass; the generator's pass, which comes after it, goes through a copy in eval
    mode that computes with the discriminator's tensors, and so with the very weights of that pass.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        eval_copy: nn.Module,
        condition: Tensor | None,
        image: Tensor,
        target: Tensor,
    ) -> None:
        self.discriminator, self.eval_copy, self.condition = discriminator, eval_copy, condition
        self.image, self.target = image, target
        self.gradient = torch.is_grad_enabled()

    @property
    def real(self) -> Maps:
        """Of the target. Its maps serve feature matching too, detached there."""
        return self._real_and_fake[0]

    @property
    def fake(self) -> Maps:
        """Of the rendered image, cut off from the generator: for the discriminator's loss."""
        return self._real_and_fake[1]

    @cached_property
    def _real_and_fake(self) -> tuple[Maps, Maps]:
        """In one pass, as nothing in the discriminator mixes samples."""
        both = torch.cat([self.target, self.image.detach()])
        condition = None if self.condition is None else torch.cat([self.condition, self.condition])
        with torch.set_grad_enabled(self.gradient):
            scales: Maps = self.discriminator(condition, both)
        halves = [[one.chunk(2) for one in maps] for maps in scales]
        return [[one[0] for one in maps] for maps in halves], [[one[1] for one in maps] for maps in halves]

    @cached_property
    def fake_for_generator(self) -> Maps:
        """Of the rendered image: gradient reaches the image, not the discriminator."""
        _ = self._real_and_fake  # first, for spectral norm
        with torch.set_grad_enabled(self.gradient):
            return forward_with_frozen_weights(self.eval_copy, self.discriminator, self.condition, self.image)
