import pytest

from pipelines.errors import Rejected
from pipelines.preprocess.fetch.address import address_of, forbidden, proxy, public, told


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
        ("http://[2001:db8::1]/a", "http://[2001:db8::1]/a", "[2001:db8::1]", False),
        ("http://10.0.0.7/a%20b", "http://10.0.0.7/a%20b", "10.0.0.7", False),
    ],
)  # fmt: skip
def test_addresses_are_made_canonical(uri, url, host, youtube):
    found = address_of(uri)
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
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_video_is_rejected(uri):
    with pytest.raises(Rejected) as caught:
        address_of(uri)
    assert caught.value.code == "unsupported_url"
    assert "password" not in caught.value.sentence


def test_metadata_services_are_forbidden_and_intranets_are_not():
    assert forbidden("169.254.169.254")
    assert forbidden("fe80::1%eth0")
    assert not forbidden("192.168.1.1")
    assert not forbidden("127.0.0.1")


def test_what_is_told_holds_no_secret():
    assert public("https://me:pw@host.example/path?sig=1#x") == "https://host.example/path"
    text = "\x1b[31mERROR:\x1b[0m cannot reach http://me:pw1234@10.0.0.1:80 for https://h.example/v?sig=abc"
    shown = told(text, "http://me:pw1234@10.0.0.1:80")
    assert "pw1234" not in shown
    assert "abc" not in shown
    assert "https://h.example/v" in shown
    assert len(told("x" * 1000)) < 310


def test_a_proxy_comes_from_the_named_variable(monkeypatch):
    monkeypatch.setenv("MY_PROXY", "socks5://host:1")
    assert proxy("") == ""
    assert proxy("MY_PROXY") == "socks5://host:1"
    monkeypatch.delenv("MY_PROXY")
    with pytest.raises(OSError, match="MY_PROXY is not set"):
        proxy("MY_PROXY")
