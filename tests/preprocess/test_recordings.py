import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pipelines.config import CONFIGS_FOLDER, ConfigError
from pipelines.config import load_config as load_config
from pipelines.errors import UserError
from pipelines.graph import data_source_settings
from pipelines.preprocess.recordings import (
    DataConfig,
    digest_external_files,
    hash_bucket_count,
    list_corpus_recordings,
    make_recordings_table,
    move_duplicate_ids_to_rejects,
    move_unsafe_ids_to_rejects,
    recording_bucket,
    reject_duplicate_files,
    split_identities,
)
from pipelines.preprocess.sources import SOURCES, RecordingListing, source_settings_class
from pipelines.preprocess.sources.folder import FolderConfig
from pipelines.preprocess.sources.synthetic import SyntheticConfig
from pipelines.preprocess.sources.voxceleb_csv import VoxcelebCsvConfig


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "videos"
    for person in range(12):
        for clip in range(3):
            path = root / f"p{person:02d}" / f"{clip}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{person} {clip}".encode())
    return root


def folder(root, **more):
    return DataConfig(source="folder", folder=FolderConfig(path=str(root)), **more)


def rows_of(identities, split=""):
    return [{"identity": i, "split": split} for i in identities]


def context(data, out: Path):
    figures = {}
    return SimpleNamespace(
        config=data,
        out=out,
        log_metrics=figures.update,
        figures=figures,
        report_progress=lambda *_: None,
    )


def test_table_has_a_row_a_recording_with_every_column(corpus, tmp_path):
    ctx = context(folder(corpus), tmp_path)
    make_recordings_table(ctx)
    table = pq.read_table(tmp_path / "recordings.parquet")
    assert set(table.column_names) == {
        "id", "identity", "split", "bucket", "source", "uri", "sha256", "seed", "spec", "tracks",
        "span",
    }  # fmt: skip
    assert table.column("id").to_pylist() == sorted(f"p{p:02d}-{c}" for p in range(12) for c in range(3))
    assert ctx.figures["recordings"] == 36
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 0


