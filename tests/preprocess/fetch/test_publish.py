"""What reaches the store: through the engine's own pack builder, from a server that fails."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from pipelines.cluster.runtime import RuntimeConfig
from pipelines.engine import packs
from pipelines.engine.packs import PackJob, UnitJob, build_pack
from pipelines.preprocess.download import DownloadConfig, download_video
from storage import locations
from storage.families import read_pack_record, read_sample
from storage.files import Store


@pytest.fixture
def publish(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "RETRY_DELAYS", (0.0,))
    store = Store(str(tmp_path / "store"))

    def publish(uri, **changes):
        runtime = RuntimeConfig(download=replace(quick, **changes))
        config = SimpleNamespace(sound="required", download=DownloadConfig())
        row = {"id": "rec", "source": "voxceleb_csv", "uri": uri, "sha256": "", "seed": 0, "spec": ""}
        unit = UnitJob(unit="rec", key="u" * 8, rows={"recordings": row}, samples={})
        job = PackJob("download", "download", "k" * 8, (unit,), "run")
        return store, build_pack(job, lambda inputs: download_video(inputs, config, {}, runtime), store)

    return publish


def test_a_partial_video_is_never_published_and_the_next_run_goes_on(server, publish, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise, cut=70_000, ranges=False)
    store, result = publish(f"{server.url}/a.mp4", retries=0)
    assert "gave up after 1 attempts" in result.failure
    assert not store.walk("packs")
    server.site.answers["/a.mp4"] = server.Answer(noise)
    store, result = publish(f"{server.url}/a.mp4", retries=0)
    assert server.site.requests[-1][1]["Range"] == "bytes=70000-"
    (record,) = read_pack_record(store, "download", "k" * 8)
    sample = read_sample(store, "download", "k" * 8, record.samples[0], ("video", "probe"))
    assert sample["video"].read() == noise
    assert sample["probe"]["transport"] == "http"
    assert not list((Path(store.base) / "tmp").iterdir())


@pytest.mark.parametrize("order", [("http",), ("ytdlp",)])
def test_tries_of_a_transport_are_not_multiplied_by_the_engines(server, publish, order, monkeypatch):
    monkeypatch.setattr(packs, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    server.site.answers["/a.mp4"] = server.Answer(status=500)
    _, result = publish(f"{server.url}/a.mp4", retries=1, order=order)
    assert "gave up after 2 attempts" in result.failure
    assert server.site.counts["/a.mp4"] == 2


def test_what_is_given_up_by_the_users_word_is_a_row_of_the_record(server, publish):
    server.site.answers["/a.mp4"] = server.Answer(status=500)
    store, result = publish(f"{server.url}/a.mp4", retries=1, give_up=True)
    (record,) = read_pack_record(store, "download", "k" * 8)
    assert not result.failure
    assert (record.status, record.code) == ("rejected", "unreachable")
    assert "HTTP status 500; gave up after 2 attempts" in record.reason


def test_a_removed_video_is_a_row_of_the_record(server, publish):
    server.site.answers["/a.mp4"] = server.Answer(status=410)
    store, result = publish(f"{server.url}/a.mp4")
    (record,) = read_pack_record(store, "download", "k" * 8)
    assert (record.status, record.code) == ("rejected", "not_found")
    assert not result.failure
    assert store.exists(locations.pack_path("download", "k" * 8))


def test_the_same_video_by_another_way_has_the_same_bytes(server, publish, noise, tmp_path):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    hashes = set()
    for order in (("http",), ("ytdlp",)):
        store, _ = publish(f"{server.url}/a.mp4", order=order)
        (record,) = read_pack_record(store, "download", "k" * 8)
        sample = read_sample(store, "download", "k" * 8, record.samples[0], ("probe",))
        hashes.add(sample["probe"]["sha256"])
    assert len(hashes) == 1


def test_an_edited_renderer_fetches_nothing_again(project_code):
    closure = project_code.reachable_symbols(["pipelines.preprocess.download:download_video"])
    reached = {name.rpartition(".")[0] for name in closure}
    assert "pipelines.media.container" in reached
    assert not [module for module in reached if "synthetic" in module or module.startswith("models")]
