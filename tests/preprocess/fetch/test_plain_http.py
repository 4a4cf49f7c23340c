"""Each way a web server can fail, on a real one."""

import errno
import socket
import time
from email.utils import formatdate

import pytest
from msgspec.structs import replace

from pipelines.errors import Rejected, Transient, UserError
from pipelines.preprocess.fetch import guard_proxy, plain_http
from pipelines.preprocess.fetch.address import PrivateAddressPolicy, resolve_video_address
from pipelines.preprocess.fetch.host_limits import DownloadHostBusy, HostRateLimits
from storage.errors import StoreError


@pytest.fixture
def get(server, quick, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()

    def get(path, most=10**9, **changes):
        settings = replace(quick, **changes)
        hosts = HostRateLimits(tmp_path / "hosts", settings.per_host, settings.longest_wait)
        return plain_http.fetch_http(
            resolve_video_address(server.url + path, PrivateAddressPolicy(hosts=settings.private_hosts)),
            folder,
            most,
            settings,
            hosts,
        )

    get.folder = folder
    return get


def test_a_good_server_gives_its_bytes(server, get, noise):
    server.site.answers["/a b.mp4"] = server.site.answers["/a%20b.mp4"] = server.Answer(noise)
    assert get("/a%20b.mp4").read_bytes() == noise


@pytest.mark.parametrize("reset", [False, True])
def test_a_dropped_connection_is_taken_up_where_it_broke(server, get, noise, reset):
    server.site.answers["/v"] = [server.Answer(noise, cut=len(noise) // 2, reset=reset), server.Answer(noise)]
    assert get("/v").read_bytes() == noise
    second = server.site.requests[1][1]
    if not reset:  # a reset takes along what was under way, at times all of it
        assert second["Range"] == f"bytes={len(noise) // 2}-"
        assert second["If-Range"].startswith('"')


def test_steps_forward_are_not_counted_as_failures(server, get, noise):
    assert len(noise) > 4 * 70_000
    server.site.answers["/v"] = server.Answer(noise, cut=70_000)
    assert get("/v", retries=1).read_bytes() == noise


def test_a_later_call_takes_up_what_an_earlier_one_got(server, get, noise):
    server.site.answers["/v"] = server.Answer(noise, cut=50_000, ranges=False)
    with pytest.raises(Transient, match="gave up after 1 attempts"):
        get("/v", retries=0)
    server.site.answers["/v"] = server.Answer(noise)
    assert get("/v", retries=0).read_bytes() == noise
    assert server.site.requests[-1][1]["Range"] == "bytes=50000-"


@pytest.mark.parametrize("etag", ["weak", "none"])
def test_without_a_strong_validator_nothing_is_continued(server, get, noise, etag):
    server.site.answers["/v"] = [server.Answer(noise, cut=90_000, etag=etag), server.Answer(noise, etag=etag)]
    assert get("/v").read_bytes() == noise
    assert "Range" not in server.site.requests[1][1]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, get, noise):
    server.site.answers["/v"] = [server.Answer(noise[::-1], cut=90_000), server.Answer(noise)]
    assert get("/v").read_bytes() == noise


def test_a_server_that_ignores_ranges_sends_all_of_it_again(server, get, noise):
    server.site.answers["/v"] = [server.Answer(noise, cut=90_000), server.Answer(noise, ranges=False)]
    assert get("/v").read_bytes() == noise


def test_a_file_that_became_shorter_is_fetched_from_its_start(server, get, noise):
    server.site.answers["/v"] = [server.Answer(noise, cut=90_000), server.Answer(status=416),
                                 server.Answer(noise)]  # fmt: skip
    assert get("/v").read_bytes() == noise
    assert ["Range" in headers for _, headers in server.site.requests] == [False, True, False]


def test_a_range_of_a_file_whose_size_is_not_said_is_taken(server, get, noise):
    unsaid = server.Answer(noise, part="of unknown total")
    server.site.answers["/v"] = [server.Answer(noise, cut=90_000), replace(unsaid, cut=70_000), unsaid]
    assert get("/v", retries=0).read_bytes() == noise
    assert [headers.get("Range") for _, headers in server.site.requests] == [
        None, "bytes=90000-", "bytes=160000-",
    ]  # fmt: skip


@pytest.mark.parametrize("rerun", [False, True])
def test_a_range_that_was_not_asked_for_ends_what_was_got_before(server, get, noise, rerun):
    server.site.answers["/v"] = [server.Answer(noise, cut=50_000), server.Answer(noise, part="from zero")]
    for _ in range(2 if rerun else 0):
        with pytest.raises(Transient, match="gave up"):
            get("/v", retries=0)
    assert get("/v").read_bytes() == noise
    assert ["Range" in headers for _, headers in server.site.requests] == [False, True, False]


def test_a_part_of_one_address_is_not_continued_from_another(server, get, noise):
    dated = server.Answer(noise, etag="none", headers=[("Last-Modified", formatdate(0, usegmt=True))])
    server.site.answers |= {"/v": replace(dated, cut=50_000), "/w": replace(dated, body=noise[::-1])}
    with pytest.raises(Transient, match="gave up"):
        get("/v", retries=0)
    assert get("/w").read_bytes() == noise[::-1]
    assert "Range" not in server.site.requests[-1][1]


def test_an_announced_length_that_never_comes_is_no_file(server, get, noise):
    server.site.answers["/v"] = server.Answer(noise, length=len(noise) + 5_000, ranges=False)
    with pytest.raises(Transient, match=r"bytes came of the .* that the server announced"):
        get("/v")
    assert len(server.site.requests) == 1 + 1 + 2  # the first brought most of it, so it does not count


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000, "-1", "1e3"])
def test_a_length_that_is_no_number_counts_as_none(server, get, noise, length):
    server.site.answers["/v"] = server.Answer(noise, length=-1, headers=[("Content-Length", length)])
    assert get("/v").read_bytes() == noise


