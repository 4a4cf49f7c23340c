import pytest

from pipelines.config import ConfigError, load_config
from pipelines.engine.keys import to_json_value
from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("order", ("http", "http"), "named twice"),
        ("proxy_env", "http://me:geheim@host:1", "name of an environment variable"),
        ("mirrors", ("s3://key:geheim@bucket/x",), "user name or password"),
        ("mirrors", ("https://me:geheim@host/x",), "user name or password"),
        ("mirrors", ("s3://bucket/x?secret_key=geheim",), "holds secret_key"),
        ("private_hosts", ("http://host/",), "with or without :port"),
        ("private_hosts", ("HOST",), "in lower case"),
        ("mirrors", ("https://host/x?sig=geheim",), "holds sig"),
        ("mirrors", ("https://host/x?page=geheim",), "holds a query"),
        ("mirrors", ("/m", "ftp://host/x"), r"ftp://host/x: expected a folder or file://, s3://"),
        ("mirrors", ("http://169.254.169.254/x",), "no server"),
        ("per_host", 0, "1 or more"),
        ("retries", -1, "0 or more"),
        ("pause", -1.0, "0 or more"),
        ("timeout", 0, "more than 0"),
        ("bytes_per_second", 100, "at most half"),
    ],
)
def test_impossible_settings_say_why_without_secrets(setting, value, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        DownloadTransportConfig(**{setting: value})
    assert "geheim" not in str(caught.value)


def test_a_run_file_sets_them_and_no_secret_is_in_what_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_PROXY", "http://me:geheim@host:1")
    run = tmp_path / "run.yaml"
    run.write_text(
        "use: [data/synthetic]\ndownload: {max_height: 720, sections: exact}\n"
        "runtime: {download: {order: [mirror, ytdlp], mirrors: [/m, 's3://b/p'], proxy_env: MY_PROXY}}\n"
    )
    config = load_config(run).config
    assert config.runtime.download.mirrors == ("/m", "s3://b/p")
    assert config.download.max_height == 720
    assert "geheim" not in str(to_json_value(config))


def test_a_mirror_nobody_can_open_is_a_mistake_of_the_run_file(tmp_path):
    (tmp_path / "run.yaml").write_text("runtime: {download: {mirrors: ['ftp://h/x']}}\n")
    with pytest.raises(ConfigError, match=r"runtime\.download.*ftp://h/x"):
        load_config(tmp_path / "run.yaml")


def test_an_unknown_transport_is_a_mistake_of_the_run_file(tmp_path):
    (tmp_path / "run.yaml").write_text("runtime: {download: {order: [carrier_pigeon]}}\n")
    with pytest.raises(ConfigError, match="carrier_pigeon"):
        load_config(tmp_path / "run.yaml")
