"""The proxy that yt-dlp and ffmpeg are sent through."""

import http.client
import socket
import urllib.request

import pytest

from pipelines.preprocess.fetch.address import PrivateAddressPolicy
from pipelines.preprocess.fetch.guard_proxy import PrivateAddressGuardProxy


@pytest.fixture
def guard():
    with PrivateAddressGuardProxy(PrivateAddressPolicy(hosts=("127.0.0.1",)), timeout=2) as guard:
        yield guard


def opener(proxy):
    return urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))


def test_it_passes_a_request_on_and_keeps_its_password_to_itself(server, guard):
    server.site.answers["/v"] = server.Answer(b"x" * 300_000)
    with opener(guard.url).open(f"{server.url}/v?a=b", timeout=5) as answer:
        assert answer.read() == b"x" * 300_000
    path, headers = server.site.requests[0]
    assert path == "/v?a=b"
    assert "Proxy-Authorization" not in headers


def test_nobody_else_of_this_machine_can_use_it(server, guard):
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener(f"http://127.0.0.1:{guard.server_address[1]}").open(f"{server.url}/v", timeout=5)
    assert caught.value.code == 407
    assert not server.site.requests


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_tunnel_to_a_private_address_is_refused_however_it_is_written(server, guard, host):
    port = int(server.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", guard.server_address[1], timeout=5)
    connection.set_tunnel(host, port, {"Proxy-Authorization": guard.pass_line.decode()})
    with pytest.raises(OSError, match="403"):
        connection.request("GET", "/v")
    assert len(guard.refusals) == 1
    assert not server.site.requests


@pytest.mark.parametrize("target", ["x" * 70 + ".example:80", "a..b:80", ":80", "host:port", "[::1:80"])
def test_a_name_that_cannot_be_looked_up_is_no_trouble_of_the_guard(guard, target, capfd):
    with socket.create_connection(("127.0.0.1", guard.server_address[1]), timeout=5) as client:
        login = f"Proxy-Authorization: {guard.pass_line.decode()}"
        client.sendall(f"CONNECT {target} HTTP/1.1\r\n{login}\r\n\r\n".encode())
        assert client.recv(1000)[9:12] in (b"502", b"403", b"")
    assert not capfd.readouterr().err


def test_it_is_shut_when_the_download_ends():
    with PrivateAddressGuardProxy(PrivateAddressPolicy(), timeout=2) as guard:
        port = guard.server_address[1]
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=2).connect()
