"""The table of blocks of seeds."""

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pipelines.dataset.seed_blocks import SEED_BLOCK_COLUMNS, list_seed_blocks, make_seed_blocks


def test_blocks_share_out_the_seeds_from_zero_on():
    rows = make_seed_blocks(3, 100)
    assert [(row["first"], row["count"]) for row in rows] == [(0, 100), (100, 100), (200, 100)]
    assert len({row["id"] for row in rows}) == len({row["bucket"] for row in rows}) == 3


def test_a_tenth_of_the_blocks_is_held_out():
    held_out = sum(row["split"] == "test" for row in make_seed_blocks(1000, 1))
    assert 70 < held_out < 130


@pytest.mark.parametrize("blocks", [2, 3, 7])
def test_few_blocks_have_one_in_each_split(blocks):
    assert {row["split"] for row in make_seed_blocks(blocks, 1)} == {"train", "test"}


def test_more_blocks_move_no_other_one_once_there_are_enough():
    few, many = make_seed_blocks(100, 8), make_seed_blocks(200, 8)
    changed = [one["id"] for one, other in zip(few, many, strict=False) if one != other]
    assert len(changed) <= 2  # the blocks with the least and the greatest hash


def test_the_table_is_written_with_its_columns(tmp_path):
    notes = []
    context = SimpleNamespace(
        config=SimpleNamespace(blocks=2, block_size=3), out=tmp_path,
        report_progress=lambda done, total, note: notes.append(note),
    )  # fmt: skip
    list_seed_blocks(context)  # pyright: ignore[reportArgumentType]
    assert pq.read_table(tmp_path / "seeds.parquet").to_pylist() == make_seed_blocks(2, 3)
    assert pq.read_schema(tmp_path / "seeds.parquet").names == list(SEED_BLOCK_COLUMNS)
    assert notes == ["6 seeds in 2 blocks, 1 held out"]
