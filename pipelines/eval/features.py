"""Nodes `features.<method>.<protocol>.<feature>`: what metrics compare beside the frames themselves, computed
once for each method and once for the truth.

METRIC_FEATURES and FEATURE_STAGES: every feature by name. To add one: a stage function in a file of its own,
and a line in either table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from msgspec import Struct

from pipelines.figures import picture_grids
from pipelines.preprocess.boxes import largest_box

if TYPE_CHECKING:
    from models.perception.interfaces import FaceDetector, Landmarker
    from pipelines.eval.pair_clips import FamilySamples, Sample

NET_FRAME_SIZE = 256
"""Side, in pixels, at which nets look at frames: distances between landmarks are in its pixels."""
FRAMES_FEATURE = "frames"
"""What a metric reads that compares the frames themselves."""


class MetricFeature(Struct, frozen=True, kw_only=True):
    fields: tuple[str, ...]
    """Of the samples that it gives (storage/shards.py)."""
    pair_fields: tuple[str, ...] = ()
    """Further fields, of methods alone: what compares their frames with those of the truth, where the maps
    that are compared are too large to be kept."""
    driving_fields: tuple[str, ...] = ()
    """What is read of the driving clip beside the generated frames, by fields of `clips`, such as its sound.
    The stage then has the inputs `pairs` and `clips`."""
    input_features: tuple[str, ...] = ()
    """Other features of the same frames that its stage reads, under their names (`read_input_feature`)."""
    imported: bool = False
    """Whether it is read from what another program wrote: the stage then has the setting `files`, the folder
    that `eval.openface` names for the protocol and method, if it does, and the argument `setting`, that
    setting's name."""
    window: int = 1
    """Frames in a row that each row of its fields is of, one window after another; a clip that is shorter has
    one row of NaN."""
    nets: tuple[str, ...]
    """Names in models.perception.NETS, without the backend."""
    light: bool
    """Whether a few pairs take less time than the start of a worker (`Node.light`)."""
    backend: str
    """How it is computed, in words: two values may be compared only if these agree."""
    lack: str = "no face"
    """What is said of frames without it."""


