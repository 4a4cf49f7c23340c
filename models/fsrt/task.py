"""FSRT's training step: self-reenactment (supplement 7), and what inference loads.

A sample is n+1 frames of one clip: n sources and a driving frame, which is also what the net must render.
Frames are cropped in `sample`, at the side at which they are stored, so that crops keep their detail.
Every random number is drawn there too, so the losses are a pure function of batch and weights. Legend: B
samples, n sources, K keypoints, E expression size, P query pixels, S frame side, I image side, D detector
side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from msgspec import to_builtins
from torch import Tensor

from models.fsrt import augment, losses, visualize
from models.fsrt.config import Architecture, AugmentConfig, TrainingSampleConfig
from models.fsrt.keypoints import move_keypoints
from models.fsrt.network import Fsrt, KeysValues, pixel_grid
from models.precision import at_least_float32
from models.task import Batch, Clip, Sample, StatelessTask, TrainingTable, TrainStep, ValidationOutput

COLOUR_VERSIONS = 3
NO_CROP = np.zeros(4, np.float32)


@dataclass(frozen=True, slots=True)
class AugmentedFrames:
    """The colour and crop versions of a sample's frames that one step uses (1, 2, 3 = colour version)."""

    sources: Tensor
    """(B,n,3,I,I) version 1, cropped: what the encoder sees"""
    target: Tensor
    """(B,3,I,I) version 1 of the driving frame, cropped: what is rendered"""
    sources1: Tensor
    """(B,n,3,D,D) version 1, cropped, for detector and expression"""
    sources2: Tensor
    """(B,n,3,D,D) version 2, cropped"""
    driving: Tensor
    """(B,3,D,D) version 1 or 2, cropped"""
    driving_tight: Tensor
    """(B,3,D,D) version 3, cut from the whole frame as `AugmentConfig.expression_view` says"""
    sources2_full: Tensor
    """(B,n,3,D,D) version 2, not cropped: keypoints come from here"""
    driving2_full: Tensor
    """(B,3,D,D)"""
    crop: Tensor
    """(B,4) shares cut off: left, top, right, bottom"""
    source_moved: Tensor
    """(B,) bool: sources2_full differs from sources2 and needs its own pass; the same for driving2_full
    below
    """
    driving_moved: Tensor
    tight: Tensor
    """(B,) bool: the decoder gets the expression of driving_tight, else of driving"""
    present: Tensor | None = None
    """(B,n) bool: sources that count; None = all"""


@dataclass(frozen=True, slots=True)
class FrameChanges:
    """What is drawn for the frames of one sample; by default nothing changes."""

    mirrored: bool = False
    """All of its frames, before they are cropped"""
    crop: np.ndarray = field(default_factory=NO_CROP.copy)
    """(4,) of all of its frames, in shares of their side: left, top, right, bottom"""
    expression_crop: np.ndarray = field(default_factory=NO_CROP.copy)
    """(4,) of the third view of the driving frame"""
    colours: np.ndarray = field(default_factory=partial(augment.neutral_color_jitter, COLOUR_VERSIONS))
    """(3,8): `augment.sample_color_jitter`"""


@dataclass(frozen=True, slots=True)
class SourceAndDrivingMotion:
    """What detector and extractor say about a step's frames."""

    source_keypoints: Tensor  # (B,n,K,2)
    driving_keypoints: Tensor  # (B,K,2)
    sources1: Tensor  # (B,n,E)
    sources2: Tensor  # (B,n,E)
    driving: Tensor  # (B,E)
    driving_tight: Tensor  # (B,E)


@dataclass(frozen=True, slots=True)
class DecoderInputs:
    """What the decoder is asked of a sample's pixels."""

    motion: SourceAndDrivingMotion
    keys_values: KeysValues
    frame: Tensor  # (B,hidden): Decoder.frame


def gather_present_source_expressions(of_sources: Tensor, present: Tensor | None) -> Tensor:
    """(B,n,E) -> (N,E): the expressions of the sources that count."""
    return of_sources.flatten(0, 1) if present is None else of_sources[present]


