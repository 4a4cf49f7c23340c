"""HeadGAN's loss terms as pure functions of tensors (supplement 2; weights 1 hinge, 50 L1, 10 the others).

Images are RGB in [-1,1]. All run in float32 or better, whatever the precision of the net. Predictions and
maps of a discriminator come as it gives them: for each scale the maps of its layers, the last of them
predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.perception.vgg19 import IMAGENET_MEAN, IMAGENET_STD
from models.precision import at_least_float32

HEAD_MASK_THRESHOLD = 0.01  # sum over a condition's channels above which a pixel is no background (C)
FEATURE_MATCHING_FACTOR = 4.0  # C's factor on feature matching, over the convolutions of a scale
PERCEPTUAL_LOSS_SCALES = {"efficientnet_lite0": 0.0022}
"""Factor on perceptual terms of nets other than VGG19, so that the phases' weights, the paper's, serve all.

Set once, on rendered heads at 64 px: the gradient on the image becomes as long as the one that a random VGG19
gives, which sees images as they are. Lengths, mean of 32 samples, times 1000: where phase `decay` begins 3.71
(VGG19) and 1,626 on the output, 3.44 and 1,764 on the warped image; of an untrained net 3.65 and 1,345 on the
warped image, 4.31 and 418 on the output, which is all grey. The term itself is then .04, where VGG19's is
.28.
"""


# --- hinge --------------------------------------------------------------------------------------------------
def real_hinge_loss(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """The discriminator's hinge on real images: mean of max(0, 1 - prediction), over scales."""
    return _over_scales([F.relu(1 - at_least_float32(maps[-1])) for maps in outputs])


def fake_hinge_loss(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """The same for rendered images: mean of max(0, 1 + prediction). They must be cut off from the
    generator."""
    return _over_scales([F.relu(1 + at_least_float32(maps[-1])) for maps in outputs])


def generator_gan_loss(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """How far rendered images are from fooling the discriminator: minus the mean prediction. Has no lower
    bound."""
    return -_over_scales([at_least_float32(maps[-1]) for maps in outputs])


def _over_scales(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.mean() for value in values]).mean()


def feature_matching_loss(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean absolute difference of each layer's maps, summed over layers and divided by scales and by a
    quarter of the layers (predictions counted, though not compared): 0.8 a layer as published. No gradient
    reaches the real side.
    """
    total = []
    for fake_maps, real_maps in zip(fake, real, strict=True):
        gaps = [
            (at_least_float32(f) - at_least_float32(r.detach())).abs().mean()
            for f, r in zip(fake_maps[:-1], real_maps[:-1], strict=True)
        ]
        total.append(torch.stack(gaps).sum() * FEATURE_MATCHING_FACTOR / len(fake_maps))
    return torch.stack(total).mean()


# --- reconstruction; the same on the warped image -----------------------------------------------------------
def pixel_l1_loss(rendered: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean absolute difference over all elements (B,3,H,W). counted (B,1,H,W): weight of each pixel; the sum
    is divided by all pixels still, as in C.
    """
    gap = (at_least_float32(rendered) - at_least_float32(target)).abs()
    return (gap if counted is None else gap * counted).mean()


def head_mask(condition: Tensor) -> Tensor:
    """condition (B,3,H,W) in [0,1] -> (B,1,H,W): 1 where the head is, 0 on background."""
    return (at_least_float32(condition).sum(1, keepdim=True) > HEAD_MASK_THRESHOLD).to(condition.dtype)


def perceptual_net_input(images: Tensor, normalised: bool) -> Tensor:
    """images (B,3,H,W) in [-1,1] -> what to give a models.perception.interfaces.PerceptualLossNet, which
    takes RGB in [0,1] and normalises it. normalised: the net sees images as it was trained on; else they are
    made such that VGG19 sees them as they are (C).
    """
    images = at_least_float32(images)
    if normalised:
        return (images + 1) / 2
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


def perceptual_loss(
    rendered: Sequence[Tensor], target: Sequence[Tensor], weights: Sequence[float], net: str = "vgg19"
) -> Tensor:
    """A net's maps of two images: weighted sum of the mean absolute differences, scaled as the net of that
    name needs. No gradient reaches the target's side.
    """
    gaps = [
        weight * (at_least_float32(a) - at_least_float32(b.detach())).abs().mean()
        for a, b, weight in zip(rendered, target, weights, strict=True)
    ]
    return torch.stack(gaps).sum() * PERCEPTUAL_LOSS_SCALES.get(net, 1.0)


def mask_loss(found: Tensor, driving: Tensor, reference: Tensor) -> Tensor:
    """C only: mean absolute difference of F's mask (B,1,H,W) from the union of the foregrounds of both
    frames (B,1,H,W), each in [0,1].
    """
    return (
        (at_least_float32(found) - (at_least_float32(driving) + at_least_float32(reference)).clamp(0, 1))
        .abs()
        .mean()
    )
