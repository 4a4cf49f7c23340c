import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines.errors import Rejected, Transient
from pipelines.preprocess.download import (
    DownloadConfig,
    download_or_render,
    section_to_download,
    ytdlp_formats,
)
from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig
from storage.shards import encode_sample


def config_of(sound, **transport):
    return SimpleNamespace(
        sound=sound,
        download=DownloadConfig(),
        runtime=SimpleNamespace(download=DownloadTransportConfig(**transport)),
    )


REQUIRED, OPTIONAL = config_of("required"), config_of("optional")


def row_of(path, sha256="", spec="", source="folder"):
    return {"id": "rec", "source": source, "uri": str(path), "sha256": sha256, "seed": 0, "spec": spec}


def downloaded(row, config, nets=None):
    (sample,) = download_or_render({"recordings": [row]}, config, nets or {}, config.runtime)
    return sample


@pytest.fixture
def silent(tmp_path, helpers):
    return helpers.write_video(tmp_path / "silent.mp4", np.zeros((10, 48, 64, 3), np.uint8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))


def test_a_local_file_is_given_as_it_lies_and_probed(face_video):
    sha256 = hashlib.sha256(face_video.read_bytes()).hexdigest()
    sample = downloaded(row_of(face_video, sha256), REQUIRED)
    assert sample["__key__"] == "rec"
    assert sample["video"] == face_video
    assert sample["probe"]["frames"] == 75
    said = {name: sample["probe"][name] for name in ("sha256", "transport", "offset", "origin")}
    assert said == {"sha256": sha256, "transport": "local", "offset": 0.0, "origin": {}}
    assert sample["truth"] == {}
    encode_sample(sample)  # every field has its codec


def test_sound_is_asked_for_or_not(silent):
    with pytest.raises(Rejected) as caught:
        downloaded(row_of(silent), REQUIRED)
    assert caught.value.code == "no_sound"
    assert downloaded(row_of(silent), OPTIONAL)["probe"]["audio_rate"] == 0


def test_a_recording_that_is_not_in_the_mirror_is_rejected():
    with pytest.raises(Rejected) as caught:
        downloaded(row_of(""), REQUIRED)
    assert caught.value.code == "not_in_mirror"


