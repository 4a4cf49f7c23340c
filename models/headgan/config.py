"""HeadGAN's architecture and training settings as values; the defaults are the paper's.

S = the paper's supplement, C = the authors' code (github.com/michaildoukas/headGAN). Where they differ,
`supplement()` follows S, and C where S is silent; `official()` is C, which released weights need.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from models.api import Phase
from models.headgan.phases import PHASES
from models.model_config import ModelConfig, PerceptualNetName

RGB_CHANNELS = 3
MAX_DOWNSAMPLING_LEVELS = 8
HeadModelName = Literal["analytic_head", "flame", "bfm_deep3d", "bfm_3ddfa", "lsfm"]
"""Morphable models, by their names in models.perception.NETS."""


class Architecture(Struct, frozen=True, kw_only=True):
    """All sizes of the generator: dense flow network F and rendering network R."""

    image_size: int = 256
    """Side of the images, in pixels."""
    width: int = 32
    """Channels at the full side."""
    base: int = 4
    """Factor on the channels at each halving. With `upsampling` shuffle it must be 4."""
    levels: int = 2
    """Halvings between the image and the deepest maps."""
    hidden: int = 256
    """Channels between a SPADE layer's guide and its scale and shift."""
    frames: int = 3
    """Conditions in the driving window: those of frames t-2, t-1 and t."""
    condition: Literal["nmfc", "sketch"] = "nmfc"
    """What tells the head's pose and expression, 3 channels in [0,1]: the rendered mean-face coordinates of
    the 3DMM, or 68 landmarks joined by white lines (ablation of C). The net is the same.
    """
    audio: int = 300
    """Length of a frame's audio vector; 0: the net hears nothing, and R has no AdaIN blocks."""
    residual: bool = False
    """SPADE blocks add their input: not in S ("without a residual component"), in C they do."""
    mask: bool = False
    """A head of F that masks the flow where there is no person: C only."""
    spectral: bool = True
    """Spectral norm on the convolutions of encoders and blocks: C; S names it for the discriminators only."""
    flow: bool = True
    """Whether F finds a flow. Without, the reference's maps reach R as they lie (ablation of C)."""
    upsampling: Literal["shuffle", "nearest"] = "shuffle"
    """shuffle: pixel shuffle, which divides the channels by 4. nearest: repeated pixels; the block before it
    divides the channels by `base`, 2 in C (ablation of S 3.1).
    """
    initial: Literal["xavier", "torch"] = "xavier"
    """Initial weights. xavier: normal ones of gain 0.02, biases 0, as in C. torch: PyTorch's, from which
    short runs learn sooner: 280 steps of the demo left 0.050 of held-out L1 against 0.060, and copying the
    source 0.079.
    """

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value, least = getattr(self, name), 0 if name == "audio" else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise ValueError(f"{name} {value}: expected {least} or more")
        if self.levels > MAX_DOWNSAMPLING_LEVELS:
            raise ValueError(f"levels {self.levels}: expected {MAX_DOWNSAMPLING_LEVELS} or fewer")
        if self.upsampling == "shuffle" and self.base != 4:
            raise ValueError(f"base {self.base} with upsampling shuffle, which divides channels by 4")
        if self.image_size % 2**self.levels or self.image_size // 2**self.levels < 4:
            raise ValueError(
                f"image_size {self.image_size}: expected a multiple of {2**self.levels} that leaves 4 or "
                f"more pixels after {self.levels} halvings"
            )
        if self.mask and not self.flow:
            raise ValueError("mask true with flow false: there is no flow to mask")

    @property
    def window_channels(self) -> int:
        """Channels of the driving window."""
        return self.frames * RGB_CHANNELS

    @property
    def encoder_channels(self) -> list[int]:
        """Channels of the encoders' maps, from the full side down: 32, 128, 512."""
        return [self.width * self.base**i for i in range(self.levels + 1)]

    @property
    def decoder_channels(self) -> list[int]:
        """Channels that the decoders' blocks give before each doubling of the side, deepest first."""
        deep = self.encoder_channels[::-1]
        return deep[:-1] if self.upsampling == "shuffle" else deep[1:]


