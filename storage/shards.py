"""Samples as WebDataset members: the table of fields, their codecs, and the shards they are packed into.

A sample is a flat dict: `__key__` (`{identity}#{recording}#{start:06d}#{end:06d}`, or a recording's id before
clips exist) and the fields below. Plain `webdataset` reads every shard: a member is `{key}.{field}.{ext}`.

| field | ext | in memory | unit | written by |
|---|---|---|---|---|
| video | mp4 | LazyMember; bytes or a Path are written | the raw recording with its sound | download |
| probe | json | dict: see `pipelines.media.probe_file`; offset of a part of a recording | | download |
| truth | npz | dict of arrays, a row a frame: what a synthetic recording was rendered from | | download |
| frames | jpgs | uint8 (T,S,S,3) RGB; `EncodedFrames` is written as it is | the crop at 25 fps | clips |
| sound | flac | float32 (n,), [-1,1], 16 kHz mono, 16 bit on disk | | clips |
| boxes | npy | float32 (T,4) x0,y0,x1,y1 | face box, pixels of the raw frame | clips |
| crop | npy | float32 (T,4) x0,y0,x1,y1 | square that became the frame, pixels of the raw frame | clips |
| clip | json | dict: identity, recording, start, end, fps, size, frames, detector, and scores | | clips |
| landmarks | npy | float32 (T,68,2) | pixels of the clip, NaN where no face, or where they slip | keypoints |
| landmarks3d | npy | float32 (T,68,3) | x, y of landmarks, depth in pixels; fan3d, mesh468* | keypoints |
| dense | npy | float32 (T,m,3) | 468 (mesh468*) or 1035 dense points, depth in pixels | keypoints |
| iris | npy | float32 (T,2,5,2) | pixels of the clip, the image's left eye first; mesh468_iris | keypoints |
| confidence | npy | float32 (T,68) | of each, about 1 = sure, 0 = no face; fan*, mesh468* | keypoints |
| score | npy | float32 (T,) | how surely there is a face, 0 where none | keypoints |
| face_box | npy | float32 (T,4) | pixels of the clip, NaN where no face | keypoints |
| slip | npy | float32 (T,) | lengths of the face that landmarks move with their box | keypoints |
| embeddings | npy | float32 (K,D) | of K frames of the clip, K = 0 where no face | identity |
| frame_at | npy | int32 (T,) | frame of the clip that each frame of the view shows | views.* |
| affine | npy | float32 (T,2,3) | pixels of the clip -> pixels of the view | views.* |
| id_coeffs | npy | float32 (n_id,) | sigmas, one vector a clip | fit3dmm |
| exp_coeffs | npy | float32 (T,n_exp) | sigmas | fit3dmm |
| scale | npy | float32 (T,) | pixels per model unit | fit3dmm |
| rotation | npy | float32 (T,3,3) | model to camera, x right, y down, z away | fit3dmm |
| translation | npy | float32 (T,3) | pixels | fit3dmm |
| angles | npy | float32 (T,3) | pitch, yaw, roll in degrees, 0 = frontal | fit3dmm |
| fit_error | npy | float32 (T,) | RMS landmark distance in pixels, NaN where no face | fit3dmm |
| fit_valid | npy | bool (T,) | fitted well enough, or bridged over a short gap | fit3dmm |
| id_frames | npy | float32 (T,n_id) | sigmas, an identity a frame; fit3dmm.identity frame only | fit3dmm |
| net_code | npy | float32 (T,236 or 257) | all output of deca or deep3d, NaN where no face | fit3dmm |
| net_crop | npy | float32 (T,4) x0,y0,x1,y1 | what its 224 pixels span, pixels of the clip | fit3dmm |
| speech | npy | float32 or float16 (T,D) | features on the frame clock | speech |
| codes | npy | float32 (T,...) or (1,...) | latent codes of the frames, or one of the clip | invert.* |
| visualization | npz | dict, "place title" -> uint8 (I,I,3) | how the middle frame was made | generate.* |
| method | json | dict: provenance (parts with other than the published weights), image_size | | generate.* |
| openness | npy | float32 (T,2) | of lid from lid over the eye's width, left eye first | features.* |
| embedding | npy | float32 (T,128 or 512) | dlib's or ArcFace's of the face, NaN where none | features.* |
| action_units | npy | float32 (T,18) | 1 present, 0 not, NaN where no face; by OpenFace 2 | features.* |
| head_features | npy | float32 (T,1280) | EfficientNet-Lite0's head, mean over positions | features.* |
| block_features | npy | float32 (T,320) | its last block's output, mean over positions | features.* |
| map_distance | npy | float32 (T,) | of its maps from those of the truth's frame | features.* |
| pool_features | npy | float32 (T,2048) | FID's Inception before its classifier | features.* |
| lpips | npy | float32 (T,) | LPIPS of the frame from the truth's | features.* |
| sync_lips | npy | float32 (W,1024) | SyncNet's, of frames t to t + 4, NaN where no face | features.* |
| sync_sound | npy | float32 (W,1024) | SyncNet's, of the sound beside them, NaN where none | features.* |
| loudness | npy | float32 (T,11) | root mean square of the sound 5 frames after to 5 before | features.* |
| logits | npy | float32 (T // 16,400) | I3D's of 16 frames, one row of NaN of fewer | features.* |
| needs | json | dict: weights, the id for want of which there is no feature | | features.* |

Of a pair, `frames` (T,S,S,3) are what a method generated, T = 1 of one that shows a single picture, and
`landmarks` are in pixels of these frames resized to 256 px; `angles` are of a fit to these landmarks.

Scores in `clip`: detected, visible (shares of the frames looked at with the face; visible is null where
nobody looked), sharpness (median variance of the face's Laplacian), audible (share of frames with sound),
has_sound, side (of the crop in the recording), dropped (reject code -> tracks of the recording that make no
clip), box_frame ([width, height] of the frame that the source's boxes are in, where it was found out).

Beside them `method` of the landmark warp has frames_without_landmarks, driving frames that show the pose of
another.

`jpgs` packs a clip's frames in one member: uint32 count, count+1 uint32 offsets relative to the end of that
header, then the JPEG files (little endian). Runs may ask for `pngs` (the same with PNG files) or `mp4`
(H.264 in short GOPs) instead; `storage.frame_codec.decode_frames` is all a reader needs.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec import Struct

from storage import codecs, frame_codec

if TYPE_CHECKING:
    from storage.files import Store

Sample = dict[str, Any]

SOUND_RATE = codecs.SOUND_RATE
_CHUNK = 2**20


# --- what a member is made of -------------------------------------------------------------------------------
class LazyMember(Struct, frozen=True):
    """A member too large to hold in memory: where it lies in a shard of a store."""

    store: Store
    path: str
    offset: int
    size: int
    crc: int | None = None
    """crc32 on record, if there is one"""

    @contextmanager
    def open(self) -> Iterator[Any]:
        """A binary stream that stands at the first byte; what follows the last belongs to others."""
        with self.store.open(self.path) as stream:
            stream.seek(self.offset)
            yield stream

    def chunks(self) -> Iterator[bytes]:
        """The member's bytes; Damaged after the last if they are not those that were written."""
        left, crc = self.size, 0
        with self.open() as stream:
            while left:
                data = stream.read(min(left, _CHUNK))
                if not data:
                    raise self.store.damage_error(f"{self.path} ends {left} bytes early")
                left, crc = left - len(data), crc32(data, crc)
                yield data
        if self.crc not in (None, crc):
            raise self.store.damage_error(
                f"{self.path}: {self.size} bytes at {self.offset} are not as written"
            )

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def copy_to(self, path: Path) -> None:
        with path.open("wb") as sink:
            for data in self.chunks():
                sink.write(data)