def test_table_is_the_same_bytes_twice(corpus, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_recordings_table(context(folder(corpus), tmp_path / name))
    assert (tmp_path / "a/recordings.parquet").read_bytes() == (
        tmp_path / "b/recordings.parquet"
    ).read_bytes()


def test_tracks_survive_the_table(tmp_path):
    (tmp_path / "m.csv").write_text(
        "video_id,start,end,bbox,fps,width,height,partition,person_id\nv,3,9,1-2-30-34,25,64,36,train,p\nw,x\n"
    )
    config = VoxcelebCsvConfig(csv=str(tmp_path / "m.csv"), mirror=str(tmp_path))
    make_recordings_table(context(DataConfig(source="voxceleb_csv", voxceleb_csv=config), tmp_path))
    (row,) = pq.read_table(tmp_path / "recordings.parquet").to_pylist()
    assert row["tracks"] == [
        {
            "start": 3,
            "end": 9,
            "fps": 25.0,
            "width": 64,
            "height": 36,
            "box": [1.0, 2.0, 30.0, 34.0],
            "grow": 0.0,
        }
    ]
    assert row["span"] == [0.12, 0.36]
    (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert (reject["line"], reject["code"]) == (3, "malformed_row")


def test_no_identity_is_in_both_splits(corpus):
    rows = list_corpus_recordings(folder(corpus, test_fraction=0.3)).rows
    splits = {s: {r["identity"] for r in rows if r["split"] == s} for s in ("train", "test")}
    assert splits["train"]
    assert splits["test"]
    assert not splits["train"] & splits["test"]


def test_splits_stay_when_identities_are_added():
    few = split_identities(rows_of(f"p{i}" for i in range(40)), 0.2)
    many = split_identities(rows_of(f"p{i}" for i in range(80)), 0.2)
    assert {i: many[i] for i in few} == few
    assert 0.1 < sum(s == "test" for s in many.values()) / 80 < 0.3


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_two_identities_fill_both_splits(fraction):
    assert sorted(split_identities(rows_of(["a", "b"]), fraction).values()) == ["test", "train"]


def test_no_test_split_when_none_is_wanted():
    assert set(split_identities(rows_of(["a", "b", "c"]), 0).values()) == {"train"}


def test_the_word_of_the_source_counts():
    rows = rows_of(["a", "b"], "train") + rows_of(["c"], "test")
    assert split_identities(rows, 0.9) == {"a": "train", "b": "train", "c": "test"}


def test_synthetic_rows_pass_through():
    data = DataConfig(synthetic=SyntheticConfig(identities=3, test_identities=1, clips_per_identity=2))
    rows = list_corpus_recordings(data).rows
    assert [row["split"] for row in rows] == ["train"] * 4 + ["test"] * 2
    assert all(row["spec"] and row["source"] == "synthetic" for row in rows)


def test_a_new_video_moves_no_other_to_another_bucket(corpus):
    data = folder(corpus, clips_per_shard=10)
    before = {r["id"]: r["bucket"] for r in list_corpus_recordings(data).rows}
    (corpus / "p00" / "new.mp4").write_bytes(b"new")
    after = {r["id"]: r["bucket"] for r in list_corpus_recordings(data).rows}
    assert {i: after[i] for i in before} == before


def test_growth_splits_each_bucket_in_two():
    ids = [f"r{i}" for i in range(200)]
    assert all(recording_bucket(i, 8) in (recording_bucket(i, 4), recording_bucket(i, 4) + 4) for i in ids)
    assert {recording_bucket(i, 8) for i in ids} == set(range(8))


@pytest.mark.parametrize(("recordings", "count"), [(1, 1), (16, 1), (17, 2), (33, 4), (64, 4), (65, 8)])
def test_bucket_count_is_a_power_of_two_that_keeps_shards_small(recordings, count):
    assert hash_bucket_count(recordings, 16) == count


def test_limit_is_a_sample_that_keeps_both_splits(corpus):
    rows = list_corpus_recordings(folder(corpus, limit=4, test_fraction=0.1)).rows
    assert len(rows) == 4
    assert {row["split"] for row in rows} == {"train", "test"}
    more = list_corpus_recordings(folder(corpus, limit=8, test_fraction=0.1)).rows
    assert len({row["id"] for row in rows} & {row["id"] for row in more}) >= 3


def test_a_repeated_id_is_rejected_and_the_first_kept():
    listing = move_duplicate_ids_to_rejects(
        RecordingListing([{"id": "a", "uri": "x"}, {"id": "a", "uri": "y"}], [])
    )
    assert [row["uri"] for row in listing.rows] == ["x"]
    assert [(r["id"], r["code"], r["file"]) for r in listing.rejects] == [("a", "duplicate_id", "y")]


@pytest.mark.parametrize("bad", [{"id": "a" * 33}, {"identity": "a" * 33}, {"id": "a/b"}, {"identity": ""}])
def test_names_that_no_shard_can_hold_are_rejected_whatever_the_source(bad):
    good = {"id": "a", "identity": "p", "uri": "x"}
    listing = move_unsafe_ids_to_rejects(RecordingListing([{**good, **bad}, good], []))
    assert listing.rows == [good]
    assert [r["code"] for r in listing.rejects] == ["unsafe_id"]


def test_the_same_bytes_under_two_names_are_one_recording(corpus):
    (corpus / "p07" / "copy.mkv").write_bytes((corpus / "p03" / "1.mp4").read_bytes())
    rows, rejects = list_corpus_recordings(folder(corpus))
    (reject,) = rejects
    assert (reject["id"], reject["code"]) == ("p07-copy", "duplicate_content")
    assert "p03-1" in reject["sentence"]
    assert len(rows) == 36


def test_two_links_to_one_video_are_one_recording(corpus, tmp_path):
    (tmp_path / "far.mp4").write_bytes(b"far")
    for name in ("p00/near.mp4", "p01/near.mp4"):
        (corpus / name).symlink_to(tmp_path / "far.mp4")
    rows, rejects = list_corpus_recordings(folder(corpus))
    assert [(r["id"], r["code"]) for r in rejects] == [("p01-near", "duplicate_content")]
    assert "p00-near" in {row["id"] for row in rows}


def test_files_that_are_left_out_are_told_with_the_count_of_recordings(corpus, tmp_path):
    (corpus / "tape.braw").write_bytes(b"x")
    ctx, notes = context(folder(corpus), tmp_path), []
    ctx.report_progress = lambda done, total, note: notes.append(note)
    make_recordings_table(ctx)
    assert "36 recordings of 12 people; left out are 1 .braw; data.NAME.folder.extensions" in notes[0]


def test_only_files_of_equal_size_are_read_to_find_copies(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    rows = []
    for name, content in (
        ("a", b"one"),
        ("b", b"two"),
        ("c", b"one"),
        ("d", b"longer"),
        ("e", b""),
        ("f", b""),
    ):
        (tmp_path / name).write_bytes(content)
        rows.append({"id": name, "uri": str(tmp_path / name)})
    rows += [{"id": "c-two", "uri": str(tmp_path / "c")}, {"id": "a-two", "uri": str(tmp_path / "a")}]
    rows += [
        {"id": "g", "uri": "youtube:abcdefghijk"},
        {"id": "h", "uri": ""},
        {"id": "i", "uri": str(tmp_path)},
    ]
    listing = reject_duplicate_files(RecordingListing(rows, []))
    assert {r["id"]: r["sentence"].split(" is the same file as ")[1] for r in listing.rejects} == {
        "c": "a, byte for byte",
        "c-two": "a, byte for byte",
    }
    read = json.loads((tmp_path / "cache" / "digests.json").read_text())["facts"]
    assert {Path(path).name for path in read} == {"a", "b", "c"}


def test_tracks_that_overlap_are_kept_and_noted(tmp_path):
    lines = [f"v,{start},{start + 60},1-2-30-34,25,64,36,train,p" for start in (0, 50, 110)]
    (tmp_path / "m.csv").write_text(
        "\n".join(["video_id,start,end,bbox,fps,width,height,partition,person_id", *lines])
    )
    ctx = context(
        DataConfig(source="voxceleb_csv", voxceleb_csv=VoxcelebCsvConfig(csv=f"{tmp_path}/m.csv")), tmp_path
    )
    make_recordings_table(ctx)
    assert (ctx.figures["tracks"], ctx.figures["overlapping_tracks"]) == (3, 1)
    (note,) = pq.read_table(tmp_path / "notes.parquet").to_pylist()
    assert (note["id"], note["code"]) == ("v", "overlapping_tracks")
    assert "0-60 and 50-110 at 25 fps" in note["sentence"]
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 0


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_its_settings_in_the_configuration(name):
    config = DataConfig(source=name)
    assert type(getattr(config, name)) is source_settings_class(name)
    assert data_source_settings(config, "talks")[f"data.{name}"] == f"data.talks.{name}"
    assert pickle.loads(pickle.dumps(config)) == config


def test_unknown_settings_of_a_source_are_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {main: {source: celebv_hq, celebv_hq: {jsn: x}}}\n")
    with pytest.raises(ConfigError, match=r"data\.main\.celebv_hq\.jsn: unknown key; did you mean 'json'"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS_FOLDER / "data").glob("*.yaml")))
def test_every_fragment_of_data_loads(tmp_path, name):
    (tmp_path / "run.yaml").write_text(f"use: [data/{name}]\n")
    assert load_config(tmp_path / "run.yaml").config.data["main"].source in SOURCES


def test_an_empty_source_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"data\.NAME\.source folder lists no recordings"):
        list_corpus_recordings(folder(tmp_path))


