"""Reading what nodes published: pack records, manifests, families of shards, files of whole nodes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field, to_builtins
from msgspec.structs import asdict

from storage import frame_codec, locations, shards
from storage.errors import DamagedFile, StoreUnreachable
from storage.files import Store, sha256_file
from storage.shards import MemberLocation, Sample, SampleRecord

T = TypeVar("T")
Frames = np.ndarray
"""(n,H,W,3) uint8 RGB"""


class UnitRecord(Struct, frozen=True, kw_only=True):
    """What became of one unit of a pack. `seconds` is the only field that may differ between two builds."""

    unit: str
    key: str
    status: str
    """ok | rejected"""
    code: str = ""
    reason: str = ""
    digest: str = ""
    seconds: float = 0.0
    samples: tuple[SampleRecord, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(m.size for s in self.samples for m in s.members)

    @property
    def frames(self) -> int:
        return sum(s.frames for s in self.samples)


_MEMBER = pa.struct([
    ("field", pa.string()), ("offset", pa.int64()), ("size", pa.int64()),
    ("extension", pa.string()), ("crc", pa.uint32()),
])  # fmt: skip
_SAMPLE = pa.struct([
    ("key", pa.string()), ("digest", pa.string()), ("members", pa.list_(_MEMBER)),
    ("frame_offsets", pa.list_(pa.int64())), ("frame_crcs", pa.list_(pa.uint32())),
])  # fmt: skip
PACK_SCHEMA = pa.schema([
    ("unit", pa.string()), ("key", pa.string()), ("status", pa.string()), ("code", pa.string()),
    ("reason", pa.string()), ("digest", pa.string()), ("seconds", pa.float64()),
    ("samples", pa.list_(_SAMPLE)),
])  # fmt: skip
MANIFEST_SCHEMA = pa.schema([
    ("unit", pa.string()), ("key", pa.string()), ("pack", pa.string()), ("status", pa.string()),
    ("code", pa.string()), ("reason", pa.string()), ("digest", pa.string()), ("bytes", pa.int64()),
    ("clips", pa.int64()), ("frames", pa.int64()), ("seconds", pa.float64()),
    ("shard_bytes", pa.int64()), ("record_bytes", pa.int64()),
])  # fmt: skip


def _parquet(rows: list[dict[str, object]], schema: pa.Schema) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")
    return out.getvalue()


def decode_parquet(data: bytes) -> pa.Table:
    """Not pq.read_table: that imports pyarrow.dataset and with it pandas, a third of a plan's time.

    On the calling thread alone, from Arrow's own reader: a thread of its pools that is alive while the
    interpreter ends can abort the process (apache/arrow#34314); a no-op run did, once in 600.
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def encode_pack_record(units: Iterable[UnitRecord]) -> bytes:
    return _parquet([to_builtins(unit) for unit in units], PACK_SCHEMA)


def read_pack_record(store: Store, node: str, key: str) -> list[UnitRecord]:
    return _read(store, locations.pack_record_path(node, key), parse_pack_record)


def _read(store: Store, path: str, parse: Callable[[bytes], T]) -> T:
    """DamagedFile, which names the file, where it cannot be parsed."""
    data = store.read(path)
    try:
        return parse(data)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise store.damage_error(f"{path} cannot be read ({first})") from error


def parse_pack_record(data: bytes) -> list[UnitRecord]:
    return [
        UnitRecord(**{**row, "samples": tuple(_sample_record(s) for s in row["samples"])})
        for row in decode_parquet(data).to_pylist()
    ]


def _sample_record(row: Mapping[str, Any]) -> SampleRecord:
    members = tuple(
        MemberLocation(m["field"], m["offset"], m["size"], m.get("extension") or "", m.get("crc"))
        for m in row["members"]
    )
    crcs = tuple(row.get("frame_crcs") or ())
    return SampleRecord(row["key"], row["digest"], members, tuple(row["frame_offsets"]), crcs)


class ManifestRow(Struct, frozen=True):
    unit: str
    key: str
    pack: str
    status: str
    code: str
    reason: str
    digest: str
    bytes: int
    clips: int
    frames: int
    seconds: float
    shard_bytes: int | None = None
    """of the pack's shard; None in manifests made before it was kept"""
    record_bytes: int | None = None
    """of the pack's record, likewise"""

    @staticmethod
    def of(
        record: UnitRecord, pack: str, shard_bytes: int | None = None, record_bytes: int | None = None
    ) -> ManifestRow:
        return ManifestRow(
            record.unit, record.key, pack, record.status, record.code, record.reason, record.digest,
            record.bytes, len(record.samples), record.frames, record.seconds, shard_bytes, record_bytes,
        )  # fmt: skip


def manifest_rows(units: Sequence[UnitRecord], pack: str, record_bytes: int) -> list[ManifestRow]:
    """A pack's units as its manifest lists them."""
    shard_bytes = shards.compute_shard_bytes(sample for unit in units for sample in unit.samples)
    return [ManifestRow.of(unit, pack, shard_bytes, record_bytes) for unit in units]


def read_pack_manifest(store: Store, node: str, pack: str) -> list[ManifestRow]:
    """A pack's units by its own record."""
    path = locations.pack_record_path(node, pack)
    return _read(store, path, lambda data: manifest_rows(parse_pack_record(data), pack, len(data)))


def encode_manifest(rows: Iterable[ManifestRow]) -> bytes:
    return _parquet([asdict(row) for row in sorted(rows, key=lambda r: r.unit)], MANIFEST_SCHEMA)


def read_node_manifest(store: Store, node: str, key: str) -> list[ManifestRow]:
    return _read(store, locations.manifest_path(node, key), _manifest_rows)


def _manifest_rows(data: bytes) -> list[ManifestRow]:
    """By column: half the time of a dict a row, which is much of a plan's."""
    table = decode_parquet(data)
    names = ManifestRow.__struct_fields__[: table.num_columns]  # sizes came later, at the end
    columns = [table.column(name).to_pylist() for name in names]
    return [ManifestRow(*row) for row in zip(*columns, strict=True)]


class _Place(Struct, frozen=True):
    unit: str
    pack: str
    sample: SampleRecord


class Family:
    """All shards of one keyed node, readable by sample key in any process (pickles as store + node + key)."""

    def __init__(self, store: Store, node: str, key: str, units: frozenset[str] | None = None):
        self.store, self.node, self.key, self.units = store, node, key, units

    def __reduce__(self):
        return (Family, (self.store, self.node, self.key, self.units))

    @cached_property
    def _places(self) -> dict[str, _Place]:
        rows = [row for row in read_node_manifest(self.store, self.node, self.key) if row.status == "ok"]
        if self.units is not None:
            rows = [row for row in rows if row.unit in self.units]
        wanted = {row.unit for row in rows}
        packs = sorted({row.pack for row in rows})
        with ThreadPoolExecutor(8) as pool:
            records = pool.map(lambda pack: read_pack_record(self.store, self.node, pack), packs)
        places = {
            sample.key: _Place(unit.unit, pack, sample)
            for pack, units in zip(packs, records, strict=True)
            for unit in units
            if unit.unit in wanted
            for sample in unit.samples
        }
        return dict(sorted(places.items()))

    @property
    def keys(self) -> list[str]:
        return list(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def _place(self, key: str) -> _Place:
        if key not in self._places:
            raise ValueError(
                f"{self.node}: no sample {key!r} among {len(self)}; it was rejected or never there"
            )
        return self._places[key]

    def frame_count(self, key: str) -> int:
        """Number of frames of a clip, from the index alone."""
        return self._place(key).sample.frames

    def fields(self, key: str) -> list[str]:
        """Those that a sample has, from the index alone."""
        return [member.field for member in self._place(key).sample.members]

    def recording_of(self, key: str) -> str:
        return self._place(key).unit

    def read(self, key: str, fields: Sequence[str] | None = None) -> Sample:
        """A sample's fields (all by default), decoded: one range read a field."""
        place = self._place(key)
        return read_sample(self.store, self.node, place.pack, place.sample, fields)

    def frames(self, key: str, indices: Sequence[int]) -> np.ndarray:
        """Some frames of a clip -> (n,H,W,3) uint8 RGB, no others read or decoded (`read_frames`)."""
        place = self._place(key)
        return read_stored_frames(self.store, self.node, place.pack, place.sample, indices)

    def shard_uris(self) -> list[str]:
        """The shards in order, for plain `webdataset`."""
        packs = sorted({place.pack for place in self._places.values()})
        return [self.store.uri_of(locations.pack_path(self.node, pack)) for pack in packs]


def read_sample(
    store: Store, node: str, pack: str, sample: SampleRecord, fields: Sequence[str] | None = None
) -> Sample:
    path = locations.pack_path(node, pack)
    wanted = [m.field for m in sample.members] if fields is None else fields
    members = [sample.member_location(field) for field in wanted]
    with open_shard(store, node, pack) as stream:
        stored = {m: stream.read_at(m.size, m.offset) for m in members if not shards.is_large_field(m.field)}
    read: dict[str, Any] = {"__key__": sample.key}
    for m in members:
        if m in stored:
            data = shards.check_bytes(stored[m], m.size, m.crc, store, f"{path}: {sample.key}.{m.field}")
            read[m.field] = shards.decode_field(m.field, data, m.extension)
        else:
            read[m.field] = shards.LazyMember(store, path, m.offset, m.size, m.crc)
    return read


@contextmanager
def open_shard(store: Store, node: str, pack: str) -> Iterator[Any]:
    """A stream of a shard that can seek. StoreUnreachable where another run has just dropped it: the next
    attempt to run makes it again."""
    path = locations.pack_path(node, pack)
    try:
        with store.open(path) as stream:
            yield stream
    except FileNotFoundError:
        if not store.exists(locations.drop_mark_path(node, pack)):
            raise
        raise StoreUnreachable(f"{path} was dropped by another run meanwhile; run again") from None


def read_stored_frames(
    store: Store, node: str, pack: str, sample: SampleRecord, indices: Sequence[int]
) -> np.ndarray:
    """Some frames of a sample -> (n,H,W,3) uint8 RGB: one decode each, and one range read for neighbours. Of
    H.264 the member is read as one."""
    path, offsets = locations.pack_path(node, pack), sample.frame_offsets
    for i in indices:
        if not 0 <= i < sample.frames:
            raise ValueError(f"{sample.key}: frame {i} asked for, the clip has {sample.frames}")
    member = sample.member_location("frames")
    if member.extension == "mp4":
        with open_shard(store, node, pack) as stream:
            data = stream.read_at(member.size, member.offset)
        data = shards.check_bytes(data, member.size, member.crc, store, f"{path}: {sample.key}.frames")
        return frame_codec.decode_frames("mp4", data, indices)
    crcs = sample.frame_crcs or (None,) * sample.frames
    images: dict[int, np.ndarray] = {}
    with open_shard(store, node, pack) as stream:
        for first, end in _runs(indices):
            data = stream.read_at(offsets[end] - offsets[first], offsets[first])
            for i in range(first, end):
                image = data[offsets[i] - offsets[first] : offsets[i + 1] - offsets[first]]
                size, part = offsets[i + 1] - offsets[i], f"{path}: frame {i} of {sample.key}"
                images[i] = frame_codec.decode_image(shards.check_bytes(image, size, crcs[i], store, part))
    return np.stack([images[i] for i in indices])


def _runs(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers that follow one another: the first, and one past the last."""
    ordered = sorted(set(indices))
    starts = [at for at, i in enumerate(ordered) if at == 0 or i != ordered[at - 1] + 1]
    for start, stop in pairwise([*starts, len(ordered)]):
        yield ordered[start], ordered[stop - 1] + 1


def read_encoded_sample(store: Store, node: str, pack: str, sample: SampleRecord) -> shards.EncodedSample:
    """A published sample as it lies there, for writing into another shard; nothing is decoded."""
    path = locations.pack_path(node, pack)
    members = {
        m.field: (
            m.extension or shards.FIELD_EXTENSIONS[m.field],
            shards.LazyMember(store, path, m.offset, m.size, m.crc),
        )
        for m in sample.members
    }
    return shards.EncodedSample(sample.key, members)


@lru_cache(maxsize=4096)
def _sha256_at(path: Path, _stamp: tuple[int, ...]) -> str:
    """Hashed once a process; `_stamp` is another when the file was written again."""
    return sha256_file(path)


class Artifact(Struct, frozen=True):
    """What a node published, as the nodes that read it see it."""

    store: Store
    node: str
    key: str
    digest: str
    """Of the content: two artifacts with equal digests are interchangeable, whatever code made them."""
    folder: str = ""
    """whole nodes: where the files are"""
    files: tuple[str, ...] = ()
    steps: int | None = None
    sums: Mapping[str, str] = field(default_factory=dict)
    """whole nodes: sha256 of each file, as its record says"""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Third-party weights that it, and what it was made from, was computed with: id -> sha256, as the keys of
    its node and of the nodes before it hold them"""

    def path(self, name: str) -> Path:
        """A whole node's file, on this machine. DamagedFile where its bytes are not those on record."""
        if name not in self.files:
            raise ValueError(f"{self.node} published no file {name!r}; it has {list(self.files)}")
        at, expected = f"{self.folder}/{name}", self.sums.get(name, "")
        path = self.store.fetch(at, expected)
        if expected and self.store.local:  # a copy of a remote file was hashed when it was made
            stat = path.stat()
            if _sha256_at(path, (stat.st_size, stat.st_mtime_ns, stat.st_ino)) != expected:
                raise DamagedFile(f"{at} differs from its sha256 on record; delete it and run again")
        return path

    def uri(self, name: str = "") -> str:
        return self.store.uri_of(f"{self.folder}/{name}" if name else self.folder)

    def open_family(self, units: Iterable[str] | None = None) -> Family:
        """All samples, or those of some units: then no other pack's record is read."""
        return Family(self.store, self.node, self.key, None if units is None else frozenset(units))

    def manifest(self) -> list[ManifestRow]:
        return read_node_manifest(self.store, self.node, self.key)
