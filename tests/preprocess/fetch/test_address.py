import pytest

from pipelines.errors import Rejected, UserError
from pipelines.preprocess.fetch.address import (
    PrivateAddressPolicy,
    is_forbidden_address,
    proxy_url,
    public_url,
    resolve_video_address,
    sanitize_message,
)


@pytest.mark.parametrize(
    ("uri", "url", "host", "youtube"),
    [
        ("youtube:-abc_DEF123", "https://www.youtube.com/watch?v=-abc_DEF123", "youtube.com", True),
        ("https://m.youtube.com/watch?v=x", "https://m.youtube.com/watch?v=x", "youtube.com", True),
        ("https://youtu.be/x", "https://youtu.be/x", "youtube.com", True),
        ("https://notyoutube.com/v", "https://notyoutube.com/v", "notyoutube.com", False),
        ("HTTP://Example.ORG:8080/a.mp4#t=3", "http://example.org:8080/a.mp4", "example.org:8080", False),
        ("https://bücher.example/ä.mp4?q=ü", "https://xn--bcher-kva.example/%C3%A4.mp4?q=%C3%BC",
         "xn--bcher-kva.example", False),
        ("http://[2606:4700::1]/a", "http://[2606:4700::1]/a", "[2606:4700::1]", False),
        ("http://9.9.9.9/a%20b", "http://9.9.9.9/a%20b", "9.9.9.9", False),
    ],
)  # fmt: skip
def test_addresses_are_made_canonical(uri, url, host, youtube):
    found = resolve_video_address(uri)
    assert (found.url, found.host, found.youtube) == (url, host, youtube)


@pytest.mark.parametrize(
    "uri",
    [
        "", "youtube:short", "youtube:../../../../x", "ftp://example.org/a", "file:///etc/passwd",
        "/etc/passwd", "https://user:password@example.org/a", "https://user@example.org/a", "http:///a", "https://",
        "http://exa mple.org/a", "http://example.org/a b", "http://example.org/a\nHost: x", "http://-x/",
        "http://example.org:port/", "http://example.org:99999/", "http://[::1", "javascript:alert(1)",
        "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://0.0.0.0/", "http://224.0.0.1/",
        "http://[::ffff:169.254.169.254]/", "data:video/mp4;base64,AAAA", "ytsearch:cats",
        "http://" + "a" * 300,
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
        "http://0177.0.0.1/", "http://017700000001/", "http://[::1]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://10.0.0.7/a",
        "http://192.168.1.1/", "http://[fd00::1]/", "http://100.64.0.1/", "http://2852039166/latest",
        "http://\uff11\uff12\uff17.0.0.1/", "http://127\u30020\u30020\u30021/", "http://0/",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_video_is_rejected(uri):
    with pytest.raises(Rejected) as caught:
        resolve_video_address(uri)
    assert caught.value.code == "unsupported_url"
    assert "password" not in caught.value.sentence


@pytest.mark.parametrize(
    ("ip", "list_may", "own_may"),
    [
        ("9.9.9.9", True, True), ("2606:4700::1", True, True), ("64:ff9b::909:909", True, True),
        ("192.168.1.1", False, True), ("127.0.0.1", False, True), ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:10.0.0.1", False, True), ("64:ff9b::a00:1", False, True), ("2002:a00:1::", False, True),
        ("169.254.169.254", False, False), ("fe80::1%eth0", False, False),
        ("::ffff:169.254.169.254", False, False), ("0.0.0.0", False, False), ("::", False, False),
        ("224.0.0.1", False, False), ("ff02::1", False, False),
    ],
)  # fmt: skip
def test_a_list_leads_to_public_addresses_and_the_users_settings_to_their_own_network_too(
    ip, list_may, own_may
):
    assert is_forbidden_address(ip, own=False) is not list_may
    assert is_forbidden_address(ip, own=True) is not own_may


def test_hosts_named_in_the_settings_may_be_private_and_no_others():
    policy = PrivateAddressPolicy(hosts=("10.0.0.7", "10.0.0.8:8080"))
    assert resolve_video_address("http://10.0.0.7:99/a", policy).host == "10.0.0.7:99"
    assert resolve_video_address("http://10.0.0.8:8080/a", policy).host == "10.0.0.8:8080"
    for uri in ("http://10.0.0.8/a", "http://10.0.0.9/a", "http://0x0a000007/a"):
        with pytest.raises(Rejected):
            resolve_video_address(uri, policy)
    assert (
        resolve_video_address("http://10.0.0.9/a", PrivateAddressPolicy(configured=True)).host == "10.0.0.9"
    )


def test_what_is_told_holds_no_secret():
    assert public_url("https://me:pw@host.example/path?sig=1#x") == "https://host.example/path"
    text = "\x1b[31mERROR:\x1b[0m cannot reach http://me:pw1234@10.0.0.1:80 for https://h.example/v?sig=abc"
    shown = sanitize_message(text, "http://me:pw1234@10.0.0.1:80")
    assert "pw1234" not in shown
    assert "abc" not in shown
    assert "https://h.example/v" in shown
    assert len(sanitize_message("x" * 1000)) < 310


def test_a_proxy_comes_from_the_named_variable(monkeypatch):
    monkeypatch.setenv("MY_PROXY", "socks5://host:1")
    assert proxy_url("") == ""
    assert proxy_url("MY_PROXY") == "socks5://host:1"
    monkeypatch.delenv("MY_PROXY")
    with pytest.raises(UserError, match="MY_PROXY is not set"):
        proxy_url("MY_PROXY")