class FsrtReenactmentTask(StatelessTask):
    """Render the driving frame from the source, its keypoints and its expression. Detector frozen."""

    def __init__(self, net: Architecture, sampling: TrainingSampleConfig, augment: AugmentConfig) -> None:
        self.architecture, self.sampling, self.changes = net, sampling, augment
        self.net = Fsrt(net)

    # --- sampling: numpy, in the reader's threads ---
    def sample(
        self, rng: np.random.Generator, tables: Mapping[str, TrainingTable], training: bool
    ) -> Sample | None:
        """n sources and a driving frame, with replacement as published; validation: the first n frames as
        sources, one of the others as driving frame.
        """
        n, clip = self.sampling.sources, tables["clips"].pick_clip(rng)
        if training:
            indices = rng.integers(clip.length, size=n + 1).tolist()
        else:
            if clip.length <= n:
                return None
            indices = [
                *range(n),
                int(rng.integers(n, clip.length)),
            ]  # never a source: that would score a copy
        landmarks = clip.read_points("landmarks", indices)
        if not np.isfinite(landmarks).all():
            return None
        frames, changes = clip.frames(indices), FrameChanges()
        if training:
            changes = self.sample_changes(rng, landmarks, frames.shape[1])
        return self.make_sample(rng, frames[:n], frames[n], changes, training)

    def sample_cross(self, rng: np.random.Generator, source: Clip, driving: Clip) -> Sample | None:
        """A validation sample with the first n frames of one clip as sources, a later frame of another as
        driving frame, and beside it driving_first (D,D,3), the other clip's first, where relative motion
        begins.
        """
        n = self.sampling.sources
        if source.length < n or driving.length < 2:
            return None
        t = int(rng.integers(1, driving.length))
        points = [source.read_points("landmarks", range(n)), driving.read_points("landmarks", [0, t])]
        if not all(np.isfinite(one).all() for one in points):
            return None
        first, frame = driving.frames([0, t])
        sample = self.make_sample(rng, source.frames(range(n)), frame, FrameChanges(), training=False)
        side = self.architecture.detector.size
        return sample | {"driving_first": augment.crop_and_resize([first], NO_CROP, side)[0]}

    def sample_changes(self, rng: np.random.Generator, landmarks: np.ndarray, side: int) -> FrameChanges:
        """landmarks (n+1,68,2) in pixels of frames of `side` pixels, the driving frame's last."""
        mirrored = rng.random() < self.changes.flip
        if mirrored:
            landmarks = augment.mirror_landmarks(landmarks, side)
        scaled, crop = landmarks * (augment.FRAME_SIZE / side), NO_CROP
        if rng.random() < self.changes.out_of_frame:
            crop = augment.sample_out_of_frame_crop(rng, scaled[:-1], side)
        expression_crop = self.sample_expression_view_crop(rng, scaled[-1], side)
        colours = augment.sample_color_jitter(rng, COLOUR_VERSIONS, self.changes.jitter, self.changes.hue)
        return FrameChanges(mirrored, crop, expression_crop, colours)

    def make_sample(
        self,
        rng: np.random.Generator,
        sources: Iterable[np.ndarray],
        driving: np.ndarray,
        changes: FrameChanges,
        training: bool,
    ) -> Sample:
        """The arrays of a sample. sources (n) of (S,S,3), driving (S,S,3) uint8; sides may differ, since each
        frame is resized from its own.
        """
        frames = [*sources, driving]
        side, detector = self.architecture.image_size, self.architecture.detector.size

        def cut(frames: list[np.ndarray], crop: np.ndarray, size: int) -> np.ndarray:
            return augment.crop_and_resize(frames, crop, size, changes.mirrored)

        whole = cut(frames, NO_CROP, detector)
        cropped = {detector: whole} if not changes.crop.any() else {}
        for size in {side, detector} - set(cropped):
            cropped[size] = cut(frames, changes.crop, size)
        sample = {
            "whole": whole,
            "cropped": cropped[side],
            "driving_tight": cut([driving], changes.expression_crop, detector)[0],
            "crop": changes.crop,
            "colours": changes.colours,
            "driving_version2": np.array(rng.random() < 0.5),
            "tight": np.array(training and rng.random() < self.changes.cropped_expression),
            **self.sample_pixels(rng),
        }
        if side != detector:
            sample["cropped_for_detector"] = cropped[detector]
        if self.sampling.variable != "none":
            n = self.sampling.sources
            sample["present"] = np.arange(n) < (rng.integers(1, n + 1) if training else n)
        return sample

    def sample_pixels(self, rng: np.random.Generator) -> Sample:
        """Which pixels are rendered with gradient: queries (P,)"""
        pixels = self.architecture.image_size**2
        return {"queries": rng.choice(pixels, self.sampling.queries, replace=False)}

    def sample_expression_view_crop(
        self, rng: np.random.Generator, landmarks: np.ndarray, side: int
    ) -> np.ndarray:
        """What the third view of the driving frame leaves out; landmarks (68,2) on the 256 frame -> (4,)."""
        if self.changes.expression_view == "tight":
            return augment.sample_expression_crop(rng, landmarks, side)
        if self.changes.expression_view == "centre":
            return augment.sample_centre_crop(rng, self.changes.centre, side)
        return np.zeros(4, np.float32)

    # --- one step, in the order of the authors' code ---
    def augment_frames(self, batch: Batch) -> AugmentedFrames:
        n, present = self.sampling.sources, batch.get("present")
        names, chosen = ("whole", "cropped", "cropped_for_detector"), slice(None)
        if self.sampling.variable == "one_per_batch" and present is not None:
            # the first sample's number of sources serves the chunk: what is left out needs no mask
            chosen = [*range(int(present[0].sum())), n]
            n, present = len(chosen) - 1, None
        # (B,n+1,3,I,I) or (B,n+1,3,D,D)
        images = {name: augment.frames_to_images(batch[name][:, chosen]) for name in names if name in batch}
        whole, rendered_size = images["whole"], images["cropped"]
        cropped = images.get("cropped_for_detector", rendered_size)
        tight = augment.frames_to_images(batch["driving_tight"].unsqueeze(1))  # (B,1,3,D,D)

        def change_colours(images: Tensor, version: int, whole: Tensor | None) -> Tensor:
            return augment.apply_color_jitter(images, batch["colours"][:, version], whole)

        first = change_colours(cropped, 0, whole)
        rendered_size = first if cropped is rendered_size else change_colours(rendered_size, 0, whole)
        second, second_full = change_colours(cropped, 1, whole), change_colours(whole, 1, None)
        third = change_colours(tight, 2, whole[:, n:])
        crop = batch["crop"]
        use_second = batch["driving_version2"]
        moved = (crop != 0).any(1)
        # without crops keypoints come from the very view that gives the expression
        driving_moved = moved | ~use_second if self.changes.out_of_frame else moved
        if not self.architecture.uses_keypoints:  # nobody asks where they are
            moved = driving_moved = torch.zeros_like(moved)
        return AugmentedFrames(
            sources=rendered_size[:, :n],
            target=rendered_size[:, n],
            sources1=first[:, :n],
            sources2=second[:, :n],
            driving=torch.where(use_second.view(-1, 1, 1, 1), second[:, n], first[:, n]),
            driving_tight=third[:, 0],
            sources2_full=second_full[:, :n],
            driving2_full=second_full[:, n],
            crop=crop,
            source_moved=moved,
            driving_moved=driving_moved,
            tight=batch["tight"],
            present=present,
        )

    def extract_motion(self, views: AugmentedFrames) -> SourceAndDrivingMotion:
        """One detector pass over all frames whose expression is asked for, one over whole frames not yet
        seen.
        """
        B, n = views.sources2.shape[:2]
        frames = [
            views.sources1.flatten(0, 1),
            views.sources2.flatten(0, 1),
            views.driving,
            views.driving_tight,
        ]
        sizes = [len(part) for part in frames]
        with torch.no_grad():
            keypoints, features, heatmaps = self.net.kp_detector(torch.cat(frames))
            _, of_sources, of_driving, _ = keypoints.split(sizes)
            of_sources, of_driving = of_sources.clone(), of_driving.clone()
            moved = views.source_moved.repeat_interleave(n)
            others = torch.cat(
                [views.sources2_full.flatten(0, 1)[moved], views.driving2_full[views.driving_moved]]
            )
            if len(others):
                found, _, _ = self.net.kp_detector(others)
                of_sources[moved], of_driving[views.driving_moved] = found.split(
                    [int(moved.sum()), int(views.driving_moved.sum())]
                )
            scale, shift = (
                part.to(keypoints.dtype) for part in augment.frame_to_crop_scale_shift(views.crop)
            )
        sources1, sources2, driving, tight = self.net.expression_encoder(features, heatmaps).split(sizes)
        return SourceAndDrivingMotion(
            source_keypoints=(of_sources.unflatten(0, (B, n)) + shift[:, None, None]) * scale[:, None, None],
            driving_keypoints=(of_driving + shift[:, None]) * scale[:, None],
            sources1=sources1.unflatten(0, (B, n)),
            sources2=sources2.unflatten(0, (B, n)),
            driving=driving,
            driving_tight=tight,
        )

    def encode_sources(self, views: AugmentedFrames, motion: SourceAndDrivingMotion) -> Tensor:
        """-> z (B,n*T,D). The encoder's expression comes from the other colour version than its image."""
        return self.net.encoder(views.sources, motion.source_keypoints, motion.sources2, views.present)

    def losses(self, batch: Batch, step: TrainStep | None = None) -> Mapping[str, Callable[[], Tensor]]:
        """step: not used, since every random number lies in the batch."""
        return self.loss_terms(self.augment_frames(batch), batch["queries"])

    def prepare_decoder_inputs(self, views: AugmentedFrames) -> DecoderInputs:
        """All a step asks of the net before it renders pixels."""
        motion = self.extract_motion(views)
        keys_values = self.net.decoder.keys_values(self.encode_sources(views, motion), views.present)
        expression = torch.where(views.tight.unsqueeze(1), motion.driving_tight, motion.driving)
        return DecoderInputs(
            motion, keys_values, self.net.decoder.embed_motion(motion.driving_keypoints, expression)
        )

    def loss_terms(self, views: AugmentedFrames, queries: Tensor) -> Mapping[str, Callable[[], Tensor]]:
        """queries (B,P): flat pixel numbers of the target"""
        scene, decoder = self.prepare_decoder_inputs(views), self.net.decoder
        side = views.target.shape[-1]
        grid = pixel_grid(side, side, views.target.dtype, views.target.device).flatten(0, 1)
        table = decoder.embed_pixels(grid[queries])
        rendered = decoder.decode_queries(
            scene.keys_values, decoder.fuse_pixel_motion_embeddings(table, scene.frame)
        )  # (B,P,3)
        wanted = views.target.flatten(2).gather(2, queries.unsqueeze(1).expand(-1, 3, -1)).transpose(1, 2)
        return {
            "pixel": lambda: losses.pixel_mse_loss(rendered, wanted),
            **self.expression_losses(scene.motion, views.present),
        }

    def expression_losses(
        self, motion: SourceAndDrivingMotion, present: Tensor | None
    ) -> dict[str, Callable[[], Tensor]]:
        """The terms on expression vectors; present (B,n) as in AugmentedFrames."""
        sources1, sources2 = (
            gather_present_source_expressions(e, present) for e in (motion.sources1, motion.sources2)
        )
        first, second = torch.cat([sources1, motion.driving]), torch.cat([sources2, motion.driving_tight])
        return {
            "invariance": lambda: losses.expression_colour_invariance_loss(
                sources1, sources2, motion.driving, motion.driving_tight
            ),
            "variance": lambda: (
                losses.feature_variance_hinge_loss(first) + losses.feature_variance_hinge_loss(second)
            ),
            "covariance": lambda: losses.covariance_loss(first) + losses.covariance_loss(second),
        }

    # --- validation ---
    def validation_step(self, batch: Batch) -> ValidationOutput:
        """Row: source(s) | driving frame, the driving keypoints on it | output."""
        views = self.augment_frames(batch)
        motion = self.extract_motion(views)
        image = self.render_validation_images(views, motion, [motion.driving_keypoints])[0]
        return self.show_pictures(views, motion, {"output": image})

    def cross_validation_step(self, batch: Batch) -> ValidationOutput:
        """Row: source(s) | driving frame of another person, its keypoints on it | absolute | relative. The
        second by a net with keypoints alone; the first is the output, as it is inference's default.
        """
        views = self.augment_frames(batch)
        motion = self.extract_motion(views)
        keypoints = {"absolute": motion.driving_keypoints}
        if self.architecture.uses_keypoints:
            first, _, _ = self.net.kp_detector(
                augment.frames_to_images(batch["driving_first"].unsqueeze(1))[:, 0]
            )
            keypoints["relative"] = move_keypoints(
                motion.source_keypoints[:, 0], motion.driving_keypoints, first
            )
        images = self.render_validation_images(views, motion, [*keypoints.values()])
        return self.show_pictures(views, motion, dict(zip(keypoints, images, strict=True)))

    def render_validation_images(
        self, views: AugmentedFrames, motion: SourceAndDrivingMotion, keypoints: Sequence[Tensor]
    ) -> list[Tensor]:
        """Whole images (B,3,I,I) of the sources by each of these driving keypoints (B,K,2), under the driving
        expression."""
        z, side = self.encode_sources(views, motion), views.target.shape[-1]
        return [
            self.net.decoder.render_image(z, side, one, motion.driving, present=views.present)
            for one in keypoints
        ]

    def show_pictures(
        self, views: AugmentedFrames, motion: SourceAndDrivingMotion, rendered: Mapping[str, Tensor]
    ) -> ValidationOutput:
        """rendered: title -> images (B,3,I,I); the first are the output."""
        sources, driving = (visualize.images_to_uint8(part) for part in (views.sources, views.target))
        outputs = {title: visualize.images_to_uint8(at_least_float32(one)) for title, one in rendered.items()}
        marked = driving
        if self.architecture.uses_keypoints:
            marked = visualize.mark_keypoints(driving, motion.driving_keypoints)
        n = sources.shape[1]
        return ValidationOutput(
            row=np.concatenate([*sources.swapaxes(0, 1), marked, *outputs.values()], axis=2),
            titles=(
                *("source" if n == 1 else f"source {i + 1}" for i in range(n)),
                "driving frame",
                *outputs,
            ),
            source=sources[:, 0],
            driving=driving,
            output=next(iter(outputs.values())),
        )

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "fsrt", "architecture": to_builtins(self.architecture)}

    def provenance(self) -> dict[str, str]:
        return {}  # what is not trained here keeps the provenance of the phase it came from
