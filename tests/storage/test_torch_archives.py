"""TorchScript archives and pickles of modules give up their tensors, and nothing of theirs is run."""

import pickle
import zipfile

import pytest
import torch

from storage.errors import InvalidInput
from storage.pickle_stubs import check_sizes
from storage.torch_archives import (
    is_torchscript,
    read_pickled_tensors,
    read_torchscript_tensors,
    rebuild_tensor,
)
from tests.storage.weights_files import (
    Calls,
    SmallNet,
    equal_states,
    save_persistent_pickle,
    save_torchscript,
)


@pytest.fixture
def net():
    return SmallNet()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_torchscript_archive_gives_the_state_dict(net, tmp_path, dtype):
    save_torchscript(tmp_path / "net.pt", net.to(dtype))
    assert is_torchscript(tmp_path / "net.pt")
    assert equal_states(read_torchscript_tensors(tmp_path / "net.pt"), net.state_dict())


def test_a_traced_archive_gives_the_state_dict(net, tmp_path):
    torch.jit.save(torch.jit.trace(net.eval(), torch.ones(1, 3, 8, 8)), str(tmp_path / "net.pt"))
    assert equal_states(read_torchscript_tensors(tmp_path / "net.pt"), net.state_dict())


def test_tensors_that_share_a_storage_come_out_each_with_its_own_part(tmp_path):
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.arange(12.0)
            self.register_buffer("turned", whole.reshape(3, 4).T)
            self.register_buffer("end", whole[8:])

        def forward(self):
            return self.turned.sum() + self.end.sum()

    net = Shared()
    save_torchscript(tmp_path / "net.pt", net)
    assert equal_states(read_torchscript_tensors(tmp_path / "net.pt"), net.state_dict())


def test_a_checkpoint_of_torch_is_no_torchscript_archive(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    (tmp_path / "text").write_text("no zip")
    assert not is_torchscript(tmp_path / "net.pt")
    assert not is_torchscript(tmp_path / "text")


def test_a_compressed_archive_is_refused(net, tmp_path):
    save_torchscript(tmp_path / "net.pt", net)
    with (
        zipfile.ZipFile(tmp_path / "net.pt") as old,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InvalidInput, match=r"data\.pkl is compressed"):
        read_torchscript_tensors(tmp_path / "small.pt")


def test_an_archive_with_a_storage_cut_short_is_refused(net, tmp_path):
    save_torchscript(tmp_path / "net.pt", net)
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "cut.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: 4 if "/data/" in name else None])
    with pytest.raises(InvalidInput, match=r"^not a TorchScript archive of tensors alone: storage \d+ has"):
        read_torchscript_tensors(tmp_path / "cut.pt")


def test_a_pickle_of_modules_gives_their_state_dict_and_its_source_is_not_run(net, tmp_path):
    marker = tmp_path / "ran"
    save_persistent_pickle(tmp_path / "ffhq.pkl", net, source=f"open({str(marker)!r}, 'w').close()")
    found = read_pickled_tensors(tmp_path / "ffhq.pkl")
    assert equal_states(found, {f"G_ema.{name}": one for name, one in net.state_dict().items()})
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_gives_arrays_and_tensors_of_any_protocol(tmp_path, protocol):
    import numpy as np

    value = {"a": np.arange(6.0).reshape(2, 3), "b": [torch.ones(2), {"c": np.array([1, 2], ">i2")}], "n": 3}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    found = read_pickled_tensors(tmp_path / "x.pkl")
    assert {name: one.tolist() for name, one in found.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]], "b.0": [1, 1], "b.1.c": [1, 2]
    }  # fmt: skip


def test_a_whole_module_pickled_by_class_is_refused(net, tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(net))
    with pytest.raises(InvalidInput, match=r"tensors alone: it calls tests\.storage\.weights_files"):
        read_pickled_tensors(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("offset", "sizes", "strides"),
    [
        (0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (0, (2**40,), (0,)), (-1, (1,), (1,)),
        (0, (2,), (-1,)), (0, (2,), (1, 1)), ("0", (2,), (1,)), (0, (2**63,), (2**63,)), (0, "ab", (1,)),
    ],
)  # fmt: skip
def test_a_tensor_beyond_its_storage_is_refused(offset, sizes, strides):
    with pytest.raises(ValueError, match=r"storage|no shape|sizes"):
        rebuild_tensor(torch.arange(4.0), offset, sizes, strides)


def test_a_tensor_is_a_copy_of_its_part_of_the_storage():
    flat = torch.arange(6.0)
    assert rebuild_tensor(flat, 1, (2, 2), (2, 1)).tolist() == [[1, 2], [3, 4]]
    assert rebuild_tensor(flat, 6, (0, 3), (3, 1)).shape == (0, 3)


@pytest.mark.parametrize("sizes", [None, 3, "ab", (1.0,), (True,), (-1,)])
def test_what_is_no_shape_is_refused(sizes):
    with pytest.raises(ValueError, match="is no shape"):
        check_sizes(sizes)


def test_a_storage_within_a_pickle_is_read_as_tensors_alone(tmp_path):
    bad = pickle.dumps(Calls(print, "ran"), 2)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": Calls(torch.storage._load_from_bytes, bad)}))
    with pytest.raises(InvalidInput, match="not a pickle of arrays and tensors alone"):
        read_pickled_tensors(tmp_path / "x.pkl")
