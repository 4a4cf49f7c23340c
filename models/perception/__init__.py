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


NETS: dict[str, Net] = {
    "analytic_head": Net("models.perception.morphable:load_analytic"),
    "flame": Net("models.perception.converters:load_flame", ("flame_model",)),
    "bfm_deep3d": Net("models.perception.converters:load_bfm", ("bfm_deep3d",)),
    "bfm_3ddfa": Net("models.perception.converters:load_3ddfa", ("bfm_3ddfa",)),
    "lsfm": Net("models.perception.converters:load_lsfm", ("lsfm",)),
    "deca": Net("models.perception.deca:load", ("deca", "flame_model"), gpu=True),
    "deep3d": Net("models.perception.deep3d:load", ("deep3d",), gpu=True),
    "dlib_hog": Net("models.perception.dlib_faces:load_hog"),
    "dlib128": Net("models.perception.dlib_identity:load", ("dlib_sp5", "dlib_resnet")),
    "dlib_ladder": Net("models.perception.dlib_faces:load_ladder", ("dlib_mmod",)),
    "dlib68": Net("models.perception.dlib_faces:load_landmarks", ("dlib_sp68",)),
    "dlib68_precise": Net("models.perception.dlib_faces:load_precise_landmarks", ("dlib_sp68",)),
    "s3fd": Net("models.perception.s3fd:load", ("s3fd",), gpu=True),
    "fan2d": Net("models.perception.fan:load_2d", ("fan2d",), gpu=True),
    "fan2d_flip": Net("models.perception.fan:load_2d_flip", ("fan2d",), gpu=True),
    "fan25d": Net("models.perception.fan:load_25d", ("fan3d",), gpu=True),
    "fan3d": Net("models.perception.fan:load_3d", ("fan3d", "fan_depth"), gpu=True),
    "vgg19": Net("models.perception.vgg19:load", ("vgg19",), gpu=True),
    "vgg19_random": Net("models.perception.vgg19:load_random", gpu=True),
    "wav2vec2_base": Net("models.perception.wav2vec:load_base", ("wav2vec2_base",), gpu=True),
    "wav2vec2_large": Net("models.perception.wav2vec:load_large", ("wav2vec2_large",), gpu=True),
}
