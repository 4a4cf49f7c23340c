"""Settings that a machine cannot meet are told before anything is computed, with what to set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from msgspec.structs import replace

from models.errors import InvalidSettings
from models.fsrt.config import FsrtConfig
from pipelines.train.checks import check_phase_runtime
from pipelines.train.worker import run_training
from tests.train import toy

NODE = "train.fsrt.warmup"


@pytest.fixture(autouse=True)
def a_machine_without_bf16(monkeypatch):
    monkeypatch.setattr("models.precision.supports_bf16", lambda device: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def config(precision: str = "bf16", **runtime):
    given = {"train_workers": 1, "use_gpu": False, "ray": ""} | runtime
    fsrt = FsrtConfig(precision=precision)  # pyright: ignore[reportArgumentType]
    return SimpleNamespace(fsrt=fsrt), SimpleNamespace(**given), NODE, "fsrt", "warmup"


def test_bf16_on_a_processor_without_it_is_refused_before_anything_runs():
    with pytest.raises(InvalidSettings, match=r"precision bf16: .*`--set fsrt\.precision=fp32`"):
        check_phase_runtime(*config())


@pytest.mark.parametrize("can", [{"precision": "fp32"}, {"use_gpu": True}, {"ray": "10.0.0.1:6379"}])
def test_what_this_processor_need_not_do_is_not_asked_of_it(can):
    check_phase_runtime(*config(**can))


def test_a_worker_refuses_before_its_first_step(tmp_path):
    job = replace(toy.job(tmp_path), precision="bf16")
    with pytest.raises(InvalidSettings, match=r"`--set painter\.precision=fp32`"):
        run_training(job, torch.device("cpu"))
    assert not list(tmp_path.iterdir())
