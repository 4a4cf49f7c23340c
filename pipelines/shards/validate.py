"""The shard validator: what plain `webdataset` and our readers need, and what makes bytes repeatable."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipelines.media.container import check_first_frame
from storage import frame_codec, shards
from storage.errors import DamagedFile
from storage.families import parse_pack_record
from storage.files import Store

PER_CLIP_FIELDS = ("id_coeffs",)
"""Arrays that are one for the clip; all others have a row a frame."""
SAMPLES_PER_FRAME = 640
TAR_END_BYTES = 2 * tarfile.BLOCKSIZE
"""A tar ends with two blocks of zeros."""


@dataclass(slots=True)
class ShardValidationReport:
    path: Path
    faults: list[str] = field(default_factory=list)
    samples: int = 0
    indexed: bool = False


@dataclass(slots=True)
class _Sample:
    """A sample as the tar has it."""

    key: str
    members: list[shards.MemberLocation] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def validate_shard(path: Path) -> ShardValidationReport:
    """Every fault of a shard. Each sample is decoded and dropped again."""
    report = ShardValidationReport(path)
    report.faults += _check_end(path)
    found: list[shards.SampleRecord] = []
    seen: set[str] = set()
    try:
        for sample in _samples(path, report.faults):
            if sample.key in seen:
                report.faults.append(f"sample {sample.key}: its members are not together")
            seen.add(sample.key)
            report.faults += _lengths(sample)
            found.append(_record(path, sample))
    except (tarfile.TarError, EOFError) as error:
        report.faults.append(f"damaged after {len(found)} samples: {error}")
    report.samples = len(found)
    index = path.with_suffix(".parquet")
    report.indexed = index.is_file()
    if report.indexed:
        report.faults += _against_index(index, found)
    return report


def _check_end(path: Path) -> Iterator[str]:
    """What tarfile forgives: a file cut between members."""
    size = path.stat().st_size
    if size < TAR_END_BYTES or size % tarfile.BLOCKSIZE:
        yield f"truncated: {size:,} bytes are no whole number of tar blocks"
        return
    with path.open("rb") as stream:
        stream.seek(-TAR_END_BYTES, io.SEEK_END)
        if stream.read().strip(b"\0"):
            yield "truncated: no end-of-archive blocks"


def _samples(path: Path, faults: list[str]) -> Iterator[_Sample]:
    """Runs of members with one key, decoded."""
    sample: _Sample | None = None
    names: set[str] = set()
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            faults += _header_faults(info, names, size)
            names.add(info.name)
            key, _, rest = info.name.partition(".")
            name, _, extension = rest.partition(".")
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            sample.members.append(shards.MemberLocation(name, info.offset_data, info.size, extension))
            if name in shards.FIELD_EXTENSIONS and info.isreg() and info.offset_data + info.size <= size:
                faults += _decode_faults(sample, sample.members[-1], tar.extractfile(info))
    if sample is not None:
        yield sample


def _header_faults(info: tarfile.TarInfo, names: set[str], size: int) -> Iterator[str]:
    """Faults of a member's header."""
    parts = info.name.split(".")
    if info.name in names:
        yield f"{info.name}: twice"
    if not info.isreg():
        yield f"{info.name}: not a plain file"
    if info.mtime != 0:
        yield f"{info.name}: mtime {info.mtime:.0f}, so that the same data makes other bytes; expected 0"
    if info.offset_data + info.size > size:
        yield f"{info.name}: truncated, {size - info.offset_data:,} of {info.size:,} bytes are there"
    if len(parts) != 3:
        yield f"{info.name}: expected KEY.FIELD.EXTENSION"
        return
    key, name, extension = parts
    if not _is_key(key):
        yield f"{info.name}: key {key!r} has other characters than letters, digits, '_', '-' and '#'"
    if name not in shards.FIELD_EXTENSIONS:
        yield f"{info.name}: unknown field {name!r}"
    elif extension not in _extensions(name):
        yield f"{info.name}: a {extension!r} file, expected {' or '.join(_extensions(name))}"


def _is_key(key: str) -> bool:
    try:
        shards.check_sample_key(key)
    except ValueError:
        return False
    return True


