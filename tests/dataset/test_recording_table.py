from types import SimpleNamespace

from pipelines.dataset import recording_table
from pipelines.dataset.recording_table import (
    Person,
    read_recording_people,
    read_recordings,
    read_rejects,
    recording_row_from_inputs,
    write_recording_tables,
)
from pipelines.preprocess.sources.common.rows import make_reject_row
from pipelines.preprocess.sources.common.source_tracks import make_source_track


def row(number):
    return {
        "id": f"rec{number}", "identity": f"id{number // 2}", "split": "test" if number < 2 else "train",
        "source": "folder", "bucket": number % 2, "uri": f"/{number}.mp4", "sha256": "", "seed": number,
        "spec": "", "tracks": [make_source_track(0, 25, 25, (64, 48), (1, 2, 33, 34), 0.5)] * number,
        "span": [0.0, 1.5],
    }  # fmt: skip


ROWS = [row(number) for number in range(5)]


def published(folder):
    return SimpleNamespace(path=lambda name: folder / name)


def test_what_is_written_is_read_again(tmp_path):
    rejects = [make_reject_row("a", "list.csv", 7, "bad_id", "a is no id")]
    write_recording_tables(tmp_path, ROWS, rejects, [])
    assert read_recordings(published(tmp_path)) == ROWS
    assert read_rejects(published(tmp_path)) == rejects


def test_a_table_without_rows_has_its_columns(tmp_path):
    write_recording_tables(tmp_path, [], [], [])
    assert read_recordings(published(tmp_path)) == []
    assert read_recording_people(published(tmp_path)) == {}


def test_people_are_known_without_their_tracks(tmp_path):
    write_recording_tables(tmp_path, ROWS, [], [])
    people = read_recording_people(published(tmp_path))
    assert people["rec1"] == Person("id0", "test")
    assert people["rec4"] == Person("id2", "train")


def test_parts_of_a_long_table_do_not_show(tmp_path, monkeypatch):
    for rows_at_once in (2, 1000):
        monkeypatch.setattr(recording_table, "ROWS_PER_BATCH", rows_at_once)
        (tmp_path / str(rows_at_once)).mkdir()
        write_recording_tables(tmp_path / str(rows_at_once), ROWS, [], [])
    short, long = (tmp_path / name / recording_table.RECORDINGS_FILE for name in ("2", "1000"))
    assert short.read_bytes() == long.read_bytes()


def test_a_stage_is_given_its_units_row():
    assert recording_row_from_inputs({"recordings": [ROWS[1]]})["id"] == "rec1"
