"""What a phase begins with where several sources bring it, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.api import EmaSettings
from models.errors import InvalidSettings
from pipelines.train.initial_weights import collect_initial_weights, copy_weights_to_scratch
from pipelines.train.state import TrainState
from storage import checkpoints
from tests.models.one_pass import one_update
from tests.train import toy
from tests.train.conftest import FakeArtifact, FakeContext


def published(folder: Path, step: int = 7, **values: float) -> FakeArtifact:
    """A phase's artifact: model and state, one number a part."""
    folder.mkdir()
    weights = {f"{part}.w": torch.tensor([value]) for part, value in values.items()}
    about = {"phase": folder.name, "step": step, "steps_before": 3, "provenance": {folder.name: "distilled"}}
    checkpoints.save_checkpoint(folder / "model.safetensors", weights, about)
    states = {f"optim.{part}.w.exp_avg": 10 * tensor for part, tensor in (
        (name.partition(".")[0], tensor) for name, tensor in weights.items())}  # fmt: skip
    checkpoints.save_checkpoint(folder / "state.safetensors", states, about)
    return FakeArtifact(folder)


@pytest.fixture
def context(tmp_path) -> FakeContext:
    inputs = {
        "train.toy.first": published(tmp_path / "first", encoder=1.0, decoder=2.0, decoder_ema=2.5),
        "train.toy.other": published(tmp_path / "other", 4, decoder=3.0),
    }
    return FakeContext("train.toy.joint", None, inputs, tmp_path, str(tmp_path))


def begun(context: Any, **settings: Any) -> tuple[dict[str, float], dict[str, Any]]:
    phase = one_update("joint", ("encoder", "decoder"), **settings)
    tensors, about = collect_initial_weights(context, "toy", phase)
    return {name: float(tensor) for name, tensor in tensors.items()}, about


def test_each_part_comes_from_its_own_source(context):
    found, about = begun(context, init={"encoder": "first", "decoder": "other"})
    assert found == {"net.encoder.w": 1.0, "net.decoder.w": 3.0}
    assert about["phase"] == "first, other"
    assert about["provenance"] == {"first": "distilled", "other": "distilled"}


def test_a_part_begins_raw_or_as_the_running_mean(context):
    raw, _ = begun(context, init="first")
    mean, _ = begun(context, init={"decoder": "first.decoder_ema"})
    assert raw == {"net.encoder.w": 1.0, "net.decoder.w": 2.0}
    assert mean == {"net.decoder.w": 2.5}


def test_a_running_mean_goes_on_where_the_phase_keeps_one(context):
    found, _ = begun(context, init="first", ema={"decoder": EmaSettings(decay=0.9)})
    assert found == {"net.encoder.w": 1.0, "net.decoder.w": 2.0, "ema.decoder.w": 2.5}


def test_resumed_optimizers_come_with_the_part_and_count_the_steps_done(context):
    sources = {"encoder": "first", "decoder": "other"}
    found, about = begun(context, init=sources, resume_optimizers=True)
    assert {name: value for name, value in found.items() if name.startswith("optim.")} == {
        "optim.encoder.w.exp_avg": 10.0, "optim.decoder.w.exp_avg": 30.0,
    }  # fmt: skip
    assert about["step"] + about["steps_before"] == 10


def test_a_part_that_a_checkpoint_lacks_is_named(context):
    with pytest.raises(InvalidSettings, match=r"encoder with other, which has no encoder; it has \['dec"):
        begun(context, init={"encoder": "other"})


class Student(toy.Painter):
    """It learns beside a frozen net."""

    def set_frozen_nets(self, nets: Any) -> None:
        self.teacher = nets["teacher"]


def test_a_phase_is_handed_the_checkpoint_that_it_uses_as_inference_would(context, tmp_path):
    phase = one_update("toy", ("painter",), uses={"teacher": "first"})
    copy_weights_to_scratch(context, "toy", phase)
    state = TrainState(toy.job(tmp_path, phase, build=Student), torch.device("cpu"))
    assert {name: float(tensor) for name, tensor in state.task.teacher.items()} == {
        "encoder.w": 1.0, "decoder.w": 2.5,
    }  # fmt: skip
    assert set(state.parameters) == {"painter.value"}


def test_another_models_checkpoint_is_read_by_its_role(context, tmp_path):
    context.inputs["init.decoder"] = published(tmp_path / "theirs", decoder=5.0, decoder_ema=5.5)
    context.inputs["uses.teacher"] = published(tmp_path / "teachers", encoder=6.0)
    sources = {"encoder": "first", "decoder": "toy_b.tune.decoder_ema"}
    found, about = begun(context, init=sources, uses={"teacher": "toy_b.joint"}, resume_optimizers=True)
    assert (found["net.encoder.w"], found["net.decoder.w"]) == (1.0, 5.5)
    assert {name for name in found if name.startswith("optim.")} == {"optim.encoder.w.exp_avg"}
    assert about["phase"] == "first, toy_b.tune"
    phase = one_update("toy", ("painter",), uses={"teacher": "toy_b.joint"})
    copy_weights_to_scratch(context, "toy", phase)
    state = TrainState(toy.job(tmp_path, phase, build=Student), torch.device("cpu"))
    assert {name: float(tensor) for name, tensor in state.task.teacher.items()} == {"encoder.w": 6.0}