def _extensions(name: str) -> tuple[str, ...]:
    expected = shards.FIELD_EXTENSIONS[name]
    return tuple(frame_codec.FRAMES_EXTENSION_BY_CODEC.values()) if expected == "jpgs" else (expected,)


def _decode_faults(sample: _Sample, member: shards.MemberLocation, stream: IO[bytes] | None) -> Iterator[str]:
    """Decode a member into its sample; a codec may fail on foreign bytes in any way."""
    assert stream is not None  # of a plain file
    try:
        if shards.is_large_field(member.field):
            check_first_frame(stream)
            return
        sample.values[member.field] = shards.decode_field(member.field, stream.read(), member.extension)
    except Exception as error:  # noqa: BLE001 - the fault is the answer
        text = str(error).splitlines()[0] if str(error) else ""
        yield f"{sample.key}.{member.field}: cannot be decoded: {type(error).__name__} {text}".rstrip()


def _lengths(sample: _Sample) -> Iterator[str]:
    """Rows of a sample's fields must be the same frames."""
    values = sample.values
    arrays = [
        name for name in values if hasattr(values[name], "ndim") and name not in (*PER_CLIP_FIELDS, "sound")
    ]
    counts = {name: len(values[name]) for name in arrays if values[name].ndim}
    if "clip" in values:
        counts["clip.frames"] = values["clip"].get("frames", 0)
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{name} {count}" for name, count in counts.items())
        yield f"{sample.key}: fields of different length: {lengths}"
    elif counts and "sound" in values:
        expected = next(iter(counts.values())) * SAMPLES_PER_FRAME
        if len(values["sound"]) != expected:
            yield f"{sample.key}: sound of {len(values['sound']):,} samples, expected {expected:,}"


# --- against the index --------------------------------------------------------------------------------------
def _record(path: Path, sample: _Sample) -> shards.SampleRecord:
    """What the index should say of a sample."""
    store = Store(str(path.parent))
    payloads = {
        m.field: (m.extension, shards.LazyMember(store, path.name, m.offset, m.size)) for m in sample.members
    }
    offsets: tuple[int, ...] = ()
    for member in sample.members:
        if member.field == "frames" and "frames" in sample.values:
            data = payloads["frames"][1].read()
            offsets = tuple(member.offset + o for o in frame_codec.frame_byte_offsets(member.extension, data))
    try:
        digest = shards.EncodedSample(sample.key, payloads).digest()
    except DamagedFile:  # truncated, which is reported already
        digest = ""
    return shards.SampleRecord(sample.key, digest, tuple(sample.members), offsets)


def _against_index(index: Path, found: list[shards.SampleRecord]) -> Iterator[str]:
    import pyarrow as pa

    try:
        units = parse_pack_record(index.read_bytes())
    except (pa.ArrowException, KeyError, TypeError) as error:
        yield f"index {index.name} cannot be read: {error}"
        return
    listed = {record.key: record for unit in units for record in unit.samples}
    there = {record.key: record for record in found}
    for key in sorted(listed.keys() - there.keys()):
        yield f"{key}: in the index, not in the shard"
    for key in sorted(there.keys() - listed.keys()):
        yield f"{key}: in the shard, not in the index"
    for key in sorted(there.keys() & listed.keys()):
        yield from _differing(there[key], listed[key])


def _differing(there: shards.SampleRecord, listed: shards.SampleRecord) -> Iterator[str]:
    places = {m.field: (m.offset, m.size) for m in there.members}
    for member in listed.members:
        if places.get(member.field) != (member.offset, member.size):
            found = "not in the shard" if member.field not in places else f"at byte {places[member.field][0]}"
            yield f"{there.key}.{member.field}: {found}, the index says {member.offset}"
    for name in sorted(places.keys() - {m.field for m in listed.members}):
        yield f"{there.key}.{name}: not in the index"
    if there.frame_offsets != listed.frame_offsets:
        yield f"{there.key}.frames: the index has other offsets of its images"
    if there.digest != listed.digest:
        yield f"{there.key}: its bytes do not have the digest of the index"
