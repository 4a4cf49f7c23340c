"""FSRT's steps on whole images: phases `perceptual` and `adversarial` (supplement 7.2).

A quarter of the pixels is rendered with gradient, the others without, from the same keys and values; joined,
they make the image that the perceptual loss and the discriminator see. Their gradient ends at the quarter.
The pixel loss is a mean over the whole image, so it pulls a quarter as hard as one over the rendered pixels.
Legend: B samples, I image side, N = I*I/4 pixels of the quarter, K keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import provenance
from models.fsrt import losses
from models.fsrt.config import (
    Architecture,
    AugmentConfig,
    DiscriminatorConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
)
from models.fsrt.discriminator import Discriminator
from models.fsrt.network import max_queries_per_pass, pixel_grid
from models.fsrt.pixel_sampling import LatticePixels, RandomPixels
from models.fsrt.task import AugmentedFrames, DecoderInputs, FsrtReenactmentTask
from models.gan import forward_with_frozen_weights
from models.perception.interfaces import PerceptualLossNet
from models.precision import at_least_float32
from models.task import Batch, Sample, TrainStep

MAX_PIXELS_PER_PASS = 65_536  # pixels of one pass without gradient, over all samples: it bounds the memory
LossTerms = dict[str, Callable[[], Tensor]]


class WholeImageTask(FsrtReenactmentTask):
    """Whole images: the pixel loss over all of them, and the perceptual one."""

    def __init__(
        self,
        net: Architecture,
        sampling: TrainingSampleConfig,
        augment: AugmentConfig,
        images: ImageLossRenderingConfig,
    ) -> None:
        super().__init__(net, sampling, augment)
        self.images = images
        self.perceptual_net: PerceptualLossNet | None = None

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """The perceptual loss's net, if the phase weighs that loss. Without one the term is not offered."""
        self.perceptual_net = next(iter(nets.values()), None)

    def provenance(self) -> dict[str, str]:
        return super().provenance() | provenance.perceptual_net_provenance(self.perceptual_net)

    def sample_pixels(self, rng: np.random.Generator) -> Sample:
        """corner (2,), or queries (N,): what Lattice and RandomPixels are made of"""
        if self.images.pixels == "lattice":
            return {"corner": rng.integers(0, 2, 2)}
        pixels = self.architecture.image_size**2
        return {"queries": rng.choice(pixels, pixels // 4, replace=False)}

    def losses(self, batch: Batch, step: TrainStep | None = None) -> Mapping[str, Callable[[], Tensor]]:
        side = self.architecture.image_size
        lattice = self.images.pixels == "lattice"
        quarter = LatticePixels(batch["corner"], side) if lattice else RandomPixels(batch["queries"], side)
        return self.image_losses(self.augment_frames(batch), quarter)

    def image_losses(self, views: AugmentedFrames, quarter: LatticePixels | RandomPixels) -> LossTerms:
        scene = self.prepare_decoder_inputs(views)
        image, target = self.render_image_and_target(views, scene, quarter)
        return {
            "pixel": lambda: losses.pixel_mse_loss(image, target),
            **self.image_terms(image, target, scene.motion.driving_keypoints),
            **self.expression_losses(scene.motion, views.present),
        }

    def render_image_and_target(
        self, views: AugmentedFrames, scene: DecoderInputs, quarter: LatticePixels | RandomPixels
    ) -> tuple[Tensor, Tensor]:
        """What the losses see and what it should be, (B,3,I,I) each, or (B,3,I/2,I/2) if the losses see
        only the lattice.
        """
        decoder, target = self.net.decoder, views.target
        grid = pixel_grid(target.shape[-2], target.shape[-1], target.dtype, target.device)
        table = decoder.embed_pixels(
            quarter.flatten_pixel_grid(grid)
        )  # with gradient, and shared with the pass without
        mine = decoder.decode_queries(
            scene.keys_values,
            decoder.fuse_pixel_motion_embeddings(quarter.gather_pixels(table, 0), scene.frame),
        )
        mine = at_least_float32(mine)
        if self.images.loss_input == "lattice":
            assert isinstance(quarter, LatticePixels)
            return quarter.quarter_to_half_size_image(mine), quarter.subsample_images(target)
        # After the pass with gradient: autocast keeps the weights it has converted, and those that it
        # converts here would have no gradient.
        return quarter.compose_image_from_parts(
            [mine, *self.render_remaining_pixels(scene, table, quarter)]
        ), target

    def render_remaining_pixels(
        self, scene: DecoderInputs, table: Tensor, quarter: LatticePixels | RandomPixels
    ) -> list[Tensor]:
        """The other parts of the image (B,n,3), without gradient."""
        decoder = self.net.decoder
        keys_values = [tuple(part.detach() for part in block) for block in scene.keys_values]
        table, frame = table.detach(), scene.frame.detach()
        step = max(1, max_queries_per_pass(MAX_PIXELS_PER_PASS, frame.device) // len(frame))
        parts = []
        with torch.inference_mode():
            for part in range(1, quarter.parts):
                chunks = []
                for start in range(0, quarter.count[part], step):
                    rows = quarter.gather_pixels(table, part, slice(start, start + step))
                    chunks.append(
                        at_least_float32(
                            decoder.decode_queries(
                                keys_values, decoder.fuse_pixel_motion_embeddings(rows, frame)
                            )
                        )
                    )
                parts.append(torch.cat(chunks, dim=1))
        return parts

    def image_terms(self, image: Tensor, target: Tensor, keypoints: Tensor) -> LossTerms:
        """The terms that look at images: rendered and wanted (B,3,H,W), driving keypoints (B,K,2)."""
        net = self.perceptual_net
        if net is None:
            return {}

        def perceptual() -> Tensor:
            with torch.no_grad():
                wanted = net.features(target)
            return losses.perceptual_loss(net.features(image), wanted, net.name)

        return {"perceptual": perceptual}


class AdversarialTask(WholeImageTask):
    """With a discriminator, which is part of this phase's net only and learns from its own loss."""

    def __init__(
        self,
        net: Architecture,
        sampling: TrainingSampleConfig,
        augment: AugmentConfig,
        images: ImageLossRenderingConfig,
        discriminator: DiscriminatorConfig,
    ) -> None:
        super().__init__(net, sampling, augment, images)
        keypoints = net.detector.keypoints if net.uses_keypoints else 0
        self.discriminator = Discriminator(discriminator, keypoints)
        self.net.add_module("discriminator", self.discriminator)

    def image_terms(self, image: Tensor, target: Tensor, keypoints: Tensor) -> LossTerms:
        outputs = DiscriminatorOutputs(self.discriminator, image, target, keypoints)
        return {
            **super().image_terms(image, target, keypoints),
            "gan": lambda: losses.generator_gan_loss(outputs.fake_for_generator[1]),
            "feature_matching": lambda: losses.feature_matching_loss(
                outputs.fake_for_generator[0], outputs.real[0]
            ),
            "discriminator": lambda: losses.discriminator_loss(outputs.real[1], outputs.fake[1]),
        }


class DiscriminatorOutputs:
    """What the discriminator gives for a step's images, (maps, predictions), each computed when first asked
    for.

    Which terms share one is not known beforehand, and a term of weight 0 is computed without gradient: so all
    are computed in the gradient mode of the step.
    """

    def __init__(
        self, discriminator: Discriminator, image: Tensor, target: Tensor, keypoints: Tensor
    ) -> None:
        self.discriminator, self.image, self.target, self.keypoints = discriminator, image, target, keypoints
        self.gradient = torch.is_grad_enabled()

    @cached_property
    def fake_for_generator(self) -> tuple[list[Tensor], Tensor]:
        """For the generator: gradient reaches the image, not the discriminator."""
        with torch.set_grad_enabled(self.gradient):
            return forward_with_frozen_weights(
                self.discriminator, self.discriminator, self.image, self.keypoints
            )

    @cached_property
    def fake(self) -> tuple[list[Tensor], Tensor]:
        """For the discriminator: the same image, cut off from the generator."""
        with torch.set_grad_enabled(self.gradient):
            return self.discriminator(self.image.detach(), self.keypoints)

    @cached_property
    def real(self) -> tuple[list[Tensor], Tensor]:
        """For the discriminator; its maps serve feature matching too, detached there."""
        with torch.set_grad_enabled(self.gradient):
            return self.discriminator(self.target, self.keypoints)
