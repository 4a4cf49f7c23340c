"""Frozen nets and models: name -> loader and the weights it needs.

To add one: an adapter in this folder, and a line here.

Nets of .tflite files run in LiteRT, on CPUs, or in torch, on GPUs and with gradients: `name.litert` and
`name.torch` are entries of their own, and stages are given either under the plain name.

A loader takes {weights id: local file} and returns an object of `models/perception/interfaces.py`; the
objects are made once in each worker process, and none need survive pickling.
"""

from __future__ import annotations

from typing import NamedTuple


class NetEntry(NamedTuple):
    loader: str
    """"module:function" of (weights: Mapping[str, Path]) -> object."""
    weights: tuple[str, ...] = ()
    """Ids in the weights registry."""
    gpu: bool = False
    """Runs on the GPU where there is one."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions its results depend on."""


_MP_FACE, _MP_MESH = ("mp_face_short", "mp_face_full", "mp_mesh468"), ("mp_mesh468",)
_LITERT = ("ai-edge-litert", "opencv-python", "torch")
_CROPS = ("opencv-python", "torch")
_TORCH, _DLIB, _SCIPY = ("torch",), ("dlib-bin",), ("scipy",)
_FAN, _WAV2VEC = ("face-alignment", "opencv-python", "torch"), ("torch", "transformers")