class DiscriminatorConfig(Struct, frozen=True, kw_only=True):
    """The discriminators: D sees whole images, D_m mouths. They are no part of the net that renders."""

    width: int = 64
    """Channels after the first convolution, doubled by each further one,"""
    max_width: int = 512
    """up to this many."""
    layers: int = 4
    """4x4 convolutions before the one that gives the predictions; all but the last of them halve the side."""
    scales: int = 2
    """Copies of the net; each sees the image at half the side of the one before."""
    spectral: bool = True
    """Spectral norm on the convolutions that instance norm follows."""
    mouth: bool = True
    """Whether there is a D_m."""
    mouth_size: int = 64
    """Side of its crop in pixels, of an image of the full side."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.max_width < self.width or self.layers < 2 or self.scales < 1:
            raise ValueError(
                f"width {self.width} to {self.max_width}, {self.layers} layers, {self.scales} scales: "
                "expected widths in order, 2 or more layers, 1 or more scales"
            )
        if self.mouth_size % 2 or self.mouth_size < 2**self.scales:
            raise ValueError(
                f"mouth_size {self.mouth_size}: expected an even number, {2**self.scales} or more "
                f"for {self.scales} scales"
            )

    @property
    def channels(self) -> list[int]:
        """Channels after each convolution but the last."""
        return [min(self.max_width, self.width * 2**i) for i in range(self.layers)]


class ReconstructionLossConfig(Struct, frozen=True, kw_only=True):
    """What the reconstruction losses are taken of, on the output and on the warped image."""

    masked: bool = False
    """Whether L1 counts only pixels where the condition is not background: C. S: the whole image."""
    perceptual_layers: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """Weight of each of the five maps of `perceptual_net`, fine to coarse: VGG19's relu1_1 to relu5_1, or the
    outputs of five blocks of EfficientNet-Lite0. S sums them as they are; C: 1/32 to 1."""
    vgg_normalised: bool = False
    """Whether VGG19 sees images as it was trained on. C gives it RGB in [-1,1] without more ado. Another
    net always sees them so."""

    def __post_init__(self) -> None:
        weights = self.perceptual_layers
        if len(weights) != 5 or min(weights) < 0 or not any(weights):
            raise ValueError(f"perceptual_layers {weights}: expected 5 weights of 0 or more, one above 0")


class AudioFeatureConfig(Struct, frozen=True, kw_only=True):
    """How rows of `speech` become a frame's audio vector (models/headgan/audio.py)."""

    window: int = 0
    """Frames of sound to average, an even number, 8 as the authors hear; 0: the frame's row as it is."""
    align: Literal["centred", "official"] = "centred"
    """centred: as much before the middle of the frame as behind it. official: all of it from the frame on."""
    normalise: bool = False
    """Each vector to mean 0 and variance 1, as wav2vec's are."""

    def __post_init__(self) -> None:
        if self.window < 0 or self.window % 2:
            raise ValueError(f"hearing.window {self.window}: expected an even number of frames, or 0")


class HeadGanConfig(ModelConfig, frozen=True, kw_only=True):
    net: Architecture = field(default_factory=Architecture)
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    terms: ReconstructionLossConfig = field(default_factory=ReconstructionLossConfig)
    phases: dict[str, Phase | None] = field(default_factory=lambda: dict(PHASES))
    head: HeadModelName = "analytic_head"
    """The morphable model that is drawn: that of `fits.NAME.model`."""
    hearing: AudioFeatureConfig = field(default_factory=AudioFeatureConfig)
    """What is made of the rows of `speech`; their length must be `net.audio`."""
    identity: Literal["clip_mean", "frame"] = "clip_mean"
    """Whose face is drawn: one a clip, for fits of single frames jitter, or each frame's own as in C, which
    needs `fits.NAME.identity: frame`.
    """
    shading: Literal["smooth", "centroid", "first"] = "smooth"
    """Of NMFC: smooth, or one colour a triangle (models/headgan/conditions.py)."""
    recompute: bool = True
    """Whether a training step computes some maps twice for two fifths of the memory of its activations; on
    CPUs it costs no time. Changes no result.
    """
    perceptual_net: PerceptualNetName = "vgg19"
    """Whose maps the perceptual losses compare. vgg19: as published, its file must be imported. The others
    need no import, and what is trained with them says which: efficientnet_lite0, trained on ImageNet too, or
    vgg19_random, untrained. Weights in `phases` are for VGG19; models/headgan/losses.py scales the others'
    terms.
    """
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast; a device that does not multiply in bfloat16 itself (older CPUs) refuses to train so;
    drawing, flow, warping, norms, losses and Adam stay in float32.
    """
    fits: str = "main"
    """The instance of fits that it reads."""
    speech: str = "main"
    """The instance of speech that it reads."""

    def __post_init__(self) -> None:
        crop, side = self.discriminators.mouth_size, self.net.image_size
        if self.discriminators.mouth and crop > side:
            raise ValueError(f"discriminators.mouth_size {crop}: images have {side} pixels")
        ModelConfig.__post_init__(self)
        self.check_perceptual_images(self.perceptual_net, side, ("perceptual", "perceptual_warped"))
        for phase in self.phases.values():
            if phase:
                self._check_terms(phase)

    def _check_terms(self, phase: Phase) -> None:
        """Terms that nothing computes are an error before anything runs."""
        settings = (
            (self.discriminators.mouth, "discriminators.mouth", MOUTH_LOSSES),
            (self.net.flow, "net.flow", FLOW_DEPENDENT_LOSSES),
            (self.net.mask, "net.mask", MASK_LOSSES),
        )
        for on, setting, names in settings:
            lost = sorted(names & active_losses(phase)) if not on else []
            if lost:
                raise ValueError(
                    f"phases.{phase.name} weighs {', '.join(lost)}, which {setting} false leaves out; set "
                    f"{'it' if len(lost) == 1 else 'them'} to null"
                )


MOUTH_LOSSES = {"discriminator_mouth", "gan_mouth", "feature_matching_mouth"}
FLOW_DEPENDENT_LOSSES = {"l1_warped", "perceptual_warped"}
MASK_LOSSES = {"mask"}


def active_losses(phase: Phase) -> set[str]:
    """Names of a phase's terms, the discriminators' too, whose weight is above 0."""
    return {name for name, weight in phase.loss_weights.items() if weight}


def paper_supplement_architecture() -> Architecture:
    """The net of S: 51,748,933 parameters (F 30,604,610, R 21,144,323)."""
    return Architecture()


def official_architecture() -> Architecture:
    """The net of C and of its released weights: 51,750,502 parameters (F 30,606,179, R 21,144,323)."""
    return replace(paper_supplement_architecture(), residual=True, mask=True)


def tiny_architecture() -> Architecture:
    """Our own size for tests and the demo (configs/run/tiny.yaml): the same structure at 64 px."""
    return Architecture(image_size=64, width=8, hidden=32, initial="torch")
