"""What is set before Ray is imported, and what Ray must leave as it was."""

import os
import signal

import pytest

from pipelines.cluster.start import hide_native_messages, keep_signal_handlers, set_auth_token


@pytest.fixture
def environment(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return os.environ


def test_a_private_ray_gets_a_token_of_its_own(environment):
    set_auth_token(private=True)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64


def test_a_cluster_is_called_with_tokens_unless_the_user_turned_them_off(environment):
    environment["RAY_AUTH_MODE"] = "disabled"
    set_auth_token(private=False)
    assert environment["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in environment


def test_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with keep_signal_handlers():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_written_to_the_descriptor_of_stderr_is_dropped_and_later_text_is_not(capfd):
    with hide_native_messages():
        os.write(2, b"from C++")
    os.write(2, b"ours")
    assert capfd.readouterr().err == "ours"
