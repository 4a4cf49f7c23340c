"""FSRT's architecture and training settings as values; the defaults are the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct, field

from models.api import Phase
from models.fsrt.phases import PHASES
from models.model_config import ModelConfig, PerceptualNetName

MAX_SIDE, MAX_DEPTH, MAX_WIDTH = 2048, 64, 16_384
"""Most pixels of a side, most layers or octaves, most of anything else: a checkpoint may claim to be of any
size, and a net of 30,000 blocks takes a minute to lay out before its tensors tell that it is none.
"""
IMAGE_SIDE_FIELDS = ("image_size", "size")
DEPTH_AND_OCTAVE_FIELDS = ("blocks", "patch_blocks", "encoder_depth", "decoder_depth",
          "pixel_octaves", "keypoint_octaves", "start_octave")  # fmt: skip
MAX_ARCHITECTURE_FIELD_VALUES: dict[str, int] = {
    **dict.fromkeys(IMAGE_SIDE_FIELDS, MAX_SIDE),
    **dict.fromkeys(DEPTH_AND_OCTAVE_FIELDS, MAX_DEPTH),
}


class KeypointDetectorConfig(Struct, frozen=True, kw_only=True):
    """The keypoint detector (FOMM's hourglass)."""

    size: int = 256
    """Side of its input in pixels; frames are resized to it. A quarter of it must survive `blocks`
    halvings.
    """
    keypoints: int = 10
    width: int = 32
    """Channels double from here at each halving,"""
    max_width: int = 1024
    """up to this many."""
    blocks: int = 5
    temperature: float = 0.1
    """Of the softmax over a heatmap's cells."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature}: expected a number above 0")
        _check_sizes(self)
        if self.size % 2 ** (self.blocks + 2):
            raise ValueError(
                f"size {self.size}: expected a multiple of {2 ** (self.blocks + 2)} for {self.blocks} blocks"
            )
        if self.max_width < self.width:
            raise ValueError(f"max_width {self.max_width}: expected width {self.width} or more")

    @property
    def heatmap_size(self) -> int:
        """Side of a heatmap: the 7x7 convolution is not padded."""
        return self.size // 4 - 6

    @property
    def feature_channels(self) -> int:
        return self.width + 3


class Architecture(Struct, frozen=True, kw_only=True):
    """All sizes of the net. Section numbers are those of the paper's supplement; sizes follow its parameter
    counts.
    """

    detector: KeypointDetectorConfig = field(default_factory=KeypointDetectorConfig)
    image_size: int = 256
    """Side of the images encoded and rendered, in pixels."""
    expression_size: int = 256
    """Length of the latent expression vector e."""
    expression_per_keypoint: int = 32
    pixel_octaves: int = 16
    keypoint_octaves: int = 4
    """0: encoder and decoder are told no keypoints, and the expression has to carry the pose too
    (supplement 8.6; the expression extractor still reads the detector's features).
    """
    start_octave: int = -1
    """Lowest octave of both positional codes; -1 keeps them unique on (-2,2), outside the frame too, 0 on
    (-1,1) only.
    """
    patch_width: int = 96
    """Channels of the patch CNN, doubled by each of its `patch_blocks` halvings: 96 * 2**3 = 768 per
    token.
    """
    patch_blocks: int = 3
    head_size: int = 64
    encoder_depth: int = 5
    encoder_heads: int = 12
    encoder_mlp: int = 1536
    encoder_attention: Literal["joint", "per_image"] = "joint"
    """Whether the tokens of several sources attend to each other in the encoder: joint as in the authors'
    code and the released 2-source weights, per_image as in their text. The same weights fit both.
    """
    initial: Literal["torch", "balanced"] = "torch"
    """Initial weights of the patch CNN: PyTorch's as published, or such that short runs see the image at
    once.
    """
    query_mlp: int = 720
    """Hidden width of the MLP a query passes before it attends; the same for every expression_size."""
    decoder_depth: int = 2
    decoder_heads: int = 12
    decoder_mlp: int = 1536
    render: tuple[int, ...] = (1536, 1536, 1536, 1536)
    """Hidden widths of the MLP that turns a decoded query into RGB."""

    def __post_init__(self) -> None:
        _check_sizes(self, {"keypoint_octaves": 0, "start_octave": -MAX_DEPTH})
        if self.image_size % 2**self.patch_blocks:
            raise ValueError(f"image_size {self.image_size}: expected a multiple of {2**self.patch_blocks}")

    @property
    def token_size(self) -> int:
        return self.patch_width * 2**self.patch_blocks

    @property
    def tokens_per_source(self) -> int:
        """Latent tokens of one source image."""
        return (self.image_size // 2**self.patch_blocks) ** 2

    @property
    def uses_keypoints(self) -> bool:
        """Whether encoder and decoder are told where the keypoints are."""
        return self.keypoint_octaves > 0

    @property
    def keypoint_code_size(self) -> int:
        return 2 * 2 * self.detector.keypoints * self.keypoint_octaves

    @property
    def pixel_code_size(self) -> int:
        return 2 * 2 * self.pixel_octaves

    @property
    def query_size(self) -> int:
        return self.keypoint_code_size + self.pixel_code_size + self.expression_size


def _check_sizes(
    net: KeypointDetectorConfig | Architecture, least: Mapping[str, int] = MappingProxyType({})
) -> None:
    """ValueError for a whole number below what `least` says, else 1, or above what MOST says, else WIDTH."""
    for name in net.__struct_fields__:
        value, low, high = (
            getattr(net, name),
            least.get(name, 1),
            MAX_ARCHITECTURE_FIELD_VALUES.get(name, MAX_WIDTH),
        )
        layers = value if isinstance(value, tuple) else (value,)
        if len(layers) > MAX_DEPTH:
            raise ValueError(f"{name} of {len(layers)} layers: expected {MAX_DEPTH} or fewer")
        sizes = [size for size in layers if isinstance(size, int)]
        if any(size < low for size in sizes):
            raise ValueError(f"{name} {value}: expected {low} or more")
        if any(size > high for size in sizes):
            raise ValueError(f"{name} {value}: expected {high} or less")


class DiscriminatorConfig(Struct, frozen=True, kw_only=True):
    """The discriminator of phase `adversarial`. It is no part of the net that renders."""

    size: int = 256
    """Side in pixels at which it looks; other images are resized to it."""
    width: int = 64
    """Channels: twice this after the first block, doubled by each further one,"""
    max_width: int = 512
    """up to this many."""
    blocks: int = 4
    """4x4 convolutions without padding, each but the last followed by a halving."""
    variance: float = 0.01
    """Of the Gaussians that show it the driving keypoints, on the [-1,1] frame."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.max_width < 1 or self.blocks < 1 or self.variance <= 0:
            raise ValueError(
                f"width {self.width} to {self.max_width}, {self.blocks} blocks, variance {self.variance}: "
                "expected positive numbers"
            )
        if self.output_size < 2:  # instance norm has nothing to normalise in a single pixel
            raise ValueError(
                f"size {self.size}: {self.blocks} blocks leave fewer than 2 pixels of it; expected "
                f"{8 * 2 ** (self.blocks - 1) - 3} or more, or fewer blocks"
            )

    @property
    def channels(self) -> list[int]:
        """Channels after each block."""
        return [min(self.max_width, self.width * 2 ** (i + 1)) for i in range(self.blocks)]

    @property
    def output_size(self) -> int:
        """Side of the map of predictions."""
        side = self.size
        for _ in range(self.blocks - 1):
            side = (side - 3) // 2
        return side - 3


class ImageLossRenderingConfig(Struct, frozen=True, kw_only=True):
    """How phases `perceptual` and `adversarial` come by whole images: a quarter of the pixels is rendered
    with gradient, the rest without, from the same tokens.
    """

    pixels: Literal["lattice", "random"] = "lattice"
    """The quarter. lattice: every second pixel of every second row, from a random corner, as published.
    random: any pixels, which the authors' code offers too.
    """
    loss_input: Literal["full", "lattice"] = "full"
    """What the losses see. full: the whole image, as published. lattice: the rendered quarter as an image of
    half the side; the rest is not rendered at all, which saves two fifths of a step and changes the training
    (perceptual loss and discriminator see coarser pictures). Needs pixels: lattice.
    """

    def __post_init__(self) -> None:
        if self.loss_input == "lattice" and self.pixels != "lattice":
            raise ValueError(f"loss_input lattice with pixels {self.pixels}: expected pixels lattice")


class TrainingSampleConfig(Struct, frozen=True, kw_only=True):
    """What one training sample holds."""

    sources: int = 1
    """Source images of a sample; the driving frame comes on top."""
    variable: Literal["none", "mask", "one_per_batch"] = "none"
    """How many of them count in training (supplement 8.1). none: all. mask: 1 to `sources`, drawn for each
    sample; the tokens of the others are hidden from every attention. one_per_batch: the same number for all
    samples of a chunk, the others are left out; no mask, so the fastest attention kernels serve. Validation
    uses all.
    """
    queries: int = 4096
    """Random pixels of the driving frame rendered in phase `warmup`, without replacement."""

    def __post_init__(self) -> None:
        if self.sources < 1 or self.queries < 1:
            raise ValueError(f"{self.sources} sources, {self.queries} queries: expected 1 or more of each")
        if self.variable != "none" and self.sources == 1:
            raise ValueError(f"variable {self.variable} with 1 source: expected sources 2 or more, or none")


class AugmentConfig(Struct, frozen=True, kw_only=True):
    """Random changes of training images (supplement 7.1; not applied in validation and inference)."""

    flip: float = 0.5
    """Probability of mirroring a sample."""
    jitter: float = 0.1
    """Brightness, contrast and saturation factors are drawn from 1 - jitter .. 1 + jitter."""
    hue: float = 0.1
    """Hue shifts are drawn from -hue .. hue, in turns."""
    out_of_frame: float = 0.5
    """Probability of a crop that leaves keypoints outside the frame."""
    cropped_expression: float = 0.75
    """Probability that the decoder's expression comes from the third view of the driving frame, else it comes
    from the frame as the target shows it.
    """
    expression_view: Literal["tight", "whole", "centre"] = "tight"
    """That third view, always in colours of its own. tight: a random crop close round the face, which loses
    where the face was, as published. whole: no crop (the no-keypoint model, whose expression must say where
    the face is). centre: a crop of the middle, each side a share of the frame drawn from `centre` .. 1 (the
    no-keypoint model with crop augmentation).
    """
    centre: float = 0.7

    def __post_init__(self) -> None:
        for name in ("flip", "out_of_frame", "cropped_expression"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a probability")
        if not 0 < self.centre <= 1:
            raise ValueError(f"centre {self.centre}: expected a share above 0, up to 1")
        if not 0 <= self.jitter < 1 or not 0 <= self.hue <= 0.5:
            raise ValueError(f"jitter {self.jitter}, hue {self.hue}: expected below 1 and at most 0.5")


class FsrtConfig(ModelConfig, frozen=True, kw_only=True):
    net: Architecture = field(default_factory=Architecture)
    phases: dict[str, Phase | None] = field(default_factory=lambda: dict(PHASES))
    sampling: TrainingSampleConfig = field(default_factory=TrainingSampleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    images: ImageLossRenderingConfig = field(default_factory=ImageLossRenderingConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    perceptual_net: PerceptualNetName = "vgg19"
    """Whose maps the perceptual loss compares. vgg19: as published, its file must be imported. The others
    need no import, and what is trained with them says which: efficientnet_lite0, trained on ImageNet too, or
    vgg19_random, untrained. The weight in `phases` is for VGG19; models/fsrt/losses.py scales the others'
    term.
    """
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast; a device that does not multiply in bfloat16 itself (older CPUs) refuses to train so;
    positional codes, soft-argmax, losses and Adam stay in float32.
    """
    keypoints: str = "main"
    """The instance of keypoints that it reads."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if self.sampling.queries > self.net.image_size**2:
            raise ValueError(
                f"sampling.queries {self.sampling.queries}: an image of side {self.net.image_size} has only "
                f"{self.net.image_size**2} pixels"
            )
        side = self.net.image_size // (2 if self.images.loss_input == "lattice" else 1)
        self.check_perceptual_images(self.perceptual_net, side, ("perceptual",))
        self._check_crops()

    def _check_crops(self) -> None:
        """Crops that the net cannot be told about would only be noise."""
        crop = self.augment.out_of_frame
        if crop and not self.net.uses_keypoints:
            raise ValueError(
                f"augment.out_of_frame {crop} without keypoints (net.keypoint_octaves 0): nothing tells the "
                "decoder where the crop was; expected 0"
            )
        if crop and self.net.start_octave > -1:
            raise ValueError(
                f"augment.out_of_frame {crop} with net.start_octave {self.net.start_octave}: keypoints "
                "up to 2 need start_octave -1, whose codes are unique outside the frame; expected 0"
            )
        if self.augment.expression_view == "tight" and not self.net.uses_keypoints:
            raise ValueError(
                "augment.expression_view tight without keypoints (net.keypoint_octaves 0): a tight crop "
                "loses where the face is, and nothing else tells it; expected whole or centre"
            )


def full_architecture() -> Architecture:
    """The published net: encoder 29,774,112, decoder 15,310,131, expression extractor 2,558,976
    parameters.
    """
    return Architecture()


def tiny_architecture() -> Architecture:
    """Our own size for tests and the demo (configs/run/tiny.yaml): the same structure at 64 px, minutes on
    two cores.
    """
    return Architecture(
        detector=KeypointDetectorConfig(size=64, width=16, max_width=128, blocks=4),
        image_size=64,
        expression_size=32,
        expression_per_keypoint=8,
        pixel_octaves=6,  # octaves at and above log2(64) are constant on a 64 px grid
        keypoint_octaves=2,
        patch_width=16,
        patch_blocks=3,
        head_size=32,
        encoder_depth=2,
        encoder_heads=4,
        encoder_mlp=256,
        initial="balanced",
        query_mlp=192,
        decoder_depth=2,
        decoder_heads=4,
        decoder_mlp=128,
        render=(128, 128),
    )
