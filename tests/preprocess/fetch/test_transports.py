"""The order of preference, and what a recording ends as."""

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipelines.errors import Rejected, Transient
from pipelines.preprocess.fetch.host_limits import DownloadHostBusy
from pipelines.preprocess.fetch.transports import fetch_recording
from storage.errors import StoreError
from storage.mirrors import MIRROR_EXTENSIONS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def mirror(tmp_path, noise):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "rec.mp4").write_bytes(noise)
    return folder


def transport_of(wanted, settings, check):
    with fetch_recording(wanted, settings, check) as fetched:
        assert fetched.path.is_file()
        assert fetched.probe["frames"] == 25
        return fetched.transport


def test_the_first_transport_that_has_it_is_taken(server, quick, ask, check, noise, mirror):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    wanted, settings = ask(f"{server.url}/a.mp4"), replace(quick, mirrors=(str(mirror),))
    assert transport_of(wanted, settings, check) == "mirror"
    assert not server.site.requests
    assert transport_of(wanted, replace(settings, order=("http", "mirror")), check) == "http"
    assert transport_of(wanted, replace(settings, order=("ytdlp", "http")), check) == "ytdlp"


def test_a_mirror_without_it_gives_way(server, quick, ask, check, noise, mirror):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    wanted = ask(f"{server.url}/a.mp4", id="other")
    assert transport_of(wanted, replace(quick, mirrors=(str(mirror),)), check) == "http"


def test_a_mirror_stands_in_for_what_the_origin_removed(server, quick, ask, check, mirror):
    settings = replace(quick, mirrors=(str(mirror),), order=("http", "ytdlp", "mirror"))
    assert transport_of(ask(f"{server.url}/gone.mp4"), settings, check) == "mirror"
    assert server.site.counts["/gone.mp4"] == 1  # not asked once more through yt-dlp


def test_a_mirror_that_is_out_of_order_does_not_give_way(server, quick, ask, check, noise, tmp_path):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    settings = replace(quick, mirrors=(str(tmp_path / "not-mounted"),))
    with pytest.raises(StoreError), fetch_recording(ask(f"{server.url}/a.mp4"), settings, check):
        pass
    assert not server.site.requests


def test_a_mirror_may_use_youtubes_name(quick, ask, check, noise, tmp_path):
    (tmp_path / "-abc_DEF123.webm").write_bytes(noise)
    wanted = ask("youtube:-abc_DEF123")
    assert transport_of(wanted, replace(quick, mirrors=(str(tmp_path),)), check) == "mirror"


def test_a_page_goes_on_to_yt_dlp(server, quick, ask, check, noise):
    html = b'<!doctype html><html><body><video src="/a.mp4" type="video/mp4"></video></body></html>'
    server.site.answers["/watch"] = server.Answer(html, kind="text/html")
    server.site.answers["/a.mp4"] = server.Answer(noise)
    assert transport_of(ask(f"{server.url}/watch"), quick, check) == "ytdlp"
    with pytest.raises(Rejected, match="order has no ytdlp"):
        transport_of(ask(f"{server.url}/watch"), replace(quick, order=("http",)), check)


@pytest.mark.parametrize(("uri", "code"), [("", "not_in_mirror"), ("ftp://h.example/a", "unsupported_url")])
def test_a_recording_nobody_has_is_rejected(quick, ask, check, mirror, uri, code):
    with pytest.raises(Rejected) as caught:
        transport_of(ask(uri, id="other"), replace(quick, mirrors=(str(mirror),)), check)
    assert caught.value.code == code


