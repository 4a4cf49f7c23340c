"""Building one pack of a keyed node, in whatever process the executor chose. The commit unit is the pack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from pipelines.engine.attempts import (
    MachineLiveness,
    SingleProcessMachines,
    list_unfinished_attempt_machines,
    record_attempt,
)
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.engine.keys import hash_json
from pipelines.engine.node import Node
from pipelines.errors import Rejected, error_meaning, prefix_error
from storage import leases, locations, shards
from storage.errors import DamagedFile
from storage.families import (
    Artifact,
    Frames,
    ManifestRow,
    UnitRecord,
    encode_pack_record,
    manifest_rows,
    read_encoded_sample,
    read_pack_manifest,
    read_pack_record,
    read_sample,
    read_stored_frames,
)
from storage.files import Store

MAX_CACHED_PACK_RECORDS = 16
"""Records of packs that are kept while one pack is built: of a large corpus each takes some MB."""
MAX_CRASHES = 2  # a unit that took its worker down this often is bad data
RETRY_DELAYS = (0.5, 2.0, 8.0)
"""Seconds before another attempt at what failed for want of network, memory or time."""

StageFunction = Callable[..., Iterable[shards.Sample]]
"""(inputs, config, nets, runtime, **arguments) -> samples (Node.run)."""


class StageCall(Struct, frozen=True):
    """What a worker needs to run a keyed node; pickled to it."""

    node: Node
    config: Any
    """The part of the settings that the function is given."""
    runtime: Any
    used: Mapping[str, Mapping[str, tuple[Artifact, str]]] = field(default_factory=dict)
    """Name of a use -> role -> the artifact, and which of its files."""

    def bind_nets(self, nets: Mapping[str, Any]) -> StageFunction:
        """The function of the inputs alone. nets: those of the node, and what it uses."""
        run = resolve_entry_point(self.node.run)
        return lambda inputs: run(inputs, self.config, nets, self.runtime, **self.node.arguments)

    def load_checkpoint_nets(self) -> dict[str, Any]:
        """Each use by its name, as its loader makes it of the local files."""
        return {
            name: resolve_entry_point(use.loader)(
                {role: artifact.path(file) for role, (artifact, file) in self.used[name].items()}
            )
            for name, use in self.node.uses.items()
        }


class UnitInputPacks(Struct, frozen=True):
    """The units of one keyed input that a unit reads."""

    stage: str
    packs: tuple[tuple[str, str], ...]
    """(unit, pack that holds it)"""
    fields: tuple[str, ...]


class UnitJob(Struct, frozen=True):
    unit: str
    key: str
    rows: Mapping[str, Mapping[str, Any]]
    """Role of a table -> this unit's row."""
    samples: Mapping[str, UnitInputPacks]
    """Role of a keyed input -> what is read there."""
    copy_from: str | None = None
    """A pack of this node that already holds the unit under its key."""


class PackJob(Struct, frozen=True):
    node: str
    stage: str
    key: str
    units: tuple[UnitJob, ...]
    run: str = ""
    """The run that asks: crashes are counted within one run, so that killing drivers blames no unit."""
    new: bool = False
    """No record stood under this key when it was planned: if one does now, another driver built the pack."""
    restores: bool = False
    """The record stands, its shard was dropped on purpose."""

    @property
    def computed_count(self) -> int:
        return sum(unit.copy_from is None for unit in self.units)


class PackResult(Struct, frozen=True):
    key: str
    rows: tuple[ManifestRow, ...]
    """Not the records: their offsets would fill the driver's memory."""
    copied: int
    failure: str = ""
    """Network, memory or time failed: nothing was published, the next run tries again."""
    held: bool = False
    """Another driver is building it: nothing was done here."""


class PackExecutor(Protocol):
    """Where packs are built: Ray, or a test's own process."""

    def build_packs(self, call: StageCall, jobs: Sequence[PackJob], store: Store) -> Iterator[PackResult]:
        """Results in order of completion; raises what a stage raised."""
        ...


def claim_and_build_pack(
    job: PackJob, run: StageFunction, store: Store, machines: MachineLiveness | None = None
) -> PackResult:
    """Build a pack, unless another driver is building it or has built it since it was planned. run: of the
    inputs alone (`StageCall.bind_nets`)."""
    with leases.try_acquire_lease(store, job.stage, job.key, run=job.run) as mine:
        if not mine:
            return PackResult(job.key, (), 0, held=True)
        return find_published_pack(job, store) or build_pack(job, run, store, machines)