Payload = bytes | Path | LazyMember
"""A member's bytes, or the finished file or older shard that holds them."""


def payload_size(payload: Payload) -> int:
    if isinstance(payload, bytes):
        return len(payload)
    return payload.size if isinstance(payload, LazyMember) else payload.stat().st_size


def payload_chunks(payload: Payload) -> Iterator[bytes]:
    if isinstance(payload, bytes):
        yield payload
    elif isinstance(payload, LazyMember):
        yield from payload.chunks()
    else:
        with payload.open("rb") as stream:
            while data := stream.read(_CHUNK):
                yield data


# --- fields -------------------------------------------------------------------------------------------------
FIELD_EXTENSIONS: dict[str, str] = {  # field -> extension; the docstring above says the rest
    "video": "mp4", "probe": "json", "truth": "npz",
    "frames": "jpgs", "sound": "flac", "boxes": "npy", "crop": "npy", "clip": "json",
    "landmarks": "npy", "landmarks3d": "npy", "dense": "npy", "iris": "npy", "confidence": "npy",
    "score": "npy", "face_box": "npy", "slip": "npy", "embeddings": "npy", "frame_at": "npy", "affine": "npy",
    "id_coeffs": "npy", "exp_coeffs": "npy",
    "scale": "npy", "rotation": "npy", "translation": "npy", "angles": "npy", "fit_error": "npy",
    "fit_valid": "npy", "id_frames": "npy", "net_code": "npy", "net_crop": "npy",
    "speech": "npy", "codes": "npy",
    "openness": "npy", "embedding": "npy", "action_units": "npy",
    "head_features": "npy", "block_features": "npy", "map_distance": "npy",
    "pool_features": "npy", "lpips": "npy",
    "sync_lips": "npy", "sync_sound": "npy", "loudness": "npy", "logits": "npy",
    "visualization": "npz", "method": "json", "needs": "json",
}  # fmt: skip