DLIB_LANDMARKS_FEATURE = "landmarks.dlib68"
MESH_LANDMARKS_FEATURE = "landmarks.mesh468_iris"
FAN_LANDMARKS_FEATURE = "landmarks.fan2d"
IDENTITY_FEATURE = "identity.dlib_resnet"
IRSE50_FEATURE, IRSE50_FIXEDCROP_FEATURE = "identity.irse50", "identity.irse50_fixedcrop"
ARCFACE_R50_FEATURE, ARCFACE_R100_FEATURE = "identity.arcface_r50", "identity.arcface_r100"
DECA_FEATURE = "face.deca"
OPENFACE_FEATURE = "action_units.openface2"
EFFICIENTNET_FEATURE = "imagenet.efficientnet_lite0"
INCEPTION_PT_FEATURE, INCEPTION_CLEAN_FEATURE = "inception_fid.pt", "inception_fid.clean"
LPIPS_ALEX_FEATURE, LPIPS_VGG_FEATURE = "lpips.alex", "lpips.vgg"
LIPS_MESH_FEATURE = "lips.syncnet_mesh"
LIPS_S3FD_FEATURE = "lips.syncnet_s3fd"
LIPS_FULL_FRAME_FEATURE = "lips.syncnet_fullframe"
SPEECH_FEATURE = "speech.syncnet"
LOUDNESS_FEATURE = "sound.loudness"
I3D_FEATURE = "video.i3d_k400"
I3D_WINDOW = 16
"""Frames of a video that FVD compares."""
MAX_SOUND_LAG = 5
"""Frames at 25 fps by which a sound is sought before and after the mouth that it goes with."""
CLIP_SOUND_FIELDS = ("sound", "clip")
"""Of a clip, what says how it sounds and whether it does."""
LANDMARKER_WEIGHTS_ID = "dlib_sp68"
_RESIZED = f"on frames resized to {NET_FRAME_SIZE} px"
METRIC_FEATURES: dict[str, MetricFeature] = {
    DLIB_LANDMARKS_FEATURE: MetricFeature(
        fields=("landmarks",),
        nets=("dlib_hog", "dlib68"),
        light=True,
        backend=f"dlib_hog + dlib68 {_RESIZED}, largest face",
    ),
    MESH_LANDMARKS_FEATURE: MetricFeature(
        fields=("landmarks", "openness", "angles", "exp_coeffs"),
        nets=("mp_face", "mesh468_iris", "analytic_head"),
        light=False,
        backend=f"mp_face + mesh468_iris {_RESIZED}, largest face; pose by landmark fit of analytic_head",
    ),
    FAN_LANDMARKS_FEATURE: MetricFeature(
        fields=("landmarks",),
        nets=("s3fd", "fan2d"),
        light=False,
        backend=f"s3fd + fan2d {_RESIZED}, largest face",
    ),
    IDENTITY_FEATURE: MetricFeature(
        fields=("embedding",),
        nets=("mp_face", "dlib128_mesh"),
        light=False,
        backend=f"mp_face + mesh468 + dlib_resnet {_RESIZED}, largest face",
    ),
    **{
        feature: MetricFeature(
            fields=("embedding",),
            input_features=(MESH_LANDMARKS_FEATURE,),
            nets=(net,),
            light=False,
            backend=f"{net} on faces aligned by five of mesh468_iris's points {_RESIZED}",
        )
        for feature, net in (
            (IRSE50_FEATURE, "irse50"),
            (ARCFACE_R50_FEATURE, "arcface_r50"),
            (ARCFACE_R100_FEATURE, "arcface_r100"),
        )
    },
    IRSE50_FIXEDCROP_FEATURE: MetricFeature(
        fields=("embedding",),
        nets=("irse50",),
        light=False,
        backend=f"irse50 on rows 35 to 222 and columns 32 to 219 {_RESIZED}",
        lack="no frame",
    ),
    DECA_FEATURE: MetricFeature(
        fields=("angles", "exp_coeffs"),
        input_features=(MESH_LANDMARKS_FEATURE,),
        nets=("deca",),
        light=False,
        backend=f"deca in crops about mesh468_iris's points {_RESIZED}",
    ),
    OPENFACE_FEATURE: MetricFeature(
        fields=("action_units",),
        imported=True,
        nets=(),
        light=True,
        backend="OpenFace 2, CSV files",
    ),
    EFFICIENTNET_FEATURE: MetricFeature(
        fields=("head_features", "block_features"),
        pair_fields=("map_distance",),
        nets=("efficientnet_lite0",),
        light=False,
        backend=f"efficientnet_lite0 {_RESIZED}",
        lack="no frame",
    ),
    INCEPTION_PT_FEATURE: MetricFeature(
        fields=("pool_features",),
        nets=("inception_fid",),
        light=False,
        backend="inception_fid (2015-12-05), pytorch-fid's resizing to 299 px",
        lack="no frame",
    ),
    INCEPTION_CLEAN_FEATURE: MetricFeature(
        fields=("pool_features",),
        nets=("inception_fid",),
        light=False,
        backend="inception_fid (2015-12-05), clean-fid's resizing to 299 px",
        lack="no frame",
    ),
    LPIPS_ALEX_FEATURE: MetricFeature(
        fields=(),
        pair_fields=("lpips",),
        nets=("lpips_alex",),
        light=False,
        backend="alexnet + lpips_alex on frames as they are",
        lack="no frame of 31 px a side",
    ),
    LPIPS_VGG_FEATURE: MetricFeature(
        fields=(),
        pair_fields=("lpips",),
        nets=("lpips_vgg",),
        light=False,
        backend="vgg16 + lpips_vgg on frames as they are",
        lack="no frame of 16 px a side",
    ),
    LIPS_MESH_FEATURE: MetricFeature(
        fields=("sync_lips",),
        input_features=(MESH_LANDMARKS_FEATURE,),
        nets=("syncnet",),
        light=False,
        backend="syncnet on faces cropped about 68 points of mesh468_iris",
    ),
    LIPS_S3FD_FEATURE: MetricFeature(
        fields=("sync_lips",),
        nets=("s3fd", "syncnet"),
        light=False,
        backend="syncnet on faces cropped about boxes of s3fd",
    ),
    LIPS_FULL_FRAME_FEATURE: MetricFeature(
        fields=("sync_lips",),
        nets=("syncnet",),
        light=False,
        backend="syncnet on whole frames resized to 224 px",
    ),
    SPEECH_FEATURE: MetricFeature(
        fields=("sync_sound",),
        driving_fields=CLIP_SOUND_FIELDS,
        nets=("syncnet",),
        light=False,
        backend="syncnet on MFCC of the driving sound",
        lack="no sound",
    ),
    LOUDNESS_FEATURE: MetricFeature(
        fields=("loudness",),
        driving_fields=CLIP_SOUND_FIELDS,
        nets=(),
        light=True,
        backend="root mean square of the driving sound, 40 ms a frame",
        lack="no sound",
    ),
    I3D_FEATURE: MetricFeature(
        fields=("logits",),
        window=I3D_WINDOW,
        nets=("i3d_k400",),
        light=False,
        backend="i3d_k400 on frames resized to 224 px",
        lack="fewer frames than a window",
    ),
}

