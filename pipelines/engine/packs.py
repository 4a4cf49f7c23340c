"""Building one pack of a keyed node, in whatever process the executor chose. The commit unit is the pack."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipelines.engine.fingerprint import resolve
from pipelines.engine.keys import View, digest
from pipelines.engine.node import Node, Rejected
from storage import locations, shards
from storage.families import ManifestRow, UnitRecord, pack_record_bytes, read_pack_record, read_sample
from storage.files import Store

MAX_CRASHES = 2  # a unit that took its worker down this often is bad data
RETRIES = (0.5, 2.0, 8.0)  # seconds before another try at what failed for want of network, disk or memory

Stage = Callable[[dict[str, list[shards.Sample]], View, Mapping[str, Any]], list[shards.Sample]]


class CodeError(RuntimeError):
    """A stage raised: a fault of the code, so the run stops and says where."""


@dataclass(frozen=True, slots=True)
class UnitJob:
    unit: str
    key: str
    row: Mapping[str, Mapping[str, Any]]
    """Table upstream -> this unit's row."""
    samples: Mapping[str, tuple[str, Sequence[str]]]
    """Keyed upstream -> (pack that holds this unit, fields to read)."""
    copy_from: str | None = None
    """A pack of this node that already holds the unit under its key."""


@dataclass(frozen=True, slots=True)
class PackJob:
    node: str
    key: str
    units: tuple[UnitJob, ...]
    run: str = ""
    """The run that asks: crashes are counted within one run, so that killing drivers blames no unit."""

    @property
    def computed(self) -> int:
        return sum(unit.copy_from is None for unit in self.units)


@dataclass(frozen=True, slots=True)
class PackResult:
    key: str
    units: tuple[UnitRecord, ...]
    copied: int


class Executor(Protocol):
    """Where packs are built: in this process (tests), or on Ray."""

    def build(self, node: Node, jobs: Sequence[PackJob], config: View, store: Store) -> Iterator[PackResult]:
        """Results in order of completion; raises what a stage raised."""
        ...

    def close(self) -> None: ...


class InProcess:
    """The executor of toy graphs and tests: one pack after the other, here, without nets."""

    def build(self, node: Node, jobs: Sequence[PackJob], config: View, store: Store) -> Iterator[PackResult]:
        run = resolve(node.run)
        for job in jobs:
            yield build_pack(job, run, config, {}, store)

    def close(self) -> None:
        """Nothing is held."""


def build_pack(job: PackJob, run: Stage, config: View, nets: Mapping[str, Any], store: Store) -> PackResult:
    """Copy what older packs hold, compute the rest, publish the shard, then its record."""
    units: list[UnitRecord] = []
    encoded: list[shards.EncodedSample] = []
    for unit in job.units:
        if unit.copy_from:
            record, samples = _copy(job, unit, store)
        else:
            record, samples = _compute(job, unit, run, config, nets, store)
        units.append(record)
        encoded += samples
    units = _publish(job, units, encoded, store)
    return PackResult(job.key, tuple(units), len(job.units) - job.computed)


def _publish(
    job: PackJob, units: list[UnitRecord], encoded: list[shards.EncodedSample], store: Store
) -> list[UnitRecord]:
    """Data first, record last: readers trust records only."""
    with store.scratch() as folder:
        records = {r.key: r for r in shards.write_shard(folder / "shard.tar", encoded)}
        store.put(folder / "shard.tar", locations.pack(job.node, job.key))
    placed = [replace(u, samples=tuple(records[s.key] for s in u.samples)) for u in units]
    store.write(locations.pack_record(job.node, job.key), pack_record_bytes(placed))
    return placed


def _copy(job: PackJob, unit: UnitJob, store: Store) -> tuple[UnitRecord, list[shards.EncodedSample]]:
    assert unit.copy_from is not None
    record = next(r for r in read_pack_record(store, job.node, unit.copy_from) if r.key == unit.key)
    path = locations.pack(job.node, unit.copy_from)
    encoded = [
        (sample.key, {m.field: store.read_range(path, m.offset, m.size) for m in sample.members})
        for sample in record.samples
    ]
    for (key, members), sample in zip(encoded, record.samples, strict=True):
        if shards.sample_digest(members) != sample.digest:
            told = f"{path}: sample {key} does not have the digest on record; `reenact verify`"
            raise OSError(errno.EIO, told)
    return record, encoded


def _compute(
    job: PackJob, unit: UnitJob, run: Stage, config: View, nets: Mapping[str, Any], store: Store
) -> tuple[UnitRecord, list[shards.EncodedSample]]:
    start = time.perf_counter()
    attempt = locations.attempt(job.node, unit.key)
    before = store.read(attempt).decode().split() if store.exists(attempt) else []
    crashes = before.count(job.run)
    try:
        if crashes >= MAX_CRASHES:
            raise Rejected("crashed", f"took its worker process down {crashes} times")
        # still there after a crash, gone after any answer
        store.write(attempt, "\n".join([job.run] * (crashes + 1)).encode())
        samples = _with_retries(lambda: run(_inputs(unit, store), config, nets), unit.unit)
        encoded = [shards.encode_sample(s) for s in samples]
    except Rejected as reject:
        encoded, status, code, reason = [], "rejected", reject.code, reject.sentence
    except OSError:
        raise
    except Exception as error:
        store.delete(attempt)
        raise CodeError(f"{job.node}: unit {unit.unit}: {type(error).__name__}: {error}") from error
    else:
        status, code, reason = "ok", "", ""
    store.delete(attempt)
    records = tuple(shards.SampleRecord(k, shards.sample_digest(members), (), ()) for k, members in encoded)
    content = digest("content", [[r.key, r.digest] for r in records]) if status == "ok" else ""
    record = UnitRecord(
        unit=unit.unit, key=unit.key, status=status, code=code, reason=reason, digest=content,
        seconds=time.perf_counter() - start, samples=records,
    )  # fmt: skip
    return record, encoded


def _inputs(unit: UnitJob, store: Store) -> dict[str, list[shards.Sample]]:
    """What the stage sees: a row of each table, the declared fields of each sample."""
    read: dict[str, list[shards.Sample]] = {name: [dict(row)] for name, row in unit.row.items()}
    for node, (pack, fields) in unit.samples.items():
        record = next(r for r in read_pack_record(store, node, pack) if r.unit == unit.unit)
        read[node] = [read_sample(store, node, pack, s, fields) for s in record.samples]
    return read


def _with_retries(call: Callable[[], list[shards.Sample]], unit: str) -> list[shards.Sample]:
    for pause in (*RETRIES, None):
        try:
            return call()
        except (OSError, MemoryError) as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES)
            if pause is None or full:
                raise OSError(getattr(error, "errno", None) or errno.EIO, f"unit {unit}: {error}") from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def seal(rows: Iterable[ManifestRow]) -> str:
    """Content digest of a keyed artifact: its ok units and what is in them, nothing else."""
    return digest("family", sorted([row.unit, row.digest] for row in rows if row.status == "ok"))
