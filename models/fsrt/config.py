"""FSRT's architecture and training settings as values; the defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from models.api import Phase
from models.fsrt.phases import PHASES


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
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
        if self.size % 2 ** (self.blocks + 2):
            raise ValueError(
                f"size {self.size}: expected a multiple of {2 ** (self.blocks + 2)} for {self.blocks} blocks"
            )
        if self.keypoints < 1 or self.width < 1 or self.max_width < self.width or self.temperature <= 0:
            raise ValueError(
                f"{self.keypoints} keypoints, width {self.width} to {self.max_width}, "
                f"temperature {self.temperature}: expected positive numbers, the widths in order"
            )

    @property
    def cells(self) -> int:
        """Side of a heatmap: the 7x7 convolution is not padded."""
        return self.size // 4 - 6

    @property
    def features(self) -> int:
        return self.width + 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """All sizes of the net. Section numbers are those of the paper's supplement; sizes follow its parameter
    counts.
    """

    detector: Detector = field(default_factory=Detector)
    image_size: int = 256
    """Side of the images encoded and rendered, in pixels."""
    expression_size: int = 256
    """Length of the latent expression vector e."""
    expression_per_keypoint: int = 32
    pixel_octaves: int = 16
    keypoint_octaves: int = 4
    start_octave: int = -1
    """Lowest octave of both positional codes; -1 keeps them unique on (-2,2), outside the frame too."""
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
    """Whether the tokens of several sources attend to each other in the encoder (released 2-source weights:
    joint).
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
        if self.image_size % 2**self.patch_blocks:
            raise ValueError(f"image_size {self.image_size}: expected a multiple of {2**self.patch_blocks}")
        for setting in fields(self):
            value = getattr(self, setting.name)
            sizes = value if isinstance(value, tuple) else (value,)
            if setting.name != "start_octave" and any(isinstance(size, int) and size < 1 for size in sizes):
                raise ValueError(f"{setting.name} {value}: expected 1 or more")

    @property
    def token_size(self) -> int:
        return self.patch_width * 2**self.patch_blocks

    @property
    def tokens(self) -> int:
        """Latent tokens of one source image."""
        return (self.image_size // 2**self.patch_blocks) ** 2

    @property
    def keypoint_code(self) -> int:
        return 2 * 2 * self.detector.keypoints * self.keypoint_octaves

    @property
    def pixel_code(self) -> int:
        return 2 * 2 * self.pixel_octaves

    @property
    def query_size(self) -> int:
        return self.keypoint_code + self.pixel_code + self.expression_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """What one training sample holds."""

    sources: int = 1
    """Source images of a sample; the driving frame comes on top."""
    queries: int = 4096
    """Random pixels of the driving frame rendered in phase `warmup`, without replacement."""

    def __post_init__(self) -> None:
        if self.sources < 1 or self.queries < 1:
            raise ValueError(f"{self.sources} sources, {self.queries} queries: expected 1 or more of each")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
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
    """Probability that the decoder's expression comes from the tightly cropped driving frame."""

    def __post_init__(self) -> None:
        for name in ("flip", "out_of_frame", "cropped_expression"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a probability")
        if not 0 <= self.jitter < 1 or not 0 <= self.hue <= 0.5:
            raise ValueError(f"jitter {self.jitter}, hue {self.hue}: expected below 1 and at most 0.5")


@dataclass(frozen=True, kw_only=True, slots=True)
class FsrtConfig:
    net: Architecture = field(default_factory=Architecture)
    phases: dict[str, Phase] = field(default_factory=lambda: dict(PHASES))
    """By name; a run file changes single values of single phases."""
    sampling: Sampling = field(default_factory=Sampling)
    augment: Augment = field(default_factory=Augment)
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast on a GPU (positional codes, soft-argmax, losses and Adam stay in float32). A CPU
    computes in fp32.
    """
    seed: int = 0

    def __post_init__(self) -> None:
        for name, phase in self.phases.items():
            if name != phase.name:
                raise ValueError(f"phases.{name}.name {phase.name!r}: expected {name!r}")
        if self.sampling.queries > self.net.image_size**2:
            raise ValueError(
                f"sampling.queries {self.sampling.queries}: an image of side {self.net.image_size} has only "
                f"{self.net.image_size**2} pixels"
            )


def full() -> Architecture:
    """The published net: encoder 29,774,112, decoder 15,310,131, expression extractor 2,558,976
    parameters.
    """
    return Architecture()


def small_decoder() -> Architecture:
    """The published fast variant: a decoder of 6,012,723 parameters."""
    return replace(full(), decoder_heads=6, decoder_mlp=768, render=(1536, 768))


def tiny() -> Architecture:
    """Our own size for tests and the demo (configs/run/tiny.yaml): the same structure at 64 px, minutes on
    two cores.
    """
    return Architecture(
        detector=Detector(size=64, width=16, max_width=128, blocks=4),
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
