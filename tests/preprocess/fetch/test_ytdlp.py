"""yt-dlp through its generic extractor, on the local server."""

import errno
import socket
import time

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines.errors import Rejected, Transient
from pipelines.media import probe_file
from pipelines.preprocess.fetch import ytdlp
from pipelines.preprocess.fetch.address import PrivateAddressPolicy, resolve_video_address
from pipelines.preprocess.fetch.host_limits import DownloadHostBusy, HostRateLimits
from storage.errors import StoreError


@pytest.fixture
def get(server, quick, tmp_path, ask):
    folder = tmp_path / "root" / "work" / "one"
    folder.mkdir(parents=True)

    def get(path, span=(), changes=None, base=server.url, **settings):
        wanted = ask(base + path, span=span, **settings)
        how = replace(quick, **(changes or {}))
        gate = HostRateLimits(tmp_path / "hosts", how.per_host, how.longest_wait)
        return ytdlp.download_with_ytdlp(
            resolve_video_address(wanted.uri, PrivateAddressPolicy(hosts=how.private_hosts)),
            folder,
            wanted,
            how,
            gate,
        )

    get.folder = folder
    return get


def page(*videos):
    tags = "".join(f'<video src="{v}" type="video/mp4"></video>' for v in videos)
    return (
        f"<!doctype html><html><head><title>../../x $HOME</title></head><body>{tags}</body></html>".encode()
    )


