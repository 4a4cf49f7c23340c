"""Samples as WebDataset members: the table of fields, their codecs, and the shards they are packed into.

A sample is a flat dict: `__key__` (`{identity}#{recording}#{start:06d}#{end:06d}`, or a recording's id before
clips exist) and the fields below. Plain `webdataset` reads every shard: a member is `{key}.{field}.{ext}`.

| field | ext | in memory | unit | written by |
|---|---|---|---|---|
| video | mp4 | bytes | the raw recording with its sound | download |
| probe | json | dict: width, height, fps, frames, seconds, audio_rate, container, video_codec | | download |
| truth | npz | dict of arrays, a row a frame: what a synthetic recording was rendered from | | download |
| frames | jpgs | uint8 (T,S,S,3) RGB | the crop at 25 fps | clips |
| sound | flac | float32 (n,), [-1,1], 16 kHz mono, 16 bit on disk | | clips |
| boxes | npy | float32 (T,4) x0,y0,x1,y1 | face box, pixels of the raw frame | clips |
| crop | npy | float32 (T,4) x0,y0,x1,y1 | square that became the frame, pixels of the raw frame | clips |
| clip | json | dict: identity, recording, start, end, fps, size, frames, detector, detected share | | clips |
| landmarks | npy | float32 (T,68,2) | pixels of the clip, NaN where no face | keypoints |
| score | npy | float32 (T,) | detector score, 0 where no face | keypoints |
| face_box | npy | float32 (T,4) | pixels of the clip, NaN where no face | keypoints |
| id_coeffs | npy | float32 (n_id,) | sigmas, one vector a clip | fit3dmm |
| exp_coeffs | npy | float32 (T,n_exp) | sigmas | fit3dmm |
| scale | npy | float32 (T,) | pixels per model unit | fit3dmm |
| rotation | npy | float32 (T,3,3) | model to camera, x right, y down, z away | fit3dmm |
| translation | npy | float32 (T,3) | pixels | fit3dmm |
| angles | npy | float32 (T,3) | pitch, yaw, roll in degrees, 0 = frontal | fit3dmm |
| fit_error | npy | float32 (T,) | RMS landmark distance in pixels, NaN where no face | fit3dmm |
| speech | npy | float32 (T,D) | features on the frame clock | speech |

`jpgs` packs a clip's frames in one member: uint32 count, count+1 uint32 offsets relative to the end of that
header, then the JPEG files (little endian). `storage.shards.unpack_jpgs` is all a reader needs.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Sample = dict[str, Any]

JPEG_QUALITY = 95  # 45 dB against the crop, 18 KiB a 256 px frame; q90 gives 43.6 dB, H.264 crf 18 40.2 dB
SOUND_RATE = 16_000


# --- codecs: one a kind of field --------------------------------------------------------------------------
def pack_jpgs(frames: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """frames (T,H,W,3) uint8 RGB -> one member; 4:2:0, so H and W should be even."""
    import simplejpeg

    files = [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="420"
        )
        for frame in frames
    ]
    ends = np.cumsum([0, *(len(f) for f in files)], dtype=np.uint64)
    if ends[-1] >= 2**32:
        raise ValueError(
            f"{len(files)} frames take {int(ends[-1])} bytes; a jpgs member holds less than 4 GiB"
        )
    return np.uint32(len(files)).tobytes() + ends.astype("<u4").tobytes() + b"".join(files)


def jpgs_offsets(data: bytes) -> list[int]:
    """Start of each JPEG in the member, and the end of the last: count+1 numbers from the member's start."""
    count = int.from_bytes(data[:4], "little")
    header = 4 + 4 * (count + 1)
    return [header + int(o) for o in np.frombuffer(data, "<u4", count + 1, 4)]


def decode_jpg(data: bytes) -> np.ndarray:
    """One JPEG file -> (H,W,3) uint8 RGB."""
    import simplejpeg

    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def unpack_jpgs(data: bytes, indices: Sequence[int] | None = None) -> np.ndarray:
    """A `jpgs` member -> (n,H,W,3) uint8 RGB, decoding only the frames asked for (all by default)."""
    offsets = jpgs_offsets(data)
    wanted = range(len(offsets) - 1) if indices is None else indices
    return np.stack([decode_jpg(data[offsets[i] : offsets[i + 1]]) for i in wanted])


def _encode_flac(sound: np.ndarray) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(sound, -1, 1 - 2**-15), SOUND_RATE, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def _decode_flac(data: bytes) -> np.ndarray:
    import soundfile

    sound, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return sound


def _encode_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _encode_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Not np.savez: that stamps the zip entries with the time of day."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, _encode_npy(np.asarray(arrays[name])))
    return out.getvalue()