def find_published_pack(job: PackJob, store: Store) -> PackResult | None:
    """What another driver published under this key since it was planned, if it did."""
    if not job.new or not store.exists(locations.pack_record_path(job.stage, job.key)):
        return None
    rows = read_pack_manifest(store, job.stage, job.key)
    return PackResult(job.key, tuple(rows), len(rows))


def build_pack(
    job: PackJob, run: StageFunction, store: Store, machines: MachineLiveness | None = None
) -> PackResult:
    """Copy what older packs hold, compute the rest, publish the shard, then its record: a record that stands
    stays where the shard holds the same. What it raises names the node, and the unit if it was one."""
    try:
        units, size = _publish(job, run, store, machines or SingleProcessMachines())
    except Exception as error:
        if error_meaning(error) != "transient":
            raise prefix_error(error, job.node) from error
        return PackResult(job.key, (), 0, str(error) or type(error).__name__)
    rows = tuple(manifest_rows(units, job.key, size))
    return PackResult(job.key, rows, len(job.units) - job.computed_count)


def _publish(
    job: PackJob, run: StageFunction, store: Store, machines: MachineLiveness
) -> tuple[list[UnitRecord], int]:
    """The units' records, and the bytes that they take."""
    units: list[UnitRecord] = []
    inputs = UnitInputReader(store)
    with store.scratch_folder() as folder:
        with shards.ShardWriter(folder / "shard.tar") as shard:
            for unit in job.units:
                copied = _copy(job, unit, shard, store) if unit.copy_from else None
                units.append(copied or _compute(job, unit, shard, run, inputs, machines))
        # Data first, record last: readers trust records only.
        store.put(folder / "shard.tar", locations.pack_path(job.stage, job.key))
    path = locations.pack_record_path(job.stage, job.key)
    if job.restores and (before := _record_of(job, units, store)) is not None:
        return before, store.file_infos([path])[0].size or 0
    record = encode_pack_record(units)
    store.write(path, record)
    return units, len(record)


def _record_of(job: PackJob, units: Sequence[UnitRecord], store: Store) -> list[UnitRecord] | None:
    """The record that stands, if it tells of these units but for the time that they took."""
    with suppress(DamagedFile, FileNotFoundError):
        before = read_pack_record(store, job.stage, job.key)
        if [replace(unit, seconds=0.0) for unit in before] == [replace(u, seconds=0.0) for u in units]:
            return before
    return None


def _copy(job: PackJob, unit: UnitJob, shard: shards.ShardWriter, store: Store) -> UnitRecord | None:
    """A unit as an older pack holds it; None where it is damaged there, and has to be computed."""
    assert unit.copy_from is not None
    mark, samples = shard.position(), []
    try:
        record = next(r for r in read_pack_record(store, job.stage, unit.copy_from) if r.key == unit.key)
        for sample in record.samples:
            samples.append(shard.add(read_encoded_sample(store, job.stage, unit.copy_from, sample)))
            if samples[-1].digest != sample.digest:
                raise DamagedFile(
                    f"{locations.pack_path(job.stage, unit.copy_from)}: {sample.key} has another digest"
                )
    except DamagedFile:
        shard.truncate_to(mark)
        return None
    return replace(record, samples=tuple(samples))


def _compute(
    job: PackJob,
    unit: UnitJob,
    shard: shards.ShardWriter,
    run: StageFunction,
    inputs: UnitInputReader,
    machines: MachineLiveness,
) -> UnitRecord:
    start, store = time.perf_counter(), inputs.store
    attempt = locations.attempt_folder(job.stage, unit.key, job.run)
    before = list_unfinished_attempt_machines(store, attempt)
    crashes = sum(machines.is_alive(machine) for machine in before)
    mark, records = shard.position(), []
    status, code, reason = "ok", "", ""

    def work() -> list[shards.SampleRecord]:
        shard.truncate_to(mark)  # of an attempt that failed half-way
        done = []
        for sample in run(inputs.read(unit)):
            done.append(shard.add(shards.encode_sample(sample)))
            del sample  # or it stays while the next one is made: a minute of clip takes 30 MB at 256 px
        return done

    try:
        if crashes >= MAX_CRASHES:
            raise Rejected("crashed", f"took its worker process down {crashes} times")
        # still there after a crash, gone after any answer
        record_attempt(store, attempt, [*before, machines.here])
        records = _with_retries(work)
    except Rejected as reject:
        shard.truncate_to(mark)
        status, code, reason = "rejected", reject.code, reject.sentence
    except Exception as error:
        if error_meaning(error) != "store":  # which may not take this either, and must not hide why
            store.delete(attempt)
        raise prefix_error(error, f"unit {unit.unit}") from error
    store.delete(attempt)
    content = hash_json("content", [[r.key, r.digest] for r in records]) if status == "ok" else ""
    return UnitRecord(
        unit=unit.unit, key=unit.key, status=status, code=code, reason=reason, digest=content,
        seconds=time.perf_counter() - start, samples=tuple(records),
    )  # fmt: skip