@pytest.mark.parametrize("value", ["\u00b2", "9" * 5000, "-1", "Mon, 99 Foo 2026", ""])
def test_a_pause_that_is_no_number_and_no_date_counts_as_none(value):
    assert plain_http.parse_retry_after({"Retry-After": value}) == 0


def test_no_length_at_all_is_taken_as_it_ends(server, get, noise):
    server.site.answers["/v"] = server.Answer(noise, length=-1)
    assert get("/v").read_bytes() == noise


@pytest.mark.parametrize("status", [500, 502, 408, 429])
def test_a_passing_trouble_passes(server, get, noise, status):
    server.site.answers["/v"] = [server.Answer(status=status)] * 2 + [server.Answer(noise)]
    assert get("/v").read_bytes() == noise


def test_a_lasting_trouble_is_not_an_answer(server, get):
    server.site.answers["/v"] = server.Answer(status=500)
    with pytest.raises(Transient, match="HTTP status 500; gave up after 3 attempts"):
        get("/v")
    assert server.site.counts["/v"] == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "not_found"), (410, "not_found"), (401, "needs_auth"), (403, "needs_auth"), (451, "geo_blocked"),
     (400, "unsupported_url")],
)  # fmt: skip
def test_a_final_status_is_an_answer_at_once(server, get, status, code):
    server.site.answers["/v"] = server.Answer(status=status)
    with pytest.raises(Rejected) as caught:
        get("/v?sig=secret")
    assert caught.value.code == code
    assert "secret" not in caught.value.sentence
    assert server.site.counts["/v"] == 1


def test_retry_after_is_obeyed(server, get, noise):
    server.site.answers["/v"] = [
        server.Answer(status=429, headers=[("Retry-After", "1")]),
        server.Answer(noise),
    ]
    start = time.monotonic()
    assert get("/v").read_bytes() == noise
    assert 0.9 < time.monotonic() - start < 3


def test_a_wait_that_is_too_long_fails_for_now_and_holds_for_other_recordings(server, get, noise):
    later = formatdate(time.time() + 3600, usegmt=True)
    server.site.answers["/v"] = server.Answer(status=503, headers=[("Retry-After", later)])
    server.site.answers["/w"] = server.Answer(noise)
    with pytest.raises(DownloadHostBusy, match="no requests for another 3"):
        get("/v")
    with pytest.raises(DownloadHostBusy):
        get("/w")
    assert server.site.counts["/w"] == 0


def test_silence_ends_a_try(server, get, noise):
    server.site.answers["/v"] = [server.Answer(noise, pause=1.0), server.Answer(noise)]
    assert get("/v", timeout=0.3).read_bytes() == noise


def test_a_trickle_counts_as_stuck(server, get, noise):
    server.site.answers["/v"] = [server.Answer(noise, pause=0.05), server.Answer(noise)]
    assert get("/v", timeout=0.3, slowest=50_000).read_bytes() == noise


def test_the_speed_limit_holds(server, get, noise):
    server.site.answers["/v"] = server.Answer(noise)
    start = time.monotonic()
    get("/v", bytes_per_second=len(noise))
    assert time.monotonic() - start > 0.7


@pytest.mark.parametrize("length", [None, -1])
def test_more_bytes_than_allowed_are_not_fetched(server, get, noise, length):
    server.site.answers["/v"] = server.Answer(noise, length=length)
    with pytest.raises(Rejected) as caught:
        get("/v", most=200_000)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/vnd.apple.mpegurl"])
def test_a_page_is_not_a_video(server, get, kind):
    server.site.answers["/v"] = server.Answer(b"<html>", kind=kind)
    with pytest.raises(plain_http.UnexpectedWebPage):
        get("/v")


def test_a_packed_answer_is_not_taken_for_the_file(server, get):
    server.site.answers["/v"] = server.Answer(b"x" * 100, headers=[("Content-Encoding", "gzip")])
    with pytest.raises(Transient, match="expected identity"):
        get("/v", retries=0)