def test_damage_in_transfer_is_healed_by_a_second_one(server, quick, ask, check, noise):
    server.site.answers["/a.mp4"] = [server.Answer(noise, length=len(noise) // 2), server.Answer(noise)]
    assert transport_of(ask(f"{server.url}/a.mp4"), quick, check) == "http"
    assert server.site.counts["/a.mp4"] == 2


@pytest.mark.parametrize("broken", [b"", b"not a video at all", None])
def test_damage_that_stays_is_the_videos(server, quick, ask, check, noise, broken):
    """None: a server that announces half of the file, so that its end is never read."""
    body = noise if broken is None else broken
    server.site.answers["/a.mp4"] = server.Answer(body, length=len(noise) // 2 if broken is None else None)
    with pytest.raises(Rejected) as caught:
        transport_of(ask(f"{server.url}/a.mp4"), quick, check)
    assert caught.value.code == "corrupt"
    assert server.site.counts["/a.mp4"] == 2


def test_what_a_file_is_is_not_fetched_twice(server, quick, ask, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise)

    def silent(_):
        raise Rejected("no_sound", "rec has no sound")

    with pytest.raises(Rejected, match="no_sound"):
        transport_of(ask(f"{server.url}/a.mp4"), quick, silent)
    assert server.site.counts["/a.mp4"] == 1


def test_a_damaged_mirror_gives_way_to_the_origin(server, quick, ask, check, noise, mirror):
    (mirror / "rec.mp4").write_bytes(noise[:20_000])
    server.site.answers["/a.mp4"] = server.Answer(noise)
    assert transport_of(ask(f"{server.url}/a.mp4"), replace(quick, mirrors=(str(mirror),)), check) == "http"


def test_a_partial_file_is_never_given_out_but_continued(server, quick, ask, check, noise, tmp_path):
    server.site.answers["/a.mp4"] = server.Answer(noise, cut=60_000)
    wanted = ask(f"{server.url}/a.mp4")
    given = []
    with (
        pytest.raises(Transient, match="gave up"),
        fetch_recording(wanted, replace(quick, retries=0), check) as fetched,
    ):
        given.append(fetched)
    assert not given
    server.site.answers["/a.mp4"] = server.Answer(noise)
    with fetch_recording(wanted, quick, check) as fetched:
        assert fetched.path.read_bytes() == noise
    assert server.site.requests[-1][1]["Range"] == "bytes=60000-"
    assert not [p for p in (tmp_path / "work" / "work").iterdir()]


def test_a_killed_process_leaves_what_it_had_to_the_next(server, quick, ask, check, noise, tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from pipelines.preprocess.download import DownloadConfig, make_download_request\n"
        "from pipelines.preprocess.fetch.transports import fetch_recording\n"
        "from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig\n"
        "row = {'id': 'rec', 'uri': sys.argv[1], 'span': []}\n"
        "settings = DownloadTransportConfig(folder=sys.argv[2], private_hosts=('127.0.0.1',))\n"
        "with fetch_recording(make_download_request(row, DownloadConfig()), settings, None): pass\n"
    )
    url, folder = f"{server.url}/a.mp4", tmp_path / "work"
    server.site.answers["/a.mp4"] = server.Answer(noise, pause=0.005)
    running = subprocess.Popen([sys.executable, "-c", program, url, str(folder)], cwd=ROOT)
    until = time.time() + 20
    while time.time() < until and not [p for p in folder.glob("work/*/body") if p.stat().st_size]:
        time.sleep(0.01)
    running.kill()
    running.wait()
    server.site.answers["/a.mp4"] = server.Answer(noise)
    with fetch_recording(ask(url), quick, check) as fetched:
        assert fetched.path.read_bytes() == noise
    assert int(server.site.requests[-1][1]["Range"].removeprefix("bytes=").rstrip("-")) > 0


def test_a_fault_after_the_transfer_does_not_fetch_again(server, quick, ask, check, noise):
    """The store is full, say, when the video is published."""
    server.site.answers["/a.mp4"] = server.Answer(noise)
    wanted = ask(f"{server.url}/a.mp4")
    with pytest.raises(OSError, match="full"), fetch_recording(wanted, quick, check):
        raise OSError("the disk is full")
    with fetch_recording(wanted, quick, check) as fetched:
        assert hashlib.sha256(fetched.path.read_bytes()).digest() == hashlib.sha256(noise).digest()
    assert server.site.counts["/a.mp4"] == 1


def test_a_kept_file_is_looked_into_again(server, quick, ask, check, noise):
    """What it must be may have changed since: data.sound, the checksum its source lists."""
    server.site.answers["/a.mp4"] = server.Answer(noise)
    wanted = ask(f"{server.url}/a.mp4")

    def silent(_):
        raise Rejected("no_sound", "rec has no sound")

    with pytest.raises(OSError, match="full"), fetch_recording(wanted, quick, check):
        raise OSError("the disk is full")
    with pytest.raises(Rejected, match="no_sound"), fetch_recording(wanted, quick, silent):
        pass


def test_a_kept_file_that_was_damaged_is_fetched_again(server, quick, ask, check, noise, tmp_path):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    wanted = ask(f"{server.url}/a.mp4")
    with pytest.raises(OSError, match="full"), fetch_recording(wanted, quick, check):
        raise OSError("the disk is full")
    (body,) = (tmp_path / "work" / "work").glob("*/body")
    body.write_bytes(noise[:1000])
    with fetch_recording(wanted, quick, check) as fetched:
        assert fetched.path.read_bytes() == noise


# --- mirrors on the web -------------------------------------------------------------------------------------
def paths(server):
    return [path for path, _ in server.site.requests]


def test_a_web_mirror_is_asked_for_each_name_and_the_next_one_after_it(server, quick, ask, check, noise):
    server.site.answers["/full/-abc_DEF123.mp4"] = server.Answer(noise)
    wanted = ask("youtube:-abc_DEF123", id="rec")
    settings = replace(quick, mirrors=(f"{server.url}/empty", f"{server.url}/full/"))
    assert transport_of(wanted, settings, check) == "mirror"
    tried = [f"{id}.{ending}" for id in ("rec", "-abc_DEF123") for ending in MIRROR_EXTENSIONS]
    full = [f"/full/rec.{ending}" for ending in MIRROR_EXTENSIONS]
    assert paths(server) == [*(f"/empty/{name}" for name in tried), *full, "/full/-abc_DEF123.mp4"]


def test_a_web_mirror_without_it_gives_way(server, quick, ask, check, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    settings = replace(quick, mirrors=(f"{server.url}/m",))
    assert transport_of(ask(f"{server.url}/a.mp4"), settings, check) == "http"
    with pytest.raises(Rejected) as caught:
        transport_of(ask(""), settings, check)
    assert caught.value.code == "not_in_mirror"


def test_a_web_mirror_is_taken_up_where_it_broke(server, quick, ask, check, noise):
    settings = replace(quick, mirrors=(f"{server.url}/m",), retries=0)
    server.site.answers["/m/rec.mp4"] = server.Answer(noise, cut=60_000)
    with pytest.raises(Transient, match="gave up"):
        transport_of(ask(""), settings, check)
    server.site.answers["/m/rec.mp4"] = server.Answer(noise)
    with fetch_recording(ask(""), settings, check) as fetched:
        assert fetched.path.read_bytes() == noise
    assert server.site.requests[-1][1]["Range"] == "bytes=60000-"


@pytest.mark.parametrize("answer", [{"status": 403}, {"status": 500}, {"kind": "text/html"}])
@pytest.mark.parametrize("give_up", [False, True])
def test_a_web_mirror_that_is_locked_or_out_of_order_does_not_give_way(
    server, quick, ask, check, noise, answer, give_up
):
    server.site.answers |= {"/m/rec.mp4": server.Answer(**answer), "/a.mp4": server.Answer(noise)}
    settings = replace(quick, mirrors=(f"{server.url}/m",), give_up=give_up)
    with pytest.raises(Transient, match=r"127\.0\.0\.1:\d+/m"):
        transport_of(ask(f"{server.url}/a.mp4"), settings, check)
    assert "/a.mp4" not in paths(server)


def test_a_damaged_web_mirror_gives_way_after_a_second_try(server, quick, ask, check, noise):
    server.site.answers |= {"/m/rec.mp4": server.Answer(noise[:20_000]), "/a.mp4": server.Answer(noise)}
    settings = replace(quick, mirrors=(f"{server.url}/m",))
    assert transport_of(ask(f"{server.url}/a.mp4"), settings, check) == "http"
    assert paths(server) == ["/m/rec.mp4", "/m/rec.mp4", "/a.mp4"]


# --- giving up ----------------------------------------------------------------------------------------------
def test_a_recording_is_given_up_only_by_the_users_word(server, quick, ask, check):
    server.site.answers["/a.mp4"] = server.Answer(status=500)
    with pytest.raises(Transient, match="gave up after 3 attempts"):
        transport_of(ask(f"{server.url}/a.mp4"), quick, check)
    with pytest.raises(Rejected, match="gave up after 3 attempts") as caught:
        transport_of(ask(f"{server.url}/a.mp4"), replace(quick, give_up=True), check)
    assert caught.value.code == "unreachable"


def test_what_yt_dlp_gives_up_can_be_given_up_too(server, quick, ask, check):
    server.site.answers["/watch"] = server.Answer(status=500)
    with pytest.raises(Rejected) as caught:
        transport_of(ask(f"{server.url}/watch"), replace(quick, give_up=True, order=("ytdlp",)), check)
    assert caught.value.code == "unreachable"


def test_what_a_later_mirror_has_is_not_given_up(server, quick, ask, check, mirror):
    server.site.answers["/a.mp4"] = server.Answer(status=500)
    settings = replace(quick, mirrors=(str(mirror),), order=("http", "ytdlp", "mirror"), give_up=True)
    assert transport_of(ask(f"{server.url}/a.mp4"), settings, check) == "mirror"
    assert server.site.counts["/a.mp4"] == 3


@pytest.mark.parametrize("order", [("http",), ("ytdlp",)])
@pytest.mark.parametrize("headers", [[], [("Retry-After", "3600")]])
def test_a_host_that_wants_rest_is_no_reason_to_give_a_recording_up(
    server, quick, ask, check, order, headers
):
    server.site.answers["/a.mp4"] = server.Answer(status=429, headers=headers)
    with pytest.raises(DownloadHostBusy):
        transport_of(ask(f"{server.url}/a.mp4"), replace(quick, give_up=True, order=order), check)


def test_many_recordings_of_one_host_keep_its_limit(server, quick, ask, check, noise):
    server.site.answers |= {f"/{k}.mp4": server.Answer(noise, pause=0.0005) for k in range(8)}
    settings = replace(quick, per_host=2, longest_wait=30)
    ended = []

    def work(k):
        ended.append(transport_of(ask(f"{server.url}/{k}.mp4", id=f"r{k}"), settings, check))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert ended == ["http"] * 8
    assert server.site.most == 2


def test_the_default_folder_lies_in_the_cache(quick, ask, check, noise, server, monkeypatch, tmp_path):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    server.site.answers["/a.mp4"] = server.Answer(noise)
    with fetch_recording(ask(f"{server.url}/a.mp4"), replace(quick, folder=""), check) as fetched:
        assert fetched.path.is_relative_to(tmp_path / "cache" / "download")


def test_turns_of_hosts_are_the_users_on_this_machine_wherever_a_job_runs(
    quick, ask, check, noise, server, monkeypatch, tmp_path
):
    monkeypatch.delenv("REENACT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    server.site.answers["/a.mp4"] = server.Answer(noise)
    for job in ("one", "two"):
        (tmp_path / job).mkdir()
        monkeypatch.chdir(tmp_path / job)
        assert transport_of(ask(f"{server.url}/a.mp4"), replace(quick, folder=""), check) == "http"
        assert not list((tmp_path / job).rglob("clock"))
    assert len(list((tmp_path / "mine").rglob("clock"))) == 1


def test_a_machine_without_a_home_keeps_turns_with_the_rest(
    quick, ask, check, noise, server, monkeypatch, tmp_path
):
    monkeypatch.delenv("REENACT_CACHE", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    server.site.answers["/a.mp4"] = server.Answer(noise)
    assert transport_of(ask(f"{server.url}/a.mp4"), replace(quick, folder=""), check) == "http"
    assert len(list((tmp_path / ".reenact").rglob("clock"))) == 1