def encode_field(field: str, value: Any) -> tuple[str, Payload]:
    """-> extension, member."""
    if FIELD_EXTENSIONS[field] == "jpgs":
        return frame_codec.encode_frames(value)
    return FIELD_EXTENSIONS[field], codecs.encode_member(FIELD_EXTENSIONS[field], value)


def decode_field(field: str, data: bytes, extension: str = "") -> Any:
    if FIELD_EXTENSIONS[field] == "jpgs":
        return frame_codec.decode_frames(extension or "jpgs", data)
    return codecs.decode_member(FIELD_EXTENSIONS[field], data)


def is_large_field(field: str) -> bool:
    """Such a field is read as a LazyMember."""
    return FIELD_EXTENSIONS[field] == "mp4"


# --- records: where a sample's members lie in its shard ---------------------------------------------------
class MemberLocation(Struct, frozen=True):
    field: str
    offset: int
    size: int
    extension: str = ""
    crc: int | None = None
    """crc32 of its bytes; None in records made before there was one"""


class SampleRecord(Struct, frozen=True):
    """One sample of a shard: enough to read any member, or any frame, with one range read."""

    key: str
    digest: str
    members: tuple[MemberLocation, ...]
    frame_offsets: tuple[int, ...]
    """Starts of the image files in the shard, and the end of the last; empty if the sample has no frames."""
    frame_crcs: tuple[int, ...] = ()
    """crc32 of each image file; none of H.264, and in records made before there were any"""

    @property
    def frames(self) -> int:
        return max(0, len(self.frame_offsets) - 1)

    def member_location(self, field: str) -> MemberLocation:
        for member in self.members:
            if member.field == field:
                return member
        has = [member.field for member in self.members]
        raise ValueError(f"sample {self.key} has no field {field!r}; it has {has}")


class EncodedSample(Struct, frozen=True):
    key: str
    members: Mapping[str, tuple[str, Payload]]
    """Field -> extension, bytes."""

    def digest(self) -> str:
        return self.checksums()[0]

    def checksums(self) -> tuple[str, dict[str, int]]:
        """sha256 over the fields' own (extensions are a codec's business), and the crc32 of each field."""
        total, crcs = hashlib.sha256(), {}
        for field, (_, payload) in sorted(self.members.items()):
            one, crc = hashlib.sha256(), 0
            for data in payload_chunks(payload):
                one.update(data)
                crc = crc32(data, crc)
            total.update(f"{field}\0{one.hexdigest()}\n".encode())
            crcs[field] = crc
        return total.hexdigest(), crcs


def check_bytes(data: bytes, size: int, crc: int | None, store: Store, part: str) -> bytes:
    """What was read of a shard, if it is what was written; Damaged otherwise. part: the shard's path and what
    of it."""
    if len(data) != size:
        raise store.damage_error(f"{part}: {len(data)} of its {size} bytes are there")
    if crc is not None and crc32(data) != crc:
        raise store.damage_error(f"{part} is not as written")
    return data