def test_a_file_and_what_is_known_of_it(server, get, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    path, offset, facts = get("/a.mp4")
    assert path.read_bytes() == noise
    assert (path, offset) == (get.folder / "video", 0.0)
    assert facts["extractor"] == "generic"
    assert [p.name for p in get.folder.iterdir()] == ["video"]


def test_a_page_that_embeds_a_video(server, get, noise):
    server.site.answers["/watch"] = server.Answer(page("/a.mp4"), kind="text/html")
    server.site.answers["/a.mp4"] = server.Answer(noise)
    assert get("/watch")[0].read_bytes() == noise


@pytest.fixture
def other(server):
    """The same server under a name that no setting calls private."""
    return server.url.replace("127.0.0.1", "localhost")


def refused(get, path, **how):
    with pytest.raises(Rejected) as caught:
        get(path, **how)
    assert caught.value.code == "unsupported_url"
    return caught.value.sentence


def test_a_page_of_a_list_whose_name_leads_to_this_machine_is_refused_before_a_request(server, get, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    where = server.url.replace("127.0.0.1", "localhost")
    settings = {"private_hosts": ()}
    assert "private_hosts may name" in refused(get, "/a.mp4", base=where, changes=settings)
    assert not server.site.requests


@pytest.mark.parametrize("by", ["redirect", "page"])
def test_neither_a_redirect_nor_a_page_leads_to_a_private_address(server, get, noise, other, by):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    moved = server.Answer(status=302, headers=[("Location", f"{other}/a.mp4")])
    shown = server.Answer(page(f"{other}/a.mp4"), kind="text/html")
    server.site.answers["/watch"] = moved if by == "redirect" else shown
    assert "localhost is at" in refused(get, "/watch")
    assert "/a.mp4" not in server.site.counts


@pytest.mark.parametrize("address", ["file:///{folder}/own.m3u8", "rtmp://127.0.0.1:{port}/a"])
def test_a_page_cannot_name_a_video_that_is_on_no_web_server(server, get, noise, tmp_path, address):
    """ffmpeg, which cuts sections out, would open it without a look at where it leads."""
    (tmp_path / "own.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nown.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "own.mp4").write_bytes(noise)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        uri = address.format(folder=tmp_path, port=stranger.getsockname()[1])
        server.site.answers["/watch"] = server.Answer(page(uri), kind="text/html")
        sentence = refused(get, "/watch", span=(0.2, 0.6), sections="exact")
        assert "on no web server" in sentence
        stranger.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stranger.accept()


def test_a_section_comes_through_the_guard_and_from_nowhere_else(server, get, noise, other, monkeypatch):
    """ffmpeg connects by itself, and heeds no_proxy."""
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    server.site.answers["/a.mp4"] = server.Answer(noise)
    assert get("/a.mp4", span=(0.2, 0.6), sections="exact")[0].exists()
    server.site.answers["/b.mp4"] = [
        server.Answer(noise), server.Answer(status=302, headers=[("Location", f"{other}/c.mp4")])
    ]  # fmt: skip
    refused(get, "/b.mp4", span=(0.2, 0.6), sections="exact")
    assert "/c.mp4" not in server.site.counts


def test_of_two_videos_on_a_page_none_is_taken(server, get, noise):
    server.site.answers["/watch"] = server.Answer(page("/a.mp4", "/b.mp4"), kind="text/html")
    server.site.answers["/a.mp4"] = server.site.answers["/b.mp4"] = server.Answer(noise)
    with pytest.raises(Rejected) as caught:
        get("/watch")
    assert caught.value.code == "unsupported_url"
    assert "more than one video" in caught.value.sentence


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (410, "not_found"), (401, "needs_auth"), (403, "needs_auth")]
)
def test_final_answers(server, get, status, code):
    server.site.answers["/watch"] = server.Answer(status=status)
    with pytest.raises(Rejected) as caught:
        get("/watch?token=secret")
    assert caught.value.code == code
    assert "secret" not in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_a_page_without_a_video_is_unsupported(server, get):
    server.site.answers["/watch"] = server.Answer(page(), kind="text/html")
    with pytest.raises(Rejected) as caught:
        get("/watch")
    assert caught.value.code == "unsupported_url"


def test_a_page_that_fails_for_now_is_tried_again(server, get, noise):
    server.site.answers["/watch"] = [
        server.Answer(status=500),
        server.Answer(page("/a.mp4"), kind="text/html"),
    ]
    server.site.answers["/a.mp4"] = server.Answer(noise)
    assert get("/watch")[0].read_bytes() == noise


def test_a_page_that_keeps_failing_is_not_an_answer(server, get):
    server.site.answers["/watch"] = server.Answer(status=500)
    with pytest.raises(Transient, match="gave up after 2 attempts"):
        get("/watch")


def test_too_many_requests_hold_the_whole_host(server, get, noise):
    server.site.answers["/a.mp4"] = server.Answer(status=429, headers=[("Retry-After", "3600")])
    with pytest.raises(DownloadHostBusy, match="no requests for another 3"):
        get("/a.mp4")
    before = len(server.site.requests)
    with pytest.raises(DownloadHostBusy):
        get("/other.mp4")
    assert len(server.site.requests) == before


def test_a_video_that_breaks_off_is_taken_up(server, get, noise):
    half = server.Answer(noise, cut=len(noise) // 2)
    server.site.answers["/a.mp4"] = [server.Answer(noise), half, server.Answer(noise)]
    assert get("/a.mp4")[0].read_bytes() == noise


def test_a_video_that_never_comes_whole_leaves_no_file(server, get, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise, cut=5_000, ranges=False)
    with pytest.raises(Transient, match="gave up"):
        get("/a.mp4")
    assert not (get.folder / "video").exists()


def test_a_trickle_counts_as_stuck(server, get, noise):
    server.site.answers["/a.mp4"] = [server.Answer(noise), server.Answer(noise, pause=0.05)]
    start = time.monotonic()
    with pytest.raises(Transient, match="bytes a second"):
        get("/a.mp4", changes={"timeout": 0.4, "slowest": 100_000, "retries": 0})
    assert time.monotonic() - start < 5


def test_more_bytes_than_allowed_are_not_fetched(server, get, noise):
    server.site.answers["/a.mp4"] = server.Answer(noise)
    with pytest.raises(Rejected) as caught:
        get("/a.mp4", max_bytes=1000)
    assert caught.value.code == "too_large"


def test_cookies_come_from_a_copy(server, get, noise, tmp_path):
    jar = tmp_path / "cookies.txt"
    jar.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tkey\tvalue\n")
    before = jar.read_bytes()
    server.site.answers["/a.mp4"] = server.Answer(noise, headers=[("Set-Cookie", "other=1")])
    get("/a.mp4", changes={"cookies": str(jar)})
    assert "key=value" in server.site.requests[0][1]["Cookie"]
    assert jar.read_bytes() == before


def test_a_password_of_the_proxy_is_not_told(server, get, monkeypatch):
    monkeypatch.setenv("MY_PROXY", "http://user:geheim@127.0.0.1:1")
    with pytest.raises(Transient, match="gave up") as caught:
        get("/a.mp4", changes={"proxy_env": "MY_PROXY", "retries": 0})
    assert "geheim" not in str(caught.value)
    assert not server.site.requests


def test_a_full_disk_is_said_at_once(server, get, noise, monkeypatch):
    server.site.answers["/a.mp4"] = server.Answer(noise)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ytdlp, "_move_video", full)
    with pytest.raises(StoreError, match="No space left"):
        get("/a.mp4")


@pytest.fixture(scope="session")
def counting(tmp_path_factory, helpers):
    """8 s whose frames get brighter by 1 each, key frames 2 s apart; with sound."""
    frames = np.repeat(np.arange(200, dtype=np.uint8) + 20, 48 * 64 * 3).reshape(200, 48, 64, 3)
    path = tmp_path_factory.mktemp("counting") / "counting.mp4"
    return helpers.write_video(path, frames, sound=helpers.tone(8), gop=50).read_bytes()


def test_a_section_begins_at_the_frame_that_was_asked_for(server, get, counting):
    import av

    server.site.answers["/a.mp4"] = server.Answer(counting)
    path, offset, _ = get("/a.mp4", span=(3.0, 5.0), sections="exact", section_margin=0.52)
    assert offset == pytest.approx(2.48)
    found = probe_file(path, "rec")
    assert found["seconds"] == pytest.approx(3.04, abs=0.1)
    assert found["audio_rate"]
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
        shown = int(first.to_ndarray(format="gray").mean().round())
        assert shown - 20 == pytest.approx(62, abs=1)  # shown from 2.48 s on
        assert float(first.pts * first.time_base) == pytest.approx(0, abs=0.03)


def serve(server, folder, kinds):
    for path in folder.iterdir():
        kind = kinds.get(path.suffix, "video/mp4")
        server.site.answers[f"/{path.name}"] = server.Answer(path.read_bytes(), kind=kind)


@pytest.fixture
def playlist(server, counting, tmp_path, helpers):
    """8 s as HLS in pieces of 2 s."""
    folder, whole = tmp_path / "hls", tmp_path / "whole.mp4"
    folder.mkdir()
    whole.write_bytes(counting)
    helpers.ffmpeg(
        "-i", whole, "-c", "copy", "-f", "hls", "-hls_time", 2, "-hls_list_size", 0, folder / "v.m3u8"
    )
    serve(server, folder, {".m3u8": "application/vnd.apple.mpegurl", ".ts": "video/mp2t"})
    return sorted(p.name for p in folder.glob("*.ts"))


def test_a_stream_in_pieces_is_put_together(server, get, playlist):
    assert len(playlist) == 4
    assert probe_file(get("/v.m3u8")[0], "rec")["frames"] == 200


@pytest.mark.parametrize("status", [404, 500])
def test_a_missing_piece_makes_no_video_with_a_hole(server, get, playlist, status):
    server.site.answers[f"/{playlist[2]}"] = server.Answer(status=status)
    with pytest.raises(Transient, match="gave up"):
        get("/v.m3u8")
    assert not (get.folder / "video").exists()


def test_picture_and_sound_that_come_apart_are_merged(server, get, counting, tmp_path, helpers):
    folder, whole = tmp_path / "dash", tmp_path / "whole.mp4"
    folder.mkdir()
    whole.write_bytes(counting)
    helpers.ffmpeg(
        "-i", whole, "-map", "0:v", "-map", "0:a", "-c", "copy", "-f", "dash", "-seg_duration", 2,
        folder / "v.mpd",
    )  # fmt: skip
    serve(server, folder, {".mpd": "application/dash+xml"})
    path, _, facts = get("/v.mpd")
    found = probe_file(path, "rec")
    assert (found["frames"], found["video_codec"]) == (200, "h264")
    assert found["audio_rate"] == 44_100
    assert "+" in facts["format_id"]


def test_a_section_from_the_start_has_no_offset(server, get, counting):
    server.site.answers["/a.mp4"] = server.Answer(counting)
    path, offset, _ = get("/a.mp4", span=(0.2, 1.0), sections="exact", section_margin=1.0)
    assert offset == 0.0
    assert probe_file(path, "rec")["seconds"] == pytest.approx(2.0, abs=0.1)


def test_what_yt_dlp_is_told(quick, ask, tmp_path):
    address = resolve_video_address("youtube:abcdefghijk")
    said = ytdlp.ytdlp_options(
        address, tmp_path, ask("youtube:abcdefghijk", max_height=720), quick, ytdlp.YtdlpLogger()
    )
    assert said["skip_unavailable_fragments"] is False
    assert said["noplaylist"]
    assert said["allowed_extractors"] == ["youtube"]
    assert said["format"].startswith("bv*[vcodec^=avc1][height<=?720]")
    assert said["format_sort"] == ["res:720", "vcodec:h264", "acodec:aac"]
    assert not {"enable_file_urls", "postprocessors", "exec", "usenetrc", "proxy", "cookiefile"} & set(said)
