"""Clips to batches: what a step sees is a pure function of (seed, step), whoever computes it and after any
restart.

Sample i of a phase: identity first (each pass over the identities in a fresh random order), then one of its
clips, then whatever the task reads of it (`Task.sample`). Only the frames asked for are read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from models.errors import InvalidSettings
from models.task import CrossReenactmentTask, Sample, Task
from pipelines.dataset.clips import ClipFamily, Clips, StoredClip
from pipelines.errors import UserError

ORDER_STREAM, SAMPLE_STREAM, CROSS_STREAM = 0, 1, 2  # what a random stream is for
MAX_SAMPLING_ATTEMPTS = 100


class SplitClips(Clips):
    """Clips of one split, or other rows. `identities`: the keys of each identity, both sorted; a row without
    an identity is one of its own."""

    def __init__(
        self, clips: ClipFamily, fields: Mapping[str, ClipFamily], identities: tuple[tuple[str, ...], ...]
    ) -> None:
        super().__init__(clips, fields)
        self.identities = identities

    def __reduce__(self) -> tuple[Any, ...]:
        return (SplitClips, (self.clips, self.fields, self.identities))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of all identities, in order. Kept: a bank has hundreds of thousands, asked for at each sample."""
        return tuple(key for keys in self.identities for key in keys)


@lru_cache(maxsize=8)
def _order(seed: int, count: int, turn: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER_STREAM, turn]).permutation(count)


class SampleTable:
    """models.task.Table for one sample: it knows whose turn it is, and remembers what was read."""

    def __init__(self, corpus: SplitClips, seed: int, index: int, attempt: int) -> None:
        self.corpus, self.seed, self.index, self.attempt = corpus, seed, index, attempt
        self.read: list[str] = []

    @property
    def keys(self) -> Sequence[str]:
        return self.corpus.keys

    def pick_clip(self, rng: np.random.Generator) -> StoredClip:
        count = len(self.corpus.identities)
        turn, place = divmod(self.index, count)
        identity = _order(self.seed, count, turn)[(place + self.attempt) % count]
        keys = self.corpus.identities[int(identity)]
        return self[keys[int(rng.integers(len(keys)))]]

    def __getitem__(self, key: str) -> StoredClip:
        self.read.append(key)
        return StoredClip(self.corpus, key)


def make_sample(
    task: Task, tables: Mapping[str, SplitClips], seed: int, index: int, training: bool
) -> tuple[str, Sample]:
    """Sample number `index` -> the keys that it was read from, and its arrays."""
    failed: list[str] = []
    for attempt in range(MAX_SAMPLING_ATTEMPTS):
        rng = np.random.default_rng([seed, SAMPLE_STREAM, index, attempt])
        turns = {name: SampleTable(corpus, seed, index, attempt) for name, corpus in tables.items()}
        sample = task.sample(rng, turns, training)
        keys = [key for table in turns.values() for key in table.read]
        name = "+".join(keys) or f"sample {index}"
        if sample is not None:
            return name, sample
        failed.append(name)
    raise UserError(
        f"no usable frames after {MAX_SAMPLING_ATTEMPTS} attempts, the last in {failed[-3:]}; "
        "see their rejects"
    )


def make_cross_sample(
    task: CrossReenactmentTask, corpus: SplitClips, seed: int, index: int
) -> tuple[str, Sample] | None:
    """Pair number `index` of two people -> the keys of the source's and the driving clip, and its arrays. A
    pure function of seed and corpus. None where no pair of the next MAX_SAMPLING_ATTEMPTS will do. The corpus
    has two identities or more."""
    for attempt in range(MAX_SAMPLING_ATTEMPTS):
        rng = np.random.default_rng([seed, CROSS_STREAM, index, attempt])
        people = cross_pair_identities(seed, len(corpus.identities), index + attempt)
        source, driving = (
            StoredClip(corpus, keys[int(rng.integers(len(keys)))])
            for keys in (corpus.identities[person] for person in people)
        )
        if (sample := task.sample_cross(rng, source, driving)) is not None:
            return f"{source.key}+{driving.key}", sample
    return None


def cross_pair_identities(seed: int, count: int, number: int) -> tuple[int, int]:
    """Source and driving identity, two of `count`, of pair `number`: all are the source once, in a random
    order that each drives the one before; then once more, driven by the next but one, and so on. The first
    count * (count - 1) pairs differ.
    """
    turn, place = divmod(number, count)
    order = _order(seed, count, 0)
    return int(order[place]), int(order[(place + 1 + turn % (count - 1)) % count])


@dataclass(frozen=True, slots=True)
class SampleChunk:
    """The samples of one forward pass."""

    keys: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    """First dimension: samples."""


def stack_samples(samples: Sequence[tuple[str, Sample]]) -> SampleChunk:
    first = samples[0][1]
    arrays = {name: np.stack([sample[name] for _, sample in samples]) for name in first}
    return SampleChunk(tuple(key for key, _ in samples), arrays)


def chunk_sample_indices(step: int, batch: int, chunk: int, rank: int, world: int) -> list[range]:
    """Sample numbers of each forward pass of this worker at a step (steps count from 1)."""
    first = (step - 1) * batch
    starts = range(first, first + batch, chunk)
    if len(starts) % world:
        raise InvalidSettings(
            f"a batch of {batch} in chunks of {chunk} cannot be shared by {world} workers; "
            f"set runtime.train_workers to a divisor of {len(starts)}, or the phase's chunk to a smaller size"
        )
    return [range(start, start + chunk) for start in starts[rank::world]]


def prefetch_chunks(
    make: Callable[[int], SampleChunk], indices: Iterator[int], threads: int, ahead: int
) -> Generator[SampleChunk]:
    """make(i) for each i in order, computed by `threads` threads up to `ahead` items early."""
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        queue: list[Future[SampleChunk]] = []
        try:
            for i in indices:
                queue.append(pool.submit(make, i))
                if len(queue) > ahead:
                    yield queue.pop(0).result()
            while queue:
                yield queue.pop(0).result()
        finally:
            for future in queue:
                future.cancel()


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """Which samples one worker serves: those of its chunks."""

    batch: int
    chunk: int
    rank: int = 0
    world: int = 1

    @property
    def chunk_count(self) -> int:
        """Chunks of this worker in a step."""
        return self.batch // self.chunk // self.world

    def global_chunk_index(self, i: int) -> int:
        """Of its i-th chunk of a step, among those of all workers."""
        return self.rank + i * self.world


def iterate_sample_chunks(
    task: Task,
    tables: Mapping[str, SplitClips],
    seed: int,
    steps: range,
    share: WorkerShare,
    readers: int,
    ahead: int,
) -> Generator[SampleChunk]:
    """Every chunk of this worker for these steps, in order: `share.count` of them a step.

    readers: threads. ahead: chunks that are made ahead of the one asked for.
    """
    offsets = [
        group.start for group in chunk_sample_indices(1, share.batch, share.chunk, share.rank, share.world)
    ]

    def make(start: int) -> SampleChunk:
        numbers = range(start, start + share.chunk)
        return stack_samples([make_sample(task, tables, seed, i, training=True) for i in numbers])

    starts = ((step - 1) * share.batch + offset for step in steps for offset in offsets)
    return prefetch_chunks(make, starts, readers, ahead)
