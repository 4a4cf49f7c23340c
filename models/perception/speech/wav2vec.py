"""wav2vec 2.0 (Baevski et al. 2020) as a speech encoder on the 25 fps frame clock; transformers runs the net.

Convolutions turn 16 kHz sound into tokens, 400 samples each and 320 apart (49.95 a second), a transformer
reads them. Token m is centred on sample 320 m + 200, video frame i on 640 i + 320, at token 2 i + 0.375.

- align `centres`: the transformer reads all tokens, its output is interpolated, 0.625 h[2i] + 0.375 h[2i+1]:
  features lie on the frame's centre.
- align `inside`: only tokens 2i go into the transformer. Linear interpolation with aligned corners, as
  FaceFormer and PIR do it, is just that at 25 fps: features lie 120 samples = 7.5 ms early.

Frames beside a click: the net's view of one token is 25 ms wide, so a click shows in its own frame, and in
the neighbour when it lies within 12.5 ms of the border.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import InvalidFile, InvalidSettings
from models.perception.interfaces import InferenceSettings, SpeechEncoderOptions

SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = 640
TOKEN_HOP, RECEPTIVE_FIELD = 320, 400
"""Samples from one token to the next, and under one token."""
TOKEN_LERP_WEIGHT = 0.375
"""A frame's centre lies this far from token 2 i toward the next: (320 - 200) / 320."""
LOOKAHEAD_SAMPLES = 80
"""Samples after the last frame that its second token needs."""
EPSILON = 1e-7
MAX_BATCH_FRAMES = 2400
"""Frames in one pass of the transformer: 96 s, padding included."""
MAX_BATCH_PADDING_SHARE = 0.15
"""Of a window's own length. A processor gains nothing from batches, a GPU little from larger ones."""
MAX_CONVOLUTION_FRAMES = 600
"""Frames in one pass of the convolutions, whose first layer makes 0.26 MB of each, three times over."""

WAV2VEC2_CONFIG_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride", "conv_kernel", "conv_bias",
    "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "do_stable_layer_norm", "layer_norm_eps",
)  # fmt: skip
"""What is taken from a checkpoint's config.json. The rest can name code or addresses, or is for training."""
RENAMED_TENSORS = {
    "encoder.pos_conv_embed.conv.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "encoder.pos_conv_embed.conv.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
}
"""Published files name the parts of the weight norm as torch did before 2.0."""


def load_wav2vec2_base(weights: Mapping[str, Path]) -> Wav2Vec2:
    return load_wav2vec2(weights["wav2vec2_base"], "wav2vec2_base")


def load_wav2vec2_large(weights: Mapping[str, Path]) -> Wav2Vec2:
    return load_wav2vec2(weights["wav2vec2_large"], "wav2vec2_large")


def load_wav2vec2(path: Path, name: str) -> Wav2Vec2:
    """An imported checkpoint: one safetensors file that carries config.json in its header. No network: the
    net is built from that text, and nothing is looked up by name."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from safetensors import safe_open
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get("reenact", "{}")).get("settings", {})
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - not a dict
    given = about.get("config.json")
    if given is None:
        raise InvalidFile(f"{name}: no config.json came with the weights; import the folder that holds both")
    if given.get("add_adapter"):
        raise InvalidFile(f"{name}: has an adapter behind the transformer, which changes its frame rate")
    architecture = {key: given[key] for key in WAV2VEC2_CONFIG_FIELDS if key in given}
    architecture |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # of training
    architecture |= {"attn_implementation": "sdpa"}
    with torch.device("meta"):
        net = Wav2Vec2Model(Wav2Vec2Config(**architecture))
    _fill(net, _encoder_tensors(tensors), name)
    _check_clock(net.config, name)
    normalise = about.get("preprocessor_config.json", {}).get("do_normalize", True)
    return Wav2Vec2(net.eval().requires_grad_(False), name, bool(normalise))


def _encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the encoder's names; the heads of CTC and pre-training are left out."""
    if any(key.startswith("wav2vec2.") for key in tensors):
        tensors = {
            key.removeprefix("wav2vec2."): tensor
            for key, tensor in tensors.items()
            if key.startswith("wav2vec2.")
        }
    return {RENAMED_TENSORS.get(key, key): t for key, t in tensors.items() if key != "masked_spec_embed"}


