"""Clips to batches: what a step sees is a pure function of (seed, step), whoever computes it and after any
restart.

Sample i of a phase: identity first (each pass over the identities in a fresh random order), then one of its
clips, then whatever the task draws from it. Only the frames asked for are read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from models.api import Sample, Task
from models.errors import InvalidSettings
from pipelines.dataset.clips import Clips, Family, StoredClip
from pipelines.errors import UserError

ORDER, SAMPLE = 0, 1  # what a random stream is for
ATTEMPTS = 100


class Corpus(Clips):
    """Clips of one split. `identities`: the clip keys of each identity, both sorted."""

    def __init__(
        self, clips: Family, fields: Mapping[str, Family], identities: tuple[tuple[str, ...], ...]
    ) -> None:
        super().__init__(clips, fields)
        self.identities = identities

    def __reduce__(self) -> tuple[Any, ...]:
        return (Corpus, (self.clips, self.fields, self.identities))


@lru_cache(maxsize=8)
def _order(seed: int, count: int, turn: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER, turn]).permutation(count)


def sample_clip(task: Task, corpus: Corpus, seed: int, index: int, training: bool) -> tuple[str, Sample]:
    """Sample number `index` -> the key of its clip, and its arrays."""
    count = len(corpus.identities)
    turn, place = divmod(index, count)
    attempted = []
    for attempt in range(ATTEMPTS):
        keys = corpus.identities[int(_order(seed, count, turn)[(place + attempt) % count])]
        rng = np.random.default_rng([seed, SAMPLE, index, attempt])
        clip = StoredClip(corpus, keys[int(rng.integers(len(keys)))])
        sample = task.draw(rng, clip, training)
        if sample is not None:
            return clip.key, sample
        attempted.append(clip.key)
    raise UserError(
        f"no usable frames after {ATTEMPTS} tries, the last in {attempted[-3:]}; look at their rejects"
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """The samples of one forward pass."""

    keys: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    """First dimension: samples."""


def gather(samples: Sequence[tuple[str, Sample]]) -> Chunk:
    first = samples[0][1]
    arrays = {name: np.stack([sample[name] for _, sample in samples]) for name in first}
    return Chunk(tuple(key for key, _ in samples), arrays)


def chunk_indices(step: int, batch: int, chunk: int, rank: int, world: int) -> list[range]:
    """Sample numbers of each forward pass of this worker at a step (steps count from 1)."""
    first = (step - 1) * batch
    starts = range(first, first + batch, chunk)
    if len(starts) % world:
        raise InvalidSettings(
            f"a batch of {batch} in chunks of {chunk} cannot be shared by {world} workers; "
            f"set runtime.train_workers to a divisor of {len(starts)}, or the phase's chunk to a smaller size"
        )
    return [range(start, start + chunk) for start in starts[rank::world]]


def prefetch(
    make: Callable[[int], Chunk], indices: Iterator[int], threads: int, ahead: int
) -> Generator[Chunk]:
    """make(i) for each i in order, computed by `threads` threads up to `ahead` items early."""
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        queue: list[Future[Chunk]] = []
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


def training_chunks(
    task: Task,
    corpus: Corpus,
    seed: int,
    steps: range,
    batch: int,
    chunk: int,
    rank: int,
    world: int,
    threads: int,
) -> Generator[Chunk]:
    """Every chunk of this worker for these steps, in order: batch / chunk / world of them a step."""
    offsets = [group.start for group in chunk_indices(1, batch, chunk, rank, world)]

    def make(start: int) -> Chunk:
        return gather(
            [sample_clip(task, corpus, seed, i, training=True) for i in range(start, start + chunk)]
        )

    starts = ((step - 1) * batch + offset for step in steps for offset in offsets)
    return prefetch(make, starts, threads, ahead=2 * threads)
