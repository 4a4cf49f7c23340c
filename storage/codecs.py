"""How a field's value becomes the bytes of a shard's member, and back; frames have a file of their own.

Beside storage/frame_codec.py the only part of storage that is in keys: it decides which numbers are read.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

SOUND_RATE = 16_000


def encode_flac(sound: np.ndarray) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(sound, -1, 1 - 2**-15), SOUND_RATE, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    import soundfile

    sound, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return sound


def encode_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][biufcSU]\d+)', "
    rb"'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)
"""What np.save writes of plain arrays."""


def decode_npy(data: bytes) -> np.ndarray:
    """np.load parses the header as Python source, which CPython 3.11 does wrongly now and then with threads
    beside it (SystemError: AST constructor recursion depth mismatch); batches are read in threads."""
    header = _NPY_HEADER.match(data)
    if header is None:
        return np.load(io.BytesIO(data), allow_pickle=False)
    shape = [int(side) for side in header[2].split(b",") if side.strip()]
    values = np.frombuffer(data, np.dtype(header[1].decode()), offset=header.end())
    return values.reshape(shape).copy()


def encode_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Not np.savez: that stamps the zip entries with the time of day."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, encode_npy(np.asarray(arrays[name])))
    return out.getvalue()


def decode_npz(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.removesuffix(".npy"): decode_npy(archive.read(name)) for name in archive.namelist()}


def encode_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def decode_json(data: bytes) -> Any:
    return json.loads(data)


class FieldCodec(NamedTuple):
    encode: str
    """"module:function", as the next two."""
    decode: tuple[str, ...]
    packages: tuple[str, ...] = ()
    """Whose versions the bytes or the numbers depend on; of frames, see frames.PACKAGES."""


FIELD_CODECS_BY_EXTENSION = {
    "json": FieldCodec("storage.codecs:encode_json", ("storage.codecs:decode_json",)),
    "npz": FieldCodec("storage.codecs:encode_npz", ("storage.codecs:decode_npz",)),
    "jpgs": FieldCodec(
        "storage.frame_codec:encode_frames",
        ("storage.frame_codec:decode_frames", "storage.frame_codec:decode_image"),
    ),
    "flac": FieldCodec("storage.codecs:encode_flac", ("storage.codecs:decode_flac",), ("soundfile",)),
    "npy": FieldCodec("storage.codecs:encode_npy", ("storage.codecs:decode_npy",)),
}
"""By extension."""


def encode_member(extension: str, value: object) -> Any:
    """A value as the bytes of its member; a video (mp4) is stored as it is."""
    return value if extension == "mp4" else _function(FIELD_CODECS_BY_EXTENSION[extension].encode)(value)


def decode_member(extension: str, data: bytes) -> Any:
    """The value of a member's bytes."""
    return _function(FIELD_CODECS_BY_EXTENSION[extension].decode[0])(data)


@cache
def _function(entry: str) -> Callable[[Any], Any]:
    """By the text that stands in keys, so that what is called is what they hold."""
    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)