def _fill(net: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    wanted = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if wrong := sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)):
        key = wrong[0]
        raise InvalidFile(
            f"{name}: {len(wrong)} tensors do not fit config.json, such as {key}: "
            f"found {found.get(key, 'none')}, expected {wanted.get(key, 'none')}"
        )
    net.load_state_dict(tensors, assign=True)


def _check_clock(config: Any, name: str) -> None:
    hop, field = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field, hop = field + (kernel - 1) * hop, hop * stride
    if (hop, field) != (TOKEN_HOP, RECEPTIVE_FIELD):
        raise InvalidFile(
            f"{name}: tokens of {field} samples every {hop}; expected {RECEPTIVE_FIELD} every {TOKEN_HOP}"
        )


# --- windows ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SoundWindow:
    """A stretch of one sound, in frames, and the frames of it that are kept."""

    sound: int
    start: int
    stop: int
    first: int
    last: int

    @property
    def frames(self) -> int:
        return self.stop - self.start


def plan_sound_windows(sound: int, frames: int, window: int, context: int) -> list[SoundWindow]:
    """Cut `frames` into windows of equal length; every frame is kept once, with `context` frames on both
    sides of it wherever the sound has them."""
    if frames <= window:
        return [SoundWindow(sound, 0, frames, 0, frames)]
    starts = [*range(0, frames - window, window - 2 * context), frames - window]
    cuts = [0, *(start + context for start in starts[1:]), frames]
    return [SoundWindow(sound, s, s + window, *cuts[i : i + 2]) for i, s in enumerate(starts)]


def batch_sound_windows(all_windows: Sequence[SoundWindow]) -> Iterator[list[SoundWindow]]:
    """Windows by length, as many at once as MAX_BATCH_FRAMES and MAX_BATCH_PADDING_SHARE allow; nothing
    else counts."""
    batch: list[SoundWindow] = []
    for window in sorted(all_windows, key=lambda w: (w.frames, w.sound, w.start)):
        full = (len(batch) + 1) * window.frames > MAX_BATCH_FRAMES
        if batch and (full or window.frames > (1 + MAX_BATCH_PADDING_SHARE) * batch[0].frames):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def zero_mean_unit_variance(sound: np.ndarray) -> np.ndarray:
    """(n,) -> (n,) float32 of mean 0 and variance 1, as Wav2Vec2FeatureExtractor does a whole utterance."""
    sound = sound.astype(np.float32, copy=False)
    return (sound - sound.mean()) / np.sqrt(sound.var() + EPSILON)


