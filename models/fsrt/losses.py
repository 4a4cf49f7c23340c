"""FSRT's loss terms as pure functions of tensors (supplement 7.2; weights in phases.py).

e = expression vectors. All run in float32 or better, whatever the precision of the net.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.precision import at_least_float32

PERCEPTUAL_LOSS_SCALES = {"efficientnet_lite0": 0.0053}
"""Factor on the perceptual term of nets other than VGG19, so that a phase's weight, the paper's, serves all.

Set once, on rendered heads at 64 px: the gradient on the image becomes as long as the one that a random VGG19
gives. Lengths, mean of 32 samples, times 1000: 17.4 (VGG19) and 3,239 where phase `perceptual` begins, 16.8
and 3,173 where `adversarial` does, 20.7 and 3,076 with an untrained net. The term itself is then .12, where
VGG19's is .92.
"""


def pixel_mse_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over all elements."""
    return (at_least_float32(rendered) - at_least_float32(target)).square().mean()


def perceptual_loss(rendered: Sequence[Tensor], target: Sequence[Tensor], net: str = "vgg19") -> Tensor:
    """Feature maps of the images (5 maps (B,C,h,w)): mean absolute difference of each, summed, and scaled as
    the net of that name needs."""
    return _gaps(rendered, target) * PERCEPTUAL_LOSS_SCALES.get(net, 1.0)


def feature_matching_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """The discriminator's maps (4 of (B,C,h,w)): mean absolute difference of each, summed. No gradient
    reaches the real side.
    """
    return _gaps(fake, [part.detach() for part in real])


def _gaps(some: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    gaps = [
        (at_least_float32(a) - at_least_float32(b)).abs().mean() for a, b in zip(some, others, strict=True)
    ]
    return torch.stack(gaps).sum()


def generator_gan_loss(fake: Tensor) -> Tensor:
    """Predictions (B,1,h,h) on rendered images, 1 = real: how far they are from fooling the discriminator
    (least squares; Mao et al. 2017).
    """
    return (1 - at_least_float32(fake)).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Predictions (B,1,h,h) on real and on rendered images: 1 and 0 wanted (least squares). The rendered
    images must be cut off from the generator.
    """
    return ((1 - at_least_float32(real)).square() + at_least_float32(fake).square()).mean()


def expression_colour_invariance_loss(
    source: Tensor, source_other: Tensor, driving: Tensor, driving_other: Tensor
) -> Tensor:
    """Two colour versions of a frame should give one expression: half the sum of the two mean squares."""
    gaps = (at_least_float32(source) - at_least_float32(source_other)).square().mean()
    return 0.5 * (gaps + (at_least_float32(driving) - at_least_float32(driving_other)).square().mean())


def feature_variance_hinge_loss(e: Tensor) -> Tensor:
    """e (N,E): hinge on the spread over the FEATURES of each vector (not VICReg's spread over the batch)."""
    spread = (at_least_float32(e).var(dim=1) + 1e-4).sqrt()
    return torch.relu(1 - spread).mean()


def covariance_loss(e: Tensor) -> Tensor:
    """e (N,E): squared entries of the covariance over vectors, diagonal included, divided by E."""
    with torch.autocast(e.device.type, enabled=False):  # or the product would be in bf16
        e = at_least_float32(e)
        centred = e - e.mean(dim=0)
        cov = centred.T @ centred / (len(e) - 1)
        return cov.square().sum() / e.shape[1]


def keypoint_position_loss(keypoints: Tensor, target: Tensor) -> Tensor:
    """Mean absolute distance per coordinate, on the [-1,1] frame (distilled detector only)."""
    return (at_least_float32(keypoints) - at_least_float32(target)).abs().mean()


def heatmap_cross_entropy(heatmap: Tensor, target: Tensor, axis: Tensor, sigma: float) -> Tensor:
    """heatmap (B,K,G,G) summing to 1 against a Gaussian round target (B,K,2): mean over keypoints, in nats.

    Soft-argmax alone is satisfied by any blob with the right mean; the expression extractor reads features
    under the heatmap, so the mass has to lie where the keypoint is.
    """
    line = torch.exp(-0.5 * ((axis - at_least_float32(target).unsqueeze(-1)) / sigma).square())  # (B,K,2,G)
    line = line / line.sum(-1, keepdim=True).clamp_min(1e-12)
    wanted = line[:, :, 1].unsqueeze(-1) * line[:, :, 0].unsqueeze(-2)  # y down the rows
    return -(wanted * at_least_float32(heatmap).clamp_min(1e-12).log()).sum((2, 3)).mean()
