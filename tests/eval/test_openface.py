"""Files as OpenFace 2's FeatureExtraction writes them, and what is wrong with others."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.errors import Rejected, UserError
from pipelines.eval.config import OpenFaceFiles
from pipelines.eval.openface import (
    PRESENCE_COLUMNS,
    digest_external_files,
    read_action_units,
    read_presences,
)

INTENSITIES = [name.replace("_c", "_r") for name in PRESENCE_COLUMNS if name != "AU28_c"]
HEADER = ["frame", "face_id", "timestamp", "confidence", "success", *INTENSITIES, *PRESENCE_COLUMNS]
KEY = "ann#rec#000000#000009"


def rows(count):
    """Every third unit is there, one further on in each frame."""
    found = []
    for t in range(count):
        units = [f"{float((n + t) % 3 == 0):.2f}" for n in range(len(PRESENCE_COLUMNS))]
        found.append([str(t + 1), "0", "0.000", "0.98", "1", *["0.50"] * len(INTENSITIES), *units])
    return found


def write(path, lines, header=HEADER, space=" "):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([[header[0], *(space + name for name in header[1:])], *lines])
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ann.rec.000000.000009.csv"


def of_pair(folder, unit_samples, frames=3):
    config = SimpleNamespace(files=OpenFaceFiles(folder=str(folder)))
    inputs = {"generated": unit_samples([{"__key__": KEY, "frames": np.zeros((frames, 8, 8, 3), np.uint8)}])}
    (sample,) = read_action_units(inputs, config, {}, setting="eval.openface.self.toy")
    return sample


@pytest.mark.parametrize("space", ["", " "])
def test_presences_are_read_by_the_names_of_their_columns(tmp_path, file, unit_samples, space):
    write(file, rows(3), space=space)
    sample = of_pair(tmp_path, unit_samples)
    wanted = [[float((n + t) % 3 == 0) for n in range(18)] for t in range(3)]
    np.testing.assert_array_equal(sample["action_units"], np.array(wanted, np.float32))
    assert sample["__key__"] == KEY


def test_a_frame_without_success_has_no_action_units(file):
    lines = rows(3)
    lines[1][HEADER.index("success")] = "0"
    found = read_presences(write(file, lines), 3)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]


def test_a_method_without_files_names_its_setting(unit_samples):
    inputs = {"generated": unit_samples([{"__key__": KEY, "frames": np.zeros((3, 8, 8, 3), np.uint8)}])}
    (sample,) = read_action_units(inputs, SimpleNamespace(), {}, setting="eval.openface.self.toy")
    assert sample == {"__key__": KEY, "needs": {"weights": "eval.openface.self.toy"}}


def edit(place, text):
    def change(lines):
        lines[1][place] = text
        return lines

    return change


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (lambda lines: lines[:2], "frame_count", "has 2 rows, its pair has 3 frames"),
        (lambda lines: [*lines, lines[0]], "frame_count", "has 4 rows"),
        (lambda lines: [lines[0], lines[2], lines[1]], "frame_order", "does not count from 1 to 3"),
        (lambda lines: [lines[0], lines[1][:-2], lines[2]], "columns", "row 2 has 38 of 40 columns"),
        (lambda lines: [lines[0][:-2], *lines[1:]], "columns", "row 1 has 38 of 40 columns"),
        (edit(-1, "0.5"), "values", "presences are 0 or 1, found 0.5"),
        (edit(-1, "present"), "values", "'present' is no number"),
        (edit(-1, "nan"), "values", "'nan' is no number"),
        (edit(1, "1"), "several_faces", "tells of several faces"),
        (lambda lines: [], "frame_count", "has 0 rows"),
    ],
)
def test_a_file_of_another_form_is_refused(file, change, code, sentence):
    write(file, change(rows(3)))
    with pytest.raises(Rejected, match=sentence) as refused:
        read_presences(file, 3)
    assert refused.value.code == code


def test_missing_columns_are_named(file):
    kept = [n for n, name in enumerate(HEADER) if name not in ("AU28_c", "success")]
    write(file, [[row[n] for n in kept] for row in rows(3)], [HEADER[n] for n in kept])
    with pytest.raises(Rejected, match="lacks the columns AU28_c, success"):
        read_presences(file, 3)


def test_a_missing_file_is_named(tmp_path, unit_samples):
    with pytest.raises(Rejected, match=r"there is no file .*ann\.rec\.000000\.000009\.csv"):
        of_pair(tmp_path, unit_samples)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00frame", b"\x00" * 100])
def test_what_is_no_csv_file_is_refused(file, data):
    file.write_bytes(data)
    with pytest.raises(Rejected):
        read_presences(file, 3)


def test_a_huge_file_is_refused_unread(file):
    file.write_bytes(b"0" * 300_000)
    with pytest.raises(Rejected, match="300,000 bytes"):
        read_presences(file, 3)


def test_the_files_content_is_in_the_key_and_their_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "csv"
    folder.mkdir()
    write(folder / "a.csv", rows(2))
    (folder / "a.txt").write_text("of no use")
    config = SimpleNamespace(files=OpenFaceFiles(folder=str(folder)))
    before = digest_external_files(config)
    assert list(before) == ["a.csv"]
    write(folder / "a.csv", rows(3))
    assert digest_external_files(config) != before
    with pytest.raises(UserError, match="is not a folder"):
        digest_external_files(SimpleNamespace(files=OpenFaceFiles(folder=str(tmp_path / "none"))))