NETS: dict[str, NetEntry] = {
    "analytic_head": NetEntry("models.perception.head.default_head:load_analytic_head", packages=_SCIPY),
    "flame": NetEntry(
        "models.perception.head.converters:load_flame_model", ("flame_model",), packages=_SCIPY
    ),
    "bfm_deep3d": NetEntry(
        "models.perception.head.converters:load_bfm_model", ("bfm_deep3d",), packages=_SCIPY
    ),
    "bfm_3ddfa": NetEntry(
        "models.perception.head.converters:load_3ddfa_morphable_model", ("bfm_3ddfa",), packages=_SCIPY
    ),
    "lsfm": NetEntry("models.perception.head.converters:load_lsfm_model", ("lsfm",), packages=_SCIPY),
    "deca": NetEntry(
        "models.perception.head.deca:load_deca", ("deca", "flame_model"), gpu=True, packages=_TORCH
    ),
    "deep3d": NetEntry(
        "models.perception.head.deep3d:load_deep3d", ("deep3d",), gpu=True, packages=("pillow", "torch")
    ),
    "dlib_hog": NetEntry("models.perception.faces.dlib_faces:load_hog_detector", packages=_DLIB),
    "dlib128": NetEntry(
        "models.perception.faces.dlib_identity:load_dlib_embedder",
        ("dlib_sp5", "dlib_resnet"),
        packages=_DLIB,
    ),
    "dlib_resnet": NetEntry(
        "models.perception.faces.dlib_resnet:load_dlib_resnet", ("dlib_resnet",), gpu=True, packages=_CROPS
    ),
    "dlib_ladder": NetEntry(
        "models.perception.faces.dlib_faces:load_hog_cnn_detector", ("dlib_mmod",), packages=_DLIB
    ),
    "dlib68": NetEntry(
        "models.perception.faces.dlib_faces:load_dlib_landmarker", ("dlib_sp68",), packages=_DLIB
    ),
    "dlib68_precise": NetEntry(
        "models.perception.faces.dlib_faces:load_precise_dlib_landmarker", ("dlib_sp68",), packages=_DLIB
    ),
    "mp_face.litert": NetEntry(
        "models.perception.faces.blazeface:load_mp_face_litert", _MP_FACE, packages=_LITERT
    ),
    "mp_face.torch": NetEntry(
        "models.perception.faces.blazeface:load_mp_face_torch", _MP_FACE, gpu=True, packages=_CROPS
    ),
    "mesh468.litert": NetEntry(
        "models.perception.faces.face_mesh:load_mesh468_litert", _MP_MESH, packages=_LITERT
    ),
    "mesh468.torch": NetEntry(
        "models.perception.faces.face_mesh:load_mesh468_torch", _MP_MESH, gpu=True, packages=_CROPS
    ),
    "mesh468_iris.litert": NetEntry(
        "models.perception.faces.face_mesh:load_mesh468_iris_litert",
        (*_MP_MESH, "mp_iris"),
        packages=_LITERT,
    ),
    "mesh468_iris.torch": NetEntry(
        "models.perception.faces.face_mesh:load_mesh468_iris_torch",
        (*_MP_MESH, "mp_iris"),
        gpu=True,
        packages=_CROPS,
    ),
    "dlib128_mesh.litert": NetEntry(
        "models.perception.faces.mesh_identity:load_dlib128_mesh_litert",
        (*_MP_MESH, "dlib_resnet"),
        packages=_LITERT,
    ),
    "dlib128_mesh.torch": NetEntry(
        "models.perception.faces.mesh_identity:load_dlib128_mesh_torch",
        (*_MP_MESH, "dlib_resnet"),
        gpu=True,
        packages=_CROPS,
    ),
    "net3d_mesh468": NetEntry(
        "models.perception.head.net3d:load_net3d_mesh468",
        _MP_MESH,
        gpu=True,
        packages=(*_CROPS, "scipy"),
    ),
    "s3fd": NetEntry("models.perception.faces.s3fd:load_s3fd", ("s3fd",), gpu=True, packages=_FAN),
    "mtcnn": NetEntry(
        "models.perception.faces.mtcnn:load_mtcnn",
        ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet"),
        gpu=True,
        packages=_TORCH,
    ),
    "fan2d": NetEntry("models.perception.faces.fan:load_fan_2d", ("fan2d",), gpu=True, packages=_FAN),
    "fan2d_flip": NetEntry(
        "models.perception.faces.fan:load_fan_2d_flip", ("fan2d",), gpu=True, packages=_FAN
    ),
    "fan25d": NetEntry("models.perception.faces.fan:load_fan_25d", ("fan3d",), gpu=True, packages=_FAN),
    "fan3d": NetEntry(
        "models.perception.faces.fan:load_fan_3d", ("fan3d", "fan_depth"), gpu=True, packages=_FAN
    ),
    "retinaface_dense1103": NetEntry(
        "models.perception.faces.retinaface_dense:load_retinaface_dense",
        ("retinaface_dense1103",),
        gpu=True,
        packages=_CROPS,
    ),
    "efficientnet_lite0": NetEntry(
        "models.perception.efficientnet_lite0:load_efficientnet_lite0",
        ("efficientnet_lite0",),
        gpu=True,
        packages=_TORCH,
    ),
    "vgg19": NetEntry("models.perception.vgg19:load_vgg19", ("vgg19",), gpu=True, packages=_TORCH),
    "vgg19_random": NetEntry("models.perception.vgg19:load_random_vgg19", gpu=True, packages=_TORCH),
    "lpips_alex": NetEntry(
        "models.perception.lpips:load_lpips_alex", ("alexnet", "lpips_alex"), gpu=True, packages=_TORCH
    ),
    "lpips_vgg": NetEntry(
        "models.perception.lpips:load_lpips_vgg", ("vgg16", "lpips_vgg"), gpu=True, packages=_TORCH
    ),
    "inception_fid": NetEntry(
        "models.perception.inception_fid:load_inception_fid", ("inception_fid",), gpu=True, packages=_TORCH
    ),
    "i3d_k400": NetEntry("models.perception.i3d:load_i3d", ("i3d_k400",), gpu=True, packages=_TORCH),
    "syncnet": NetEntry(
        "models.perception.speech.syncnet:load_syncnet", ("syncnet",), gpu=True, packages=_TORCH
    ),
    "irse50": NetEntry("models.perception.faces.irse50:load_irse50", ("irse50",), gpu=True, packages=_TORCH),
    "arcface_r50": NetEntry(
        "models.perception.faces.iresnet:load_arcface_r50", ("arcface_r50",), gpu=True, packages=_TORCH
    ),
    "arcface_r100": NetEntry(
        "models.perception.faces.iresnet:load_arcface_r100", ("arcface_r100",), gpu=True, packages=_TORCH
    ),
    "wav2lip_expert": NetEntry(
        "models.perception.speech.wav2lip_expert:load_wav2lip_expert",
        ("wav2lip_expert",),
        gpu=True,
        packages=_TORCH,
    ),
    "wav2vec2_base": NetEntry(
        "models.perception.speech.wav2vec:load_wav2vec2_base", ("wav2vec2_base",), gpu=True, packages=_WAV2VEC
    ),
    "wav2vec2_large": NetEntry(
        "models.perception.speech.wav2vec:load_wav2vec2_large",
        ("wav2vec2_large",),
        gpu=True,
        packages=_WAV2VEC,
    ),
}


_REGRESSOR = "models.perception.faces.retinaface_dense"
WEIGHTS_CHECKS = {
    "retinaface_dense1103": f"{_REGRESSOR}:check_weights_match_id",
    "alexnet": "models.perception.alexnet:check_weights_match_id",
    "vgg16": "models.perception.vgg16:check_weights_match_id",
    "inception_fid": "models.perception.inception_fid:check_weights_match_id",
    "irse50": "models.perception.faces.irse50:check_weights_match_id",
    "arcface_r50": "models.perception.faces.iresnet:check_weights_match_id",
    "arcface_r100": "models.perception.faces.iresnet:check_weights_match_id",
}
"""Weights id -> "module:function" of (id, imported file); it raises InvalidFile for another net's file."""


def net_on_backend(name: str, backend: str) -> str:
    """The entry of NETS by which a net runs on a backend, litert or torch: its only one, for most nets."""
    return name if name in NETS else f"{name}.{backend}"
