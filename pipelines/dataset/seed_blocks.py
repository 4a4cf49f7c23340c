"""The table of blocks of seeds: the units of nodes that compute from random numbers (models.spec.SeedTable).

Artifact of a node of stage `seeds`: `seeds.parquet`, a `SeedBlock` a row. Each block is a pack of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypedDict

from pipelines.dataset.recording_table import arrow_table
from pipelines.preprocess.recordings import hash_fraction

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext

SEEDS_STAGE = "seeds"
SEED_BLOCK_COLUMNS = ("id", "bucket", "split", "identity", "first", "count")
TEST_SEED_BLOCK_FRACTION = 0.1
"""Share of the blocks that are held out."""


class SeedBlock(TypedDict):
    id: str
    bucket: int
    split: str
    """train or test"""
    identity: str
    """Empty: a seed has none."""
    first: int
    """The first seed of the block."""
    count: int
    """Seeds in it."""


class SeedBlockSettings(Protocol):
    """What the node is configured with."""

    @property
    def blocks(self) -> int: ...
    @property
    def block_size(self) -> int: ...


def list_seed_blocks(ctx: NodeContext) -> None:
    """The whole node."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    settings: SeedBlockSettings = ctx.config
    rows = make_seed_blocks(settings.blocks, settings.block_size)
    kinds = {"bucket": pa.int32(), "first": pa.int64(), "count": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in SEED_BLOCK_COLUMNS])
    pq.write_table(arrow_table(rows, schema), ctx.out / f"{SEEDS_STAGE}.parquet", compression="zstd")
    held_out = sum(row["split"] == "test" for row in rows)
    seeds = settings.blocks * settings.block_size
    ctx.report_progress(
        len(rows), len(rows), f"{seeds:,} seeds in {len(rows):,} blocks, {held_out:,} held out"
    )


def make_seed_blocks(blocks: int, block_size: int) -> list[SeedBlock]:
    """Blocks of the seeds from 0 on. The split is a function of the block's number, so that it stays as
    blocks are added; but of two blocks or more, each split gets one at least."""
    ids = [f"block-{number:06d}" for number in range(blocks)]
    held_out = {id for id in ids if hash_fraction(id) < TEST_SEED_BLOCK_FRACTION}
    if len(ids) > 1:
        order = sorted(ids, key=hash_fraction)
        held_out = {*held_out, order[0]} - {order[-1]}
    return [
        SeedBlock(id=id, bucket=number, split="test" if id in held_out else "train", identity="",
                  first=number * block_size, count=block_size)
        for number, id in enumerate(ids)
    ]  # fmt: skip
