import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.errors import InvalidFile
from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import (
    TorchNet,
    load_pretrained_net,
    map_batches_with_oom_backoff,
    read_tensors,
    same_padding,
)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.manual_seed(1))


def same(found, linear):
    return found.keys() == {"weight", "bias"} and all(
        torch.equal(found[k], v) for k, v in linear.state_dict().items()
    )


def test_a_plain_state_dict_is_read(linear, tmp_path):
    torch.save(linear.state_dict(), tmp_path / "net.pth.tar")
    assert same(read_tensors(tmp_path / "net.pth.tar"), linear)


def test_tensors_of_a_parallel_training_are_found_beside_its_optimizer(linear, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in linear.state_dict().items()}
    torch.save(
        {"state_dict": state, "epoch": 3, "optimizer": {"state": {"0": torch.ones(1)}}}, tmp_path / "a.pth"
    )
    assert same(read_tensors(tmp_path / "a.pth"), linear)


def test_an_imported_file_keeps_the_nests_in_its_names(linear, tmp_path):
    state = {f"state_dict.module.{name}": tensor for name, tensor in linear.state_dict().items()}
    save_file(state | {"optimizer.state.0": torch.ones(1)}, tmp_path / "a.safetensors")
    assert same(read_tensors(tmp_path / "a.safetensors"), linear)


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Evil()}, tmp_path / "evil.pth", pickle_module=pickle)
    with pytest.raises(InvalidFile, match=r"evil.pth: not a file of tensors alone"):
        read_tensors(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_built_net_has_the_files_numbers_and_none_of_its_own(linear, tmp_path):
    torch.save(linear.half().state_dict(), tmp_path / "a.pth")
    net = load_pretrained_net(lambda: nn.Linear(3, 2), tmp_path / "a.pth", "fan2d")
    assert torch.equal(net.weight, linear.weight.float())
    assert net.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("bias"), r"weights fan2d do not fit Linear: tensors 1 missing: bias"),
        (lambda s: s.update(extra=torch.ones(1)), "1 unknown: extra"),
        (lambda s: s.update(bias=torch.ones(5)), r"1 of another shape: bias \(5,\) \(expected \(2,\)\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(linear, tmp_path, change, told):
    state = dict(linear.state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InvalidFile, match=told):
        load_pretrained_net(lambda: nn.Linear(3, 2), tmp_path / "a.pth", "fan2d")


def test_float32_weights_survive_a_spell_in_bfloat16(images):
    net = TorchNet(nn.Conv2d(3, 4, 3))
    before = net.run_net(images, 3)
    net.configure_inference(InferenceSettings(dtype="bfloat16"))
    half = net.run_net(images, 3)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), before, atol=0.02)
    net.configure_inference(InferenceSettings())
    assert torch.equal(net.run_net(images, 3), before)


def test_larger_images_come_fewer_at_a_time():
    net = TorchNet(nn.Identity())
    net.configure_inference(InferenceSettings(batch=8))
    assert net.batch_size(256 * 256) == 8
    assert net.batch_size(512 * 512) == 2
    assert net.batch_size(4000 * 4000) == 1


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_every_row_goes_through_once_and_in_order(size):
    done = list(map_batches_with_oom_backoff(7, size, lambda rows, full: list(range(7))[rows]))
    assert [row for batch in done for row in batch] == list(range(7))
    assert max(map(len, done)) <= size


def test_batches_shrink_until_they_fit_the_memory():
    asked = []

    def work(rows, full):
        asked.append(rows.stop - rows.start)
        if asked[-1] > 2:
            raise torch.OutOfMemoryError("full")
        return list(range(7))[rows]

    done = list(map_batches_with_oom_backoff(7, 7, work))
    assert [row for batch in done for row in batch] == list(range(7))
    assert asked == [7, 4, 2, 2, 2, 1]


def test_one_image_that_does_not_fit_is_an_error():
    def work(rows, full):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        list(map_batches_with_oom_backoff(3, 2, work))


@pytest.mark.slow
def test_a_compiled_net_sees_one_shape_and_says_the_same(images):
    seen = []

    class Noting(nn.Conv2d):
        def forward(self, x):
            if not torch.compiler.is_compiling():
                seen.append(len(x))
            return super().forward(x)

    torch.manual_seed(0)
    net = TorchNet(Noting(3, 4, 3))
    plain = net.run_net(images, 4)
    net.configure_inference(InferenceSettings(compile=True))
    for rows in (4, 2, 3):
        padded = net.run_net(images[:rows], 4)
        assert len(padded) == 4
        assert torch.allclose(padded[: min(rows, 3)], plain[:rows], atol=1e-5)
    assert seen == [3]


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        (192, 3, 2, (0, 1)),
        (225, 3, 2, (1, 1)),
        (7, 5, 1, (2, 2)),
        (1, 5, 2, (2, 2)),
        (128, 5, 2, (1, 2)),
        (48, 3, 1, (1, 1)),
        (7, 3, 2, (1, 1)),
        (6, 2, 2, (0, 0)),
    ],
)
def test_same_padding_puts_the_odd_zero_behind(side, kernel, stride, padding):
    assert same_padding(side, kernel, stride) == padding
