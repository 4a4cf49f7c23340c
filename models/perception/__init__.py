"""Frozen nets and models: name -> loader and the weights it needs.

To add one: an adapter in this folder, and a line here.

A loader takes {weights id: local file} and returns an object of `models/perception/interfaces.py`; the
objects are made once in each worker process, and none need survive pickling.
"""

from __future__ import annotations

from typing import NamedTuple


class Net(NamedTuple):
    loader: str
    """"module:function" of (weights: Mapping[str, Path]) -> object."""
    weights: tuple[str, ...] = ()
    """Ids in the weights registry."""
    gpu: bool = False
    """Runs on the GPU where there is one."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions its results depend on."""


_TORCH, _DLIB, _SCIPY = ("torch",), ("dlib-bin",), ("scipy",)
_FAN, _WAV2VEC = ("face-alignment", "torch"), ("torch", "transformers")


NETS: dict[str, Net] = {
    "analytic_head": Net("models.perception.head.default_head:load_analytic", packages=_SCIPY),
    "flame": Net("models.perception.head.converters:load_flame", ("flame_model",), packages=_SCIPY),
    "bfm_deep3d": Net("models.perception.head.converters:load_bfm", ("bfm_deep3d",), packages=_SCIPY),
    "bfm_3ddfa": Net("models.perception.head.converters:load_3ddfa", ("bfm_3ddfa",), packages=_SCIPY),
    "lsfm": Net("models.perception.head.converters:load_lsfm", ("lsfm",), packages=_SCIPY),
    "deca": Net("models.perception.head.deca:load", ("deca", "flame_model"), gpu=True, packages=_TORCH),
    "deep3d": Net("models.perception.head.deep3d:load", ("deep3d",), gpu=True, packages=("pillow", "torch")),
    "dlib_hog": Net("models.perception.faces.dlib_faces:load_hog", packages=_DLIB),
    "dlib128": Net("models.perception.faces.dlib_identity:load", ("dlib_sp5", "dlib_resnet"), packages=_DLIB),
    "dlib_ladder": Net("models.perception.faces.dlib_faces:load_ladder", ("dlib_mmod",), packages=_DLIB),
    "dlib68": Net("models.perception.faces.dlib_faces:load_landmarks", ("dlib_sp68",), packages=_DLIB),
    "dlib68_precise": Net(
        "models.perception.faces.dlib_faces:load_precise_landmarks", ("dlib_sp68",), packages=_DLIB
    ),
    "s3fd": Net("models.perception.faces.s3fd:load", ("s3fd",), gpu=True, packages=_FAN),
    "fan2d": Net("models.perception.faces.fan:load_2d", ("fan2d",), gpu=True, packages=_FAN),
    "fan2d_flip": Net("models.perception.faces.fan:load_2d_flip", ("fan2d",), gpu=True, packages=_FAN),
    "fan25d": Net("models.perception.faces.fan:load_25d", ("fan3d",), gpu=True, packages=_FAN),
    "fan3d": Net("models.perception.faces.fan:load_3d", ("fan3d", "fan_depth"), gpu=True, packages=_FAN),
    "vgg19": Net("models.perception.vgg19:load", ("vgg19",), gpu=True, packages=_TORCH),
    "vgg19_random": Net("models.perception.vgg19:load_random", gpu=True, packages=_TORCH),
    "wav2vec2_base": Net(
        "models.perception.speech.wav2vec:load_base", ("wav2vec2_base",), gpu=True, packages=_WAV2VEC
    ),
    "wav2vec2_large": Net(
        "models.perception.speech.wav2vec:load_large", ("wav2vec2_large",), gpu=True, packages=_WAV2VEC
    ),
}
