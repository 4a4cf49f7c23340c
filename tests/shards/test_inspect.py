"""What is printed of real shards, and where the other families of a clip are found."""

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.runs.snapshot import CODE_ROOT
from pipelines.shards.inspect import describe_shard, format_size, read_contact_sheet_fields
from storage import locations
from tests.shards.published import KEYS, MAKE, keypoints, shard, store

__all__ = ["shard", "store"]


def test_inspect_of_one_sample_prints_that_one(shard):
    text = "\n".join(describe_shard(shard, KEYS[1]))
    assert KEYS[1] in text
    assert KEYS[0] not in text


def test_ranges_leave_out_nan_and_say_how_many(store):
    [line] = [
        x
        for x in describe_shard(store.fetch(locations.pack_path("keypoints", "aa")), None)
        if "landmarks  " in x
    ]
    assert "136 NaN" in line
    assert "nan" not in line


@pytest.mark.parametrize("node", list(MAKE))
def test_the_other_families_of_a_clip_are_found_in_its_store(store, node):
    found = read_contact_sheet_fields(store.fetch(locations.pack_path(node, "aa")), KEYS[1], [])
    assert {"frames", "sound", "landmarks", "rotation", "scale"} <= set(found)
    np.testing.assert_array_equal(found["landmarks"], keypoints(KEYS[1])["landmarks"])


def test_outside_a_store_only_named_shards_are_read(store, shard, tmp_path):
    alone = tmp_path / "copy.tar"
    alone.write_bytes(shard.read_bytes())
    assert "landmarks" not in read_contact_sheet_fields(alone, KEYS[0], [])
    assert "landmarks" in read_contact_sheet_fields(
        alone, KEYS[0], [store.fetch(locations.pack_path("keypoints", "aa"))]
    )


@pytest.mark.parametrize(("size", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (3.5 * 2**30, "3.5 GiB")])
def test_sizes_are_readable(size, text):
    assert format_size(size) == text


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    done = CliRunner().invoke(
        main, ["graph", str(CODE_ROOT / "configs/run/demo.yaml"), "--svg", str(tmp_path / "no/graph.svg")]
    )
    assert done.exit_code == 2
    assert "no/graph.svg: No such file or directory; give a file in a folder that is there" in done.output