def test_external_is_the_folder_and_nothing_for_synthetic(corpus):
    assert digest_external_files(DataConfig()) == {}
    assert len(digest_external_files(folder(corpus))) == 36


def test_a_corpus_that_nothing_is_trained_on_may_be_held_out_altogether(corpus):
    assert {row["split"] for row in list_corpus_recordings(folder(corpus, test_fraction=1)).rows} == {"test"}


@pytest.mark.parametrize("bad", [{"test_fraction": 1.1}, {"clips_per_shard": 0}, {"limit": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        DataConfig(**bad)


def test_listing_does_not_wait_for_pandas(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, pathlib, types; from pipelines.preprocess.recordings import DataConfig, "
        "make_recordings_table;"
        "config = DataConfig();"
        f"out = pathlib.Path({str(tmp_path)!r});"
        "ctx = types.SimpleNamespace(config=config, log_metrics=print, report_progress=print, out=out);"
        "make_recordings_table(ctx); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert pq.read_table(tmp_path / "recordings.parquet").num_rows == 24


def test_planning_imports_stay_light():
    import subprocess
    import sys

    stages = ("recordings", "download", "clips", "keypoints", "fit3dmm", "speech")
    modules = ", ".join(["sys", "models.perception", *(f"pipelines.preprocess.{stage}" for stage in stages)])
    heavy = ("torch", "ray", "mlflow", "av", "dlib", "ffmpeg", "scipy", "pyarrow")
    code = f"import {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