def test_reject_sentences_do_not_depend_on_where_the_file_was_unpacked(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video at all")
    sentences = set()
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            downloaded(row_of(tmp_path / "bad.mp4"), REQUIRED)
        sentences.add(caught.value.sentence)
    (sentence,) = sentences
    assert sentence.startswith("rec ")


def test_a_file_that_changed_since_it_was_listed_is_not_an_answer(silent, tmp_path):
    with pytest.raises(Transient, match="changed since it was listed"):
        downloaded(row_of(silent, "0" * 64), OPTIONAL)
    (tmp_path / "bad.mp4").write_bytes(b"not a video, and not what was listed either")
    with pytest.raises(Transient, match="changed since it was listed"):
        downloaded(row_of(tmp_path / "bad.mp4", "0" * 64), OPTIONAL)


def test_a_file_listed_by_size_and_time_may_not_change_either(silent):
    stat = silent.stat()
    listed = json.dumps({"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})
    assert downloaded(row_of(silent, spec=listed), OPTIONAL)["probe"]["frames"] == 10
    touched = json.dumps({"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns - 1})
    with pytest.raises(Transient, match="changed since it was listed"):
        downloaded(row_of(silent, spec=touched), OPTIONAL)


def test_a_file_that_changes_while_it_is_read_is_not_an_answer(silent):
    running = iter(download_or_render({"recordings": [row_of(silent)]}, OPTIONAL, {}, OPTIONAL.runtime))
    next(running)
    silent.write_bytes(b"another")
    with pytest.raises(Transient, match="changed while it was read"):
        next(running)


def test_a_file_that_went_away_is_not_an_answer(tmp_path):
    with pytest.raises(Transient):
        downloaded(row_of(tmp_path / "gone.mp4"), OPTIONAL)


def test_a_mirror_gives_what_has_no_address(tmp_path, face_video):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "rec.mkv").symlink_to(face_video)
    sample = downloaded(row_of("", source="voxceleb_csv"), config_of("required", mirrors=(str(folder),)))
    assert sample["probe"]["transport"] == "mirror"
    assert sample["video"] == folder / "rec.mkv"


def test_a_published_checksum_counts_for_a_mirror(tmp_path, face_video):
    (tmp_path / "rec.mp4").symlink_to(face_video)
    with pytest.raises(Rejected) as caught:
        downloaded(row_of("", "0" * 64), config_of("required", mirrors=(str(tmp_path),)))
    assert caught.value.code == "checksum"


def test_a_fetched_video_is_there_while_it_is_written_and_gone_afterwards(tmp_path, face_video):
    """The engine encodes a sample before it asks for the next one."""
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=str(face_video.parent)))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/{face_video.name}"
    config = config_of("required", seconds_between=0, private_hosts=("127.0.0.1",))
    running = iter(download_or_render({"recordings": [row_of(url)]}, config, {}, config.runtime))
    sample = next(running)
    assert sample["probe"]["transport"] == "http"
    assert sample["video"].read_bytes() == face_video.read_bytes()
    encode_sample(sample)
    assert next(running, None) is None
    assert not sample["video"].exists()
    server.shutdown()
    server.server_close()


def test_synthetic_recordings_come_with_their_truth():
    from models.perception.head.default_head import get_analytic_head
    from pipelines.preprocess.sources.synthetic import SyntheticConfig, list_recordings

    row = list_recordings(SyntheticConfig(identities=1, test_identities=0, seconds=0.4))[0]
    sample = downloaded({**row, "source": "synthetic"}, REQUIRED, {"analytic_head": get_analytic_head()})
    assert sample["probe"]["frames"] == len(sample["truth"]["angles"]) == 10
    assert sample["probe"]["transport"] == "synthetic"


def test_formats_prefer_what_was_asked_for_and_end_with_anything():
    wished = ytdlp_formats(DownloadConfig(max_height=720)).split("/")
    assert wished[0] == "bv*[vcodec^=avc1][height<=?720][height>=?720]+ba[ext=m4a]"
    assert wished[-1] == "w"
    assert not any("avc1" in choice for choice in ytdlp_formats(DownloadConfig(codec="any")).split("/"))


@pytest.mark.parametrize(
    ("formats_there", "chosen"),
    [
        ([("22", "avc1.64001F", "mp4a.40.2", 720), ("137", "avc1.640028", "none", 1080),
          ("248", "vp9", "none", 1080), ("140", "none", "mp4a.40.2", None), ("401", "av01", "none", 2160)],
         "137+140"),
        ([("18", "avc1.42001E", "mp4a.40.2", 360), ("248", "vp9", "none", 1080),
          ("140", "none", "mp4a.40.2", None)], "248+140"),
        ([("18", "avc1.42001E", "mp4a.40.2", 360), ("243", "vp9", "none", 360),
          ("140", "none", "mp4a.40.2", None)], "18"),
        ([("248", "vp9", "none", 1080), ("251", "none", "opus", None)], "248+251"),
        ([("313", "vp9", "none", 2160), ("251", "none", "opus", None)], "313+251"),
        ([("0", None, None, None)], "0"),
    ],
)  # fmt: skip
def test_yt_dlp_chooses_the_best_version_allowed(formats_there, chosen, tmp_path):
    import yt_dlp

    ext = {"248": "webm", "313": "webm", "251": "webm", "140": "m4a"}
    known = [
        {"format_id": f, "vcodec": v, "acodec": a, "height": h, "ext": ext.get(f, "mp4"),
         "url": f"https://h.example/{f}"}
        for f, v, a, h in formats_there
    ]  # fmt: skip
    params = {
        "format": ytdlp_formats(DownloadConfig()), "format_sort": ["res:1080", "vcodec:h264", "acodec:aac"],
        "quiet": True, "paths": {"home": str(tmp_path)}, "merge_output_format": "mp4/mkv",
    }  # fmt: skip
    with yt_dlp.YoutubeDL(params) as ydl:
        info = ydl.process_ie_result(
            {"id": "x", "title": "x", "extractor": "t", "extractor_key": "T", "formats": known},
            download=False,
        )
    assert info["format_id"] == chosen


def test_a_section_is_the_span_with_its_margin_where_sections_are_on():
    row, exact = {"span": [0.5, 9.0]}, DownloadConfig(sections="exact")
    assert section_to_download(row, exact) == (0.0, 10.0)
    assert section_to_download(row, replace(exact, section_margin=0.25)) == (0.25, 9.25)
    assert section_to_download({"span": []}, exact) is None
    assert section_to_download(row, DownloadConfig()) is None


@pytest.mark.parametrize("wrong", [{"max_height": 0}, {"max_bytes": 0}, {"section_margin": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        DownloadConfig(**wrong)