def compute_shard_bytes(samples: Iterable[SampleRecord]) -> int:
    """Bytes of a shard with these samples: tar fills its last block, adds two empty ones, fills a record."""
    end = max((m.offset + m.size for sample in samples for m in sample.members), default=0)
    blocks = -(-end // tarfile.BLOCKSIZE) + 2
    return -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def encode_sample(sample: Sample) -> EncodedSample:
    key = sample["__key__"]
    check_sample_key(key)
    return EncodedSample(
        key, {f: encode_field(f, value) for f, value in sorted(sample.items()) if f != "__key__"}
    )


def check_sample_key(key: str) -> None:
    """A key becomes a member name: safe characters only, no dot (WebDataset splits there)."""
    if not key or not all(c.isascii() and (c.isalnum() or c in "_-#") for c in key):
        raise ValueError(f"sample key {key!r}: expected letters, digits, '_', '-' and '#' only")


class ShardWriter:
    """Appends samples to a tar, byte-deterministically (mtime 0, no owner), and can take the last ones back.

    The same bytes as webdataset's own TarWriter, whose import brings torch: a second in every worker.
    """

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._tar: Any = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        self._keys: dict[str, int] = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._file.close()

    def add(self, sample: EncodedSample) -> SampleRecord:
        if sample.key in self._keys:
            raise ValueError(f"two samples with key {sample.key} in one shard")
        self._keys[sample.key] = self._tar.offset
        members, offsets, frame_crcs = [], (), ()
        digest, crcs = sample.checksums()
        named = sorted((f"{sample.key}.{f}.{ext}", f, ext) for f, (ext, _) in sample.members.items())
        for name, field, extension in named:
            payload = sample.members[field][1]
            at = self._append(name, payload)
            members.append(MemberLocation(field, at, payload_size(payload), extension, crcs[field]))
            if FIELD_EXTENSIONS[field] == "jpgs":
                data = b"".join(payload_chunks(payload))
                starts = frame_codec.frame_byte_offsets(extension, data)
                offsets = tuple(at + o for o in starts)
                if extension != "mp4":
                    frame_crcs = tuple(crc32(data[a:b]) for a, b in pairwise(starts))
        return SampleRecord(sample.key, digest, tuple(members), offsets, frame_crcs)

    def _append(self, name: str, payload: Payload) -> int:
        """-> where the member's bytes begin."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = payload_size(payload), 0o444
        if isinstance(payload, bytes):
            self._tar.addfile(info, io.BytesIO(payload))
        else:
            with payload.open("rb") if isinstance(payload, Path) else payload.open() as stream:
                self._tar.addfile(info, stream)
        self._tar.members.clear()  # tarfile would keep every name
        return self._tar.offset - -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    def position(self) -> int:
        return self._tar.offset

    def truncate_to(self, mark: int) -> None:
        """Drop every sample that was added after `mark`."""
        self._file.seek(mark)
        self._file.truncate()
        self._tar.offset = mark
        self._keys = {key: at for key, at in self._keys.items() if at < mark}


def encoder_function_names(fields: Iterable[str]) -> list[str]:
    """The code that turns these fields into bytes, as "module:function": part of their writer's key."""
    return sorted({codec.encode for codec in _codecs(fields)})


def decoder_function_names(fields: Iterable[str]) -> list[str]:
    """The code that turns their bytes into what is computed on: part of the key of who reads them."""
    return sorted({code for codec in _codecs(fields) for code in codec.decode})


def codec_packages(fields: Sequence[str], frames_codec: frame_codec.FrameCodec) -> list[str]:
    """The packages that encode or decode them. frames_codec: of the run's `frames`."""
    of_frames = (
        frame_codec.CODEC_PACKAGES[frames_codec]
        if any(FIELD_EXTENSIONS.get(f) == "jpgs" for f in fields)
        else ()
    )
    return sorted({*of_frames, *(name for codec in _codecs(fields) for name in codec.packages)})


def _codecs(fields: Iterable[str]) -> list[codecs.FieldCodec]:
    return [
        codecs.FIELD_CODECS_BY_EXTENSION[FIELD_EXTENSIONS[f]]
        for f in fields
        if FIELD_EXTENSIONS.get(f) in codecs.FIELD_CODECS_BY_EXTENSION
    ]
