"""`reenact shards` on real shards."""

from click.testing import CliRunner

from pipelines.cli.main import main
from storage import locations
from tests.shards.published import KEYS, shard, store

__all__ = ["shard", "store"]


def run(*arguments):
    return CliRunner().invoke(main, ["shards", *map(str, arguments)])


def test_inspect_prints_every_sample_and_the_fields_of_one(shard):
    done = run("inspect", shard)
    assert done.exit_code == 0, done.output
    assert "aa.tar: 2 samples" in done.output
    assert all(key in done.output for key in KEYS)
    assert "uint8 (10,32,32,3)" in done.output
    assert "float32 (6400,), -0.5 to 0.5" in done.output
    assert "identity 'ann'" in done.output


def test_a_name_that_is_not_there_is_one_line_and_exit_2(shard):
    done = run("inspect", shard, "--sample", "nobody")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "has no sample 'nobody'; it has ann#rec1#000000#000010" in done.output


def test_a_file_that_is_no_tar_is_one_line_and_exit_2(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 300)
    done = run("inspect", tmp_path / "a.tar")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)


def test_the_sheet_is_written_with_everything_on_it(shard, tmp_path):
    from PIL import Image

    done = run("inspect", shard, "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    assert "drew 2 samples" in done.output
    assert Image.open(tmp_path / "sheet.png").size[0] == 8 * 196 + 4


def test_a_sheet_without_frames_says_what_to_name(store, tmp_path):
    alone = tmp_path / "copy.tar"
    alone.write_bytes(store.fetch(locations.pack_path("keypoints", "aa")).read_bytes())
    done = run("inspect", alone, "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 2
    assert "name the clips' shard with --with" in done.output


def test_a_shard_that_is_not_there_is_a_mistake_in_the_call(tmp_path):
    for command in ("inspect", "validate"):
        done = CliRunner().invoke(main, ["shards", command, str(tmp_path / "no.tar")])
        assert done.exit_code == 2
        assert "no.tar' does not exist" in done.output