def _decode_npz(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _encode_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


_ENCODE = {
    "mp4": bytes, "json": _encode_json, "npz": _encode_npz, "jpgs": pack_jpgs, "flac": _encode_flac,
    "npy": _encode_npy,
}  # fmt: skip
_DECODE = {
    "mp4": bytes, "json": json.loads, "npz": _decode_npz, "jpgs": unpack_jpgs, "flac": _decode_flac,
    "npy": lambda data: np.load(io.BytesIO(data), allow_pickle=False),
}  # fmt: skip

FIELDS: dict[str, str] = {  # field -> extension; the docstring above says the rest
    "video": "mp4", "probe": "json", "truth": "npz",
    "frames": "jpgs", "sound": "flac", "boxes": "npy", "crop": "npy", "clip": "json",
    "landmarks": "npy", "score": "npy", "face_box": "npy",
    "id_coeffs": "npy", "exp_coeffs": "npy",
    "scale": "npy", "rotation": "npy", "translation": "npy", "angles": "npy", "fit_error": "npy",
    "speech": "npy",
}  # fmt: skip


def encode(field: str, value: Any) -> bytes:
    return _ENCODE[FIELDS[field]](value)


def decode(field: str, data: bytes) -> Any:
    return _DECODE[FIELDS[field]](data)


# --- records: where a sample's members lie in its shard ---------------------------------------------------
@dataclass(frozen=True, slots=True)
class Member:
    field: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sample of a shard: enough to read any member, or any frame, with one range read."""

    key: str
    digest: str
    members: tuple[Member, ...]
    frame_offsets: tuple[int, ...]
    """jpgs only: starts of the JPEG files in the shard, and the end of the last; else empty."""

    @property
    def frames(self) -> int:
        return max(0, len(self.frame_offsets) - 1)

    def member(self, field: str) -> Member:
        for member in self.members:
            if member.field == field:
                return member
        has = [member.field for member in self.members]
        raise ValueError(f"sample {self.key} has no field {field!r}; it has {has}")


EncodedSample = tuple[str, dict[str, bytes]]  # key, field -> member bytes


def encode_sample(sample: Sample) -> EncodedSample:
    key = sample["__key__"]
    check_key(key)
    return key, {field: encode(field, value) for field, value in sorted(sample.items()) if field != "__key__"}


def check_key(key: str) -> None:
    """A key becomes a member name: safe characters only, no dot (WebDataset splits there)."""
    if not key or not all(c.isascii() and (c.isalnum() or c in "_-#") for c in key):
        raise ValueError(f"sample key {key!r}: expected letters, digits, '_', '-' and '#' only")


def sample_digest(members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for field, data in sorted(members.items()):
        digest.update(f"{field}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return digest.hexdigest()


def write_shard(path: Path, samples: Iterable[EncodedSample]) -> list[SampleRecord]:
    """Write samples in the order given, byte-deterministically (mtime 0, no owner); returns their records.

    The same bytes as webdataset's own TarWriter, whose import brings torch: a second in every worker.
    """
    digests: dict[str, str] = {}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            if key in digests:
                raise ValueError(f"two samples with key {key} in one shard")
            digests[key] = sample_digest(members)
            for name, data in sorted((f"{key}.{f}.{FIELDS[f]}", data) for f, data in members.items()):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o444
                tar.addfile(info, io.BytesIO(data))
    return _index(path, digests)


def _index(path: Path, digests: Mapping[str, str]) -> list[SampleRecord]:
    members: dict[str, list[Member]] = {key: [] for key in digests}
    offsets: dict[str, tuple[int, ...]] = {}
    with tarfile.open(path) as tar, path.open("rb") as stream:
        for info in tar:
            key, field, extension = info.name.split(".")
            members[key].append(Member(field, info.offset_data, info.size))
            if extension == "jpgs":
                stream.seek(info.offset_data)
                head = stream.read(4)
                head += stream.read(4 * (int.from_bytes(head, "little") + 1))
                offsets[key] = tuple(info.offset_data + o for o in jpgs_offsets(head))
    return [SampleRecord(key, digests[key], tuple(members[key]), offsets.get(key, ())) for key in digests]


CODECS = {
    "json": "storage.shards:_encode_json",
    "npz": "storage.shards:_encode_npz",
    "jpgs": "storage.shards:pack_jpgs",
    "flac": "storage.shards:_encode_flac",
    "npy": "storage.shards:_encode_npy",
}


def codecs(fields: Iterable[str]) -> list[str]:
    """The code that turns these fields into bytes, as "module:function": part of their writer's key."""
    return sorted({CODECS[FIELDS[f]] for f in fields if FIELDS.get(f) in CODECS})