class UnitInputReader:
    """Reads what units are computed from. Records of packs are kept a while: units that are built together
    often read the same."""

    def __init__(self, store: Store):
        self.store = store
        self._record = lru_cache(MAX_CACHED_PACK_RECORDS)(partial(read_pack_record, store))

    def read(self, unit: UnitJob) -> dict[str, Sequence[shards.Sample]]:
        """What the stage sees: a row of each table, the declared fields of each sample."""
        read: dict[str, Sequence[shards.Sample]] = {role: [dict(row)] for role, row in unit.rows.items()}
        return read | {role: self._samples(source) for role, source in unit.samples.items()}

    def _samples(self, source: UnitInputPacks) -> LazySamples:
        records = [
            (pack, sample)
            for unit, pack in source.packs
            for record in self._record(source.stage, pack)
            if record.unit == unit
            for sample in record.samples
        ]
        return LazySamples(self.store, source.stage, records, source.fields)


class LazySamples(Sequence[shards.Sample]):
    """A unit's samples of one input: each is read and decoded when it is asked for and not kept, so that a
    long recording takes no more memory than a short one. Iteration reads one ahead of the stage.
    """

    def __init__(
        self,
        store: Store,
        stage: str,
        records: Sequence[tuple[str, shards.SampleRecord]],
        fields: Sequence[str],
    ):
        """records: (pack that holds it, sample)."""
        self._store, self._stage, self._records, self._fields = store, stage, records, fields

    @property
    def keys(self) -> list[str]:
        """Of the samples, in their order; nothing is decoded."""
        return [record.key for _, record in self._records]

    # By key, as storage.families.Family: only what is asked for is read.
    def fields(self, key: str) -> list[str]:
        """Of those that the stage reads, the ones that the sample has."""
        has = {member.field for member in self._record(key)[1].members}
        return [field for field in self._fields if field in has]

    def frame_count(self, key: str) -> int:
        return self._record(key)[1].frames

    def frames(self, key: str, indices: Sequence[int]) -> Frames:
        pack, record = self._record(key)
        return read_stored_frames(self._store, self._stage, pack, record, indices)

    def read(self, key: str, fields: Sequence[str]) -> shards.Sample:
        pack, record = self._record(key)
        return read_sample(self._store, self._stage, pack, record, fields)

    def _record(self, key: str) -> tuple[str, shards.SampleRecord]:
        return next(at for at in self._records if at[1].key == key)

    def _read(self, at: tuple[str, shards.SampleRecord]) -> shards.Sample:
        pack, record = at
        return read_sample(self._store, self._stage, pack, record, self._fields)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._read(record) for record in self._records[index]]
        return self._read(self._records[index])

    def __iter__(self) -> Iterator[shards.Sample]:
        if len(self) < 2:
            yield from (self._read(record) for record in self._records)
            return
        with ThreadPoolExecutor(1) as reader:  # decoding goes on while a net is busy
            ahead = reader.submit(self._read, self._records[0])
            for record in self._records[1:]:
                sample, ahead = ahead.result(), reader.submit(self._read, record)
                yield sample
            yield ahead.result()


def _with_retries(call: Callable[[], list[shards.SampleRecord]]) -> list[shards.SampleRecord]:
    for pause in RETRY_DELAYS:
        try:
            return call()
        except Exception as error:
            if error_meaning(error) != "transient" or not getattr(error, "soon", True):
                raise
        time.sleep(pause)
    return call()


def ok_units_digest(rows: Iterable[ManifestRow]) -> str:
    """Of a keyed artifact: its ok units and what is in them, nothing else."""
    return hash_json("family", sorted([row.unit, row.digest] for row in rows if row.status == "ok"))
