"""URIs: a query stays at the end, and one that holds a password is refused without being shown."""

import pickle
import subprocess

import pytest
import torch

from storage.checkpoints import StepCheckpoints
from storage.errors import InvalidInput
from storage.files import Store
from storage.uris import expand_home, format_store_option, join_uri, public_uri, reject_credentials

HOLDING_CREDENTIALS = (
    "s3://AKIA:hunter2@bucket/x",
    "s3://hunter2@bucket/x",
    "s3://AKIA:hun/ter2@bucket/x",
    "s3://AKIA:12/hunter2@bucket/x",
    "s3://bucket/x?access_key=AKIA&secret_key=hunter2",
    "s3://bucket/x?region=eu&session_token=hunter2",
    "gs://bucket/x?access_token=hunter2",
    "abfs://container:hunter2@account.dfs.core.windows.net/x",
    "abfs://container@account.dfs.core.windows.net/x?sas_token=hunter2",
    "https://me:hunter2@mlflow.example.org",
    "https://hunter2@mlflow.example.org",
    "postgresql+psycopg2://me:hunter2@db/mlflow",
    "mysql://db/mlflow?password=hunter2",
)


@pytest.mark.parametrize("uri", HOLDING_CREDENTIALS)
def test_a_uri_with_credentials_is_refused_and_not_repeated(uri):
    with pytest.raises(InvalidInput, match="credentials come from") as error:
        reject_credentials(uri, "runtime.store")
    assert "hunter2" not in str(error.value)
    assert "runtime.store" in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "uri",
    [
        "/data/store", "relative/key:value@x", "file:///data/store", "s3://bucket/a@b",
        "s3://bucket/x?endpoint_override=localhost:9000&scheme=http&region=eu", "hdfs://me@namenode:8020/x",
        "gs://anonymous@bucket/x", "abfs://container@account.dfs.core.windows.net/x",
        "https://mlflow.example.org:5000/base", "sqlite:////data/mlflow.db", "postgresql://me@db:5432/mlflow",
    ],
)  # fmt: skip
def test_a_uri_without_credentials_passes(uri):
    reject_credentials(uri, "runtime.store")


def test_the_way_to_do_it_is_that_of_the_scheme():
    with pytest.raises(InvalidInput, match="AWS_ACCESS_KEY_ID"):
        reject_credentials("s3://a:b@bucket", "store")
    with pytest.raises(InvalidInput, match="MLFLOW_TRACKING_PASSWORD"):
        reject_credentials("https://a:b@host", "runtime.tracking")
    with pytest.raises(InvalidInput, match=r"~/\.pgpass"):
        reject_credentials("postgresql+psycopg2://a:b@host/x", "runtime.tracking")


def test_a_store_with_credentials_in_its_uri_is_not_opened():
    with pytest.raises(InvalidInput, match="store: the s3:// URI holds"):
        Store("s3://AKIA:hunter2@bucket/x?region=eu")


def test_a_uri_of_no_file_system_is_the_users_mistake():
    with pytest.raises(InvalidInput, match=r"store nope://x: .*nope"):
        Store("nope://x")


def test_a_path_is_put_before_the_query():
    assert join_uri("s3://b/p/?region=eu&endpoint_override=h:1", "work/n/k") == (
        "s3://b/p/work/n/k?region=eu&endpoint_override=h:1"
    )
    assert join_uri("s3://b", "a") == "s3://b/a"
    assert join_uri("s3://b/p", "a b?.bin") == "s3://b/p/a%20b%3F.bin"


def test_a_store_below_a_store_with_a_query_reads_what_that_wrote():
    store = Store("mock:///bucket/prefix?region=eu")
    assert store.uri_of("work/n/k") == "mock:///bucket/prefix/work/n/k?region=eu"
    below = Store(store.uri_of("work/n/k"))
    assert below.full_path("step.bin") == store.full_path("work/n/k/step.bin")


def test_a_store_at_an_endpoint_of_its_query_keeps_a_trainings_checkpoints(bucket):
    store = Store(bucket.uri)
    work = StepCheckpoints(store.uri_of("work/train.toy/key"))
    for step in (2, 4):
        work.save(step, {"w": torch.full((3,), float(step))}, {"step": step})
    assert "prefix/work/train.toy/key/step-000000004.safetensors" in bucket.bucket
    tensors, about = StepCheckpoints(store.uri_of("work/train.toy/key")).load(4)
    assert (tensors["w"].tolist(), about) == ([4.0] * 3, {"step": 4})
    assert store.read_range("work/train.toy/key/step-000000004.safetensors", 0, 8) != b""
    assert work.steps() == [2, 4]


def test_a_worker_opens_the_same_store_at_an_endpoint_of_its_query(bucket):
    store = Store(bucket.uri)
    store.write("refs/a.json", b"1")
    assert pickle.loads(pickle.dumps(store)).read("refs/a.json") == b"1"
    assert store.list_folders("") == ["refs"]
    assert "endpoint" not in repr(store)


@pytest.mark.parametrize("uri", HOLDING_CREDENTIALS)
def test_a_shown_uri_has_no_secret_even_where_it_cannot_be_parsed(uri):
    assert "hunter2" not in public_uri(uri)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("~", "/home/a b"),
        ("~/s", "/home/a b/s"),
        ("sqlite:///~/mlflow.db", "sqlite:////home/a%20b/mlflow.db"),
        ("file:///~/s", "file:///home/a%20b/s"),
        ("a~b", "a~b"),
        ("/x/~", "/x/~"),
        ("./~", "./~"),
        ("s3://bucket/~/s", "s3://bucket/~/s"),
    ],
)
def test_a_path_that_begins_with_a_tilde_begins_at_home(path, found, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a b")
    assert expand_home(path) == found


def test_a_store_at_home_makes_no_folder_named_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Store("~/s").write("a", b"")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    "uri",
    ["what?x=1", "a 50%25", "it's", "$HOME", "~", "#1", "s3://bucket/prefix?region=eu&endpoint_override=h:1"],
)
def test_the_store_option_of_a_printed_command_can_be_pasted(uri, tmp_path, monkeypatch):
    monkeypatch.delenv("REENACT_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    uri = uri if "://" in uri else str(tmp_path / uri)
    done = subprocess.run(
        f"printf %s{format_store_option(uri)}", shell=True, capture_output=True, text=True, check=True
    )
    assert Store(done.stdout.removeprefix("--store")).uri == uri


def test_an_error_about_a_damaged_file_names_the_command_that_looks_at_its_store(tmp_path, monkeypatch):
    monkeypatch.delenv("REENACT_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "`reenact verify --store 'my store'`" in str(
        Store("my store").damage_error("packs/x is not as written")
    )


def test_a_printed_command_names_the_store_unless_it_is_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REENACT_STORE", raising=False)
    assert format_store_option(Store(".reenact/store").uri) == ""
    assert format_store_option(Store("other").uri) == " --store other"
    assert format_store_option("s3://bucket/prefix") == " --store s3://bucket/prefix"
    monkeypatch.setenv("REENACT_STORE", "s3://bucket/prefix")
    assert format_store_option("s3://bucket/prefix") == ""