FEATURE_STAGES = {
    DLIB_LANDMARKS_FEATURE: "pipelines.eval.features:compute_dlib_landmarks",
    MESH_LANDMARKS_FEATURE: "pipelines.eval.mesh_features:compute_mesh_landmarks",
    FAN_LANDMARKS_FEATURE: "pipelines.eval.fan_features:compute_fan_landmarks",
    IDENTITY_FEATURE: "pipelines.eval.mesh_features:compute_identity_embeddings",
    IRSE50_FEATURE: "pipelines.eval.identity_features:compute_irse50_embeddings",
    ARCFACE_R50_FEATURE: "pipelines.eval.identity_features:compute_arcface_r50_embeddings",
    ARCFACE_R100_FEATURE: "pipelines.eval.identity_features:compute_arcface_r100_embeddings",
    IRSE50_FIXEDCROP_FEATURE: "pipelines.eval.identity_features:compute_irse50_fixedcrop_embeddings",
    DECA_FEATURE: "pipelines.eval.deca_features:compute_deca_coefficients",
    OPENFACE_FEATURE: "pipelines.eval.openface:read_action_units",
    EFFICIENTNET_FEATURE: "pipelines.eval.efficientnet_features:compute_efficientnet_features",
    INCEPTION_PT_FEATURE: "pipelines.eval.inception_features:compute_inception_features_pt",
    INCEPTION_CLEAN_FEATURE: "pipelines.eval.inception_features:compute_inception_features_clean",
    LPIPS_ALEX_FEATURE: "pipelines.eval.lpips_features:compute_lpips_alex",
    LPIPS_VGG_FEATURE: "pipelines.eval.lpips_features:compute_lpips_vgg",
    LIPS_MESH_FEATURE: "pipelines.eval.sync_features:compute_lips_of_mesh_boxes",
    LIPS_S3FD_FEATURE: "pipelines.eval.sync_features:compute_lips_of_s3fd_boxes",
    LIPS_FULL_FRAME_FEATURE: "pipelines.eval.sync_features:compute_lips_of_whole_frames",
    SPEECH_FEATURE: "pipelines.eval.sync_features:compute_speech",
    LOUDNESS_FEATURE: "pipelines.eval.sync_features:compute_loudness",
    I3D_FEATURE: "pipelines.eval.video_features:compute_i3d_logits",
}
"""Feature -> "module:function" of its keyed stage, whose input has the role `generated`; where there are
`pair_fields` and the method is not the truth itself, another has the role `truth`. Apart from
METRIC_FEATURES, so that scores depend on what the stages publish and not on their code."""


def with_input_features(names: Iterable[str]) -> list[str]:
    """Features and what their stages read of others, each once, inputs first."""
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys([*with_input_features(METRIC_FEATURES[name].input_features), name])
    return list(found)


def read_input_feature(inputs: Mapping[str, FamilySamples], name: str) -> Sample:
    """Another feature of the same frames -> its fields, or `needs` alone, where its weights are missing."""
    family = inputs[name]
    key = family.keys[0]
    fields = family.fields(key)
    return family.read(key, ["needs"] if "needs" in fields else fields)


def compute_dlib_landmarks(
    inputs: Mapping[str, FamilySamples], config: object, nets: Mapping[str, object], runtime: object = None
) -> Iterator[Sample]:
    """68 points in each generated frame: (T,68,2) float32, NaN where no face is found. Without the net, whose
    weights are missing."""
    sample = inputs["generated"][0]
    if "dlib68" not in nets:
        yield {"__key__": sample["__key__"], "needs": {"weights": LANDMARKER_WEIGHTS_ID}}
        return
    detector, landmarker = cast("FaceDetector", nets["dlib_hog"]), cast("Landmarker", nets["dlib68"])
    points = find_landmarks(sample["frames"], detector, landmarker)
    yield {"__key__": sample["__key__"], "landmarks": points}


def find_landmarks(frames: np.ndarray, detector: FaceDetector, landmarker: Landmarker) -> np.ndarray:
    """(T,S,S,3) uint8 -> (T,68,2) float32, pixels of frames resized to 256 px; NaN where no face is
    found."""
    images = resize_for_nets(frames)
    return landmarker.landmarks(images, largest_faces(detector.detect(images)))


def resize_for_nets(frames: np.ndarray) -> np.ndarray:
    """(T,S,S,3) uint8 -> (T,256,256,3) uint8; frames of that size as they are, since the way to floats and
    back takes longer than the nets."""
    if frames.shape[1:3] == (NET_FRAME_SIZE, NET_FRAME_SIZE):
        return frames
    return picture_grids.to_uint8(picture_grids.resize_frames(frames, NET_FRAME_SIZE))


def largest_faces(detections: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of each frame (n,5) -> (T,4) float32: the one of largest area, NaN where there is none."""
    boxes = np.full((len(detections), 4), np.nan, np.float32)
    for t, rows in enumerate(detections):
        if len(rows):
            boxes[t] = largest_box(rows)[:4]
    return boxes
