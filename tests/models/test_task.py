import pytest
import torch

from models.task import StatelessTask, TrainStep, inference_weights


def test_inference_takes_the_running_mean_of_a_part_that_has_one():
    names = ("generator.w", "generator_ema.w", "discriminator.w")
    tensors = {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    found = inference_weights(tensors)
    assert {name: float(tensor) for name, tensor in found.items()} == {"generator.w": 1, "discriminator.w": 2}


def test_without_running_means_the_tensors_stay_as_they_are():
    tensors = {"encoder.w": torch.zeros(1), "loose": torch.zeros(1)}
    assert inference_weights(tensors) == tensors


def test_what_a_chunk_records_carries_no_gradient():
    step = TrainStep(1, "", torch.Generator())
    step.record_for_state_update("logit", torch.ones(1, requires_grad=True) * 2)
    assert not step.records["logit"].requires_grad


def test_a_task_without_state_refuses_to_load_one():
    StatelessTask().load_state({})
    with pytest.raises(ValueError, match="a task without state, found pool"):
        StatelessTask().load_state({"pool": torch.zeros(1)})
