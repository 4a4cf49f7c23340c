"""`reenact shards` on real shards: what it prints, and where it finds the other families of a clip."""

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.runs.snapshot import ROOT
from pipelines.shards.inspect import gather_fields, listing, size_text
from storage import locations, shards
from storage.families import ManifestRow, UnitRecord, manifest_bytes, pack_record_bytes
from storage.files import Store

KEYS = ("ann#rec1#000000#000010", "ann#rec1#000010#000020")


def clip(key, frames=10, size=32):
    y, x = np.mgrid[:size, :size]
    images = np.stack([np.stack([x * 4, y * 4, (x + y + t) % 256], -1) for t in range(frames)])
    return {
        "__key__": key,
        "frames": images.astype(np.uint8),
        "sound": np.sin(np.arange(640 * frames) / 20).astype(np.float32) / 2,
        "boxes": np.tile(np.array([20, 20, 60, 60], np.float32), (frames, 1)),
        "crop": np.tile(np.array([0, 0, 64, 64], np.float32), (frames, 1)),
        "clip": {"identity": "ann", "recording": "rec1", "frames": frames, "size": size},
    }


def keypoints(key, frames=10):
    points = np.random.default_rng(0).uniform(8, 24, (frames, 68, 2)).astype(np.float32)
    points[3] = np.nan
    return {"__key__": key, "landmarks": points, "score": np.ones(frames, np.float32)}


def fit(key, frames=10):
    from models.perception.head.default_head import analytic
    from models.perception.head.pose import FLIP

    model = analytic()
    return {
        "__key__": key,
        "id_coeffs": np.zeros(model.n_id, np.float32),
        "exp_coeffs": np.zeros((frames, model.n_exp), np.float32),
        "scale": np.full(frames, 8, np.float32),
        "rotation": np.tile(FLIP.astype(np.float32), (frames, 1, 1)),
        "translation": np.tile(np.array([16, 16, 0], np.float32), (frames, 1)),
        "fit_error": np.ones(frames, np.float32),
    }


MAKE = {"clips": clip, "keypoints": keypoints, "fit3dmm": fit}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three families of one recording, published as the engine publishes them."""
    at = Store(str(tmp_path_factory.mktemp("store")))
    for node, make in MAKE.items():
        with at.scratch() as folder:
            records = shards.write_shard(
                folder / "shard.tar", [shards.encode_sample(make(key)) for key in KEYS]
            )
            at.put(folder / "shard.tar", locations.pack(node, "aa"))
        unit = UnitRecord(unit="rec1", key="k", status="ok", samples=tuple(records))
        at.write(locations.pack_record(node, "aa"), pack_record_bytes([unit]))
        at.write(locations.manifest(node, "m"), manifest_bytes([ManifestRow.of(unit, "aa")]))
    return at


@pytest.fixture
def shard(store):
    return store.fetch(locations.pack("clips", "aa"))


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


def test_inspect_of_one_sample_prints_that_one(shard):
    text = "\n".join(listing(shard, KEYS[1]))
    assert KEYS[1] in text
    assert KEYS[0] not in text


def test_ranges_leave_out_nan_and_say_how_many(store):
    [line] = [x for x in listing(store.fetch(locations.pack("keypoints", "aa")), None) if "landmarks  " in x]
    assert "136 NaN" in line
    assert "nan" not in line


def test_a_name_that_is_not_there_is_one_line_and_exit_2(shard):
    done = run("inspect", shard, "--sample", "nobody")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "has no sample 'nobody'; it has ann#rec1#000000#000010" in done.output


def test_a_file_that_is_no_tar_is_one_line_and_exit_2(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 300)
    done = run("inspect", tmp_path / "a.tar")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)


@pytest.mark.parametrize("node", list(MAKE))
def test_the_other_families_of_a_clip_are_found_in_its_store(store, node):
    found = gather_fields(store.fetch(locations.pack(node, "aa")), KEYS[1], [])
    assert {"frames", "sound", "landmarks", "rotation", "scale"} <= set(found)
    np.testing.assert_array_equal(found["landmarks"], keypoints(KEYS[1])["landmarks"])


def test_outside_a_store_only_named_shards_are_read(store, shard, tmp_path):
    alone = tmp_path / "copy.tar"
    alone.write_bytes(shard.read_bytes())
    assert "landmarks" not in gather_fields(alone, KEYS[0], [])
    assert "landmarks" in gather_fields(alone, KEYS[0], [store.fetch(locations.pack("keypoints", "aa"))])


def test_the_sheet_is_written_with_everything_on_it(shard, tmp_path):
    from PIL import Image

    done = run("inspect", shard, "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    assert "drew 2 samples" in done.output
    assert Image.open(tmp_path / "sheet.png").size[0] == 8 * 196 + 4


def test_a_sheet_without_frames_says_what_to_name(store, tmp_path):
    alone = tmp_path / "copy.tar"
    alone.write_bytes(store.fetch(locations.pack("keypoints", "aa")).read_bytes())
    done = run("inspect", alone, "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 2
    assert "name the clips' shard with --with" in done.output


@pytest.mark.parametrize(("size", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (3.5 * 2**30, "3.5 GiB")])
def test_sizes_are_readable(size, text):
    assert size_text(size) == text


def test_a_shard_that_is_not_there_is_a_mistake_in_the_call(tmp_path):
    for command in ("inspect", "validate"):
        done = CliRunner().invoke(main, ["shards", command, str(tmp_path / "no.tar")])
        assert done.exit_code == 2
        assert "no.tar' does not exist" in done.output


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    done = CliRunner().invoke(
        main, ["graph", str(ROOT / "configs/run/demo.yaml"), "--svg", str(tmp_path / "no/graph.svg")]
    )
    assert done.exit_code == 2
    assert "no/graph.svg: No such file or directory; give a file in a folder that is there" in done.output
