"""Shards written in one call."""

from collections.abc import Iterable
from pathlib import Path

from storage.shards import EncodedSample, SampleRecord, ShardWriter


def write_shard(path: Path, samples: Iterable[EncodedSample]) -> list[SampleRecord]:
    """In the order given; returns their records."""
    with ShardWriter(path) as shard:
        return [shard.add(sample) for sample in samples]