def test_redirects_are_followed_but_not_anywhere(server, get, noise):
    server.site.answers["/v"] = server.Answer(status=302, headers=[("Location", "/w")])
    server.site.answers["/w"] = server.Answer(noise)
    assert get("/v").read_bytes() == noise
    for target in (
        "file:///etc/passwd",
        "ftp://host/x",
        "http://169.254.169.254/latest",
        "http://me:pw@host/x",
        "http://2130706433/w",
        "http://[::ffff:127.0.0.1]/w",
        "http://[::1]/w",
        "http://10.0.0.1/w",
        server.url.replace("127.0.0.1", "localhost") + "/w",
    ):
        server.site.answers["/v"] = server.Answer(status=302, headers=[("Location", target)])
        with pytest.raises(Rejected) as caught:
            get("/v")
        assert caught.value.code == "unsupported_url"


@pytest.fixture
def refused(server, quick, tmp_path):
    """What a list's address at this machine's server comes to when the settings name no private host."""

    def ask(uri):
        hosts = HostRateLimits(tmp_path / "hosts", 1, 1)
        with pytest.raises(Rejected) as caught:
            plain_http.fetch_http(
                resolve_video_address(uri), tmp_path, 10**9, replace(quick, private_hosts=()), hosts
            )
        assert caught.value.code == "unsupported_url"
        assert not server.site.requests
        return caught.value.sentence

    return ask


def test_a_name_that_leads_to_this_machine_is_refused_before_a_request(server, refused):
    sentence = refused(server.url.replace("127.0.0.1", "localhost") + "/v")
    assert "localhost is at" in sentence
    assert "private_hosts" in sentence


def test_a_name_whose_address_changes_after_the_check_is_asked_at_the_one_checked(server, monkeypatch):
    """A first answer that is public, later ones that are not: who looks up once connects to the first."""
    port, asked = int(server.url.rpartition(":")[2]), []
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")

    def resolve(name, *_args, **_kwargs):
        asked.append(name)
        return [(*kind, ("9.9.9.9" if len(asked) == 1 else "127.0.0.1", port))]

    reached = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", lambda self, place: reached.append(place))
    guard_proxy.connect_checked("rebinding.example", port, 1, PrivateAddressPolicy()).close()
    assert reached == [("9.9.9.9", port)]
    assert asked == ["rebinding.example"]
    with pytest.raises(Rejected):
        guard_proxy.connect_checked("rebinding.example", port, 1, PrivateAddressPolicy())


def test_a_mirror_of_the_settings_may_be_this_machine(server, quick, tmp_path, noise):
    server.site.answers["/v"] = server.Answer(noise)
    mirror = resolve_video_address(server.url + "/v", PrivateAddressPolicy(configured=True))
    settings = replace(quick, private_hosts=())
    assert (
        plain_http.fetch_http(
            mirror, tmp_path, 10**9, settings, HostRateLimits(tmp_path / "h", 1, 1)
        ).read_bytes()
        == noise
    )


def test_a_circle_of_redirects_is_no_video(server, get):
    server.site.answers["/v"] = server.Answer(status=302, headers=[("Location", "/v")])
    with pytest.raises(Rejected):
        get("/v")


def test_a_full_disk_is_said_at_once(server, get, noise, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plain_http, "_copy", full)
    server.site.answers["/v"] = server.Answer(noise)
    with pytest.raises(StoreError, match="No space left"):
        get("/v")
    assert server.site.counts["/v"] == 1


def test_cookies_are_sent_and_the_file_is_left_alone(server, get, noise, tmp_path):
    jar = tmp_path / "cookies.txt"
    jar.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tkey\tvalue\n")
    before = jar.read_bytes()
    server.site.answers["/v"] = server.Answer(noise, headers=[("Set-Cookie", "other=1")])
    get("/v", cookies=str(jar))
    assert server.site.requests[0][1]["Cookie"] == "key=value"
    assert jar.read_bytes() == before


def test_a_proxy_is_used_and_its_password_is_not_told(server, get, quick, monkeypatch, noise):
    """The server itself as the proxy: it is sent the whole address."""
    monkeypatch.setenv("MY_PROXY", server.url.replace("http://", "http://user:geheim@"))
    server.site.answers["http://videos.example/v"] = server.Answer(noise)
    folder, gate = get.folder, HostRateLimits(get.folder / "hosts", 1, 1)
    settings = replace(quick, proxy_env="MY_PROXY", retries=0)
    path = plain_http.fetch_http(
        resolve_video_address("http://videos.example/v"), folder, 10**9, settings, gate
    )
    assert path.read_bytes() == noise
    assert server.site.requests[0][1]["Proxy-Authorization"].startswith("Basic ")
    monkeypatch.setenv("MY_PROXY", "http://user:geheim@127.0.0.1:1")
    with pytest.raises(Transient) as caught:
        plain_http.fetch_http(resolve_video_address("http://videos.example/w"), folder, 10**9, settings, gate)
    assert "geheim" not in str(caught.value)


def test_a_named_proxy_that_is_not_set_is_not_passed_by(server, get, noise):
    server.site.answers["/v"] = server.Answer(noise)
    with pytest.raises(UserError, match="NOT_SET is not set"):
        get("/v", proxy_env="NOT_SET")
    assert not server.site.requests