# --- the encoder --------------------------------------------------------------------------------------------
class Wav2Vec2:
    """models.perception.interfaces.SpeechEncoder."""

    def __init__(self, net: Any, name: str, normalise: bool):
        self.net, self.name, self.normalise = net, name, normalise
        self.layers, self.size = net.config.num_hidden_layers, net.config.hidden_size
        self._cut: dict[int, nn.Module] = {}

    def configure_inference(self, how: InferenceSettings) -> None:
        self.net.to(how.device)

    @torch.inference_mode()
    def encode(self, sounds: Sequence[np.ndarray], options: SpeechEncoderOptions) -> list[np.ndarray]:
        """Sounds (640 T,) float32 -> (T,D) float32 each. A sound up to `options.window` long is one pass."""
        if options.align not in ("centres", "inside"):
            raise ValueError(f"align {options.align!r}: expected centres or inside")
        padded = [self._padded(sound) for sound in sounds]
        counts = [len(sound) // SAMPLES_PER_FRAME for sound in sounds]
        found = [np.empty((count, self.size), np.float32) for count in counts]
        cut = [
            w for i, n in enumerate(counts) for w in plan_sound_windows(i, n, options.window, options.context)
        ]
        for batch in batch_sound_windows(cut):
            for window, rows in zip(batch, self._pass(batch, padded, options), strict=True):
                kept = rows[window.first - window.start : window.last - window.start]
                found[window.sound][window.first : window.last] = kept.cpu().numpy()
        return found

    def _padded(self, sound: np.ndarray) -> np.ndarray:
        """Silence behind the end is 0 after normalisation, as in training."""
        if len(sound) % SAMPLES_PER_FRAME or not len(sound):
            raise ValueError(f"{len(sound)} samples: expected a multiple of {SAMPLES_PER_FRAME}")
        return np.pad(zero_mean_unit_variance(sound) if self.normalise else sound, (0, LOOKAHEAD_SAMPLES))

    def _pass(
        self, batch: Sequence[SoundWindow], sounds: Sequence[np.ndarray], options: SpeechEncoderOptions
    ) -> list[Tensor]:
        """-> (frames, D) of each window."""
        inside = options.align == "inside"
        tokens = self._convolved(batch, sounds, 0 if inside else LOOKAHEAD_SAMPLES)
        if inside:  # 640 T samples make 2 T - 1 tokens
            return self._contextual([t[::2] for t in tokens], options.layer)
        rows = self._contextual(tokens, options.layer)
        return [torch.lerp(h[0::2], h[1::2], TOKEN_LERP_WEIGHT) for h in rows]

    def _convolved(
        self, batch: Sequence[SoundWindow], sounds: Sequence[np.ndarray], ahead: int
    ) -> list[Tensor]:
        """-> tokens (n, D) of each window. Windows of one length go together; padding is no way out, for
        the norm after the first convolution runs over time."""
        tokens: list[Tensor] = []
        while len(tokens) < len(batch):
            frames = batch[len(tokens)].frames
            room = max(1, MAX_CONVOLUTION_FRAMES // frames)
            some = [w for w in batch[len(tokens) :][:room] if w.frames == frames]
            pieces = [
                sounds[w.sound][w.start * SAMPLES_PER_FRAME : w.stop * SAMPLES_PER_FRAME + ahead]
                for w in some
            ]
            features = self.net.feature_extractor(torch.from_numpy(np.stack(pieces)).to(self.net.device))
            tokens += self.net.feature_projection(features.transpose(1, 2))[0].unbind(0)
        return tokens

    def _contextual(self, tokens: Sequence[Tensor], layer: int) -> list[Tensor]:
        """(n,D) each -> (n,D) each. Shorter ones are padded behind a mask, which changes nothing in them."""
        lengths = torch.tensor([len(t) for t in tokens], device=tokens[0].device)
        longest = int(lengths.max())
        mask = None
        if int(lengths.min()) < longest:
            mask = torch.arange(longest, device=lengths.device) < lengths[:, None]  # (B,n)
        stacked = nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
        out = self._transformer(layer)(stacked, attention_mask=mask).last_hidden_state
        return [rows[:n] for rows, n in zip(out, lengths.tolist(), strict=True)]

    def _transformer(self, layer: int) -> nn.Module:
        """The blocks up to `layer`, whose output is the library's hidden_states[layer]."""
        if not -1 <= layer <= self.layers:
            raise InvalidSettings(
                f"{self.name}: layer {layer} asked for; it has {self.layers}, -1 is the last"
            )
        if layer in (-1, self.layers):
            return self.net.encoder
        if layer not in self._cut:
            cut = copy.copy(self.net.encoder)
            cut._modules = {**cut._modules, "layers": self.net.encoder.layers[:layer]}
            if self.net.config.do_stable_layer_norm:  # its norm stands behind the last block only
                cut._modules["layer_norm"] = nn.Identity()
            self._cut[layer] = cut
        return self._cut[layer]
