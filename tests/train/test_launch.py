"""Whole phases, in this process (Ray Train's local mode)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.api import EmaSettings, Loss
from models.errors import InvalidSettings
from models.fsrt.task import FsrtReenactmentTask
from models.task import inference_weights
from pipelines.train import loop, metric_log
from storage import checkpoints
from storage.checkpoints import StepCheckpoints

EMA = {"encoder": EmaSettings(decay=0.5)}
FILES = ("model.safetensors", "state.safetensors")


def lines(context):
    return [json.loads(line) for line in (context.out / "metrics.jsonl").read_text().splitlines()]


def broken_at(monkeypatch, step: int, error: Exception) -> None:
    """Let the training process die in the middle of a step."""
    real = loop.train_step

    def train_step(state, passes, chunks, share, number, worker):
        if number == step:
            raise error
        real(state, passes, chunks, share, number, worker)

    monkeypatch.setattr(loop, "train_step", train_step)


@pytest.fixture(scope="module")
def trained(make_lab):
    """A detector, and a warmup from it with a running mean: its context, and all that it published."""
    lab = make_lab()
    return lab.keypoints(), lab.run(lab.context("warmup", ema=EMA))


def test_a_killed_run_ends_where_an_uninterrupted_one_does(lab, trained, monkeypatch):
    lab.inputs["train.fsrt.keypoints"], straight = trained
    with monkeypatch.context() as patch:
        broken_at(patch, 5, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            lab.run(lab.context("warmup", scratch="again", ema=EMA))
    resumed = lab.context("warmup", scratch="again", ema=EMA)
    assert StepCheckpoints(resumed.scratch).latest_step_up_to(6) == 4  # the best yet is always kept
    lab.run(resumed)
    for name in (*FILES, "metrics.jsonl", "samples.png"):
        assert (straight.out / name).read_bytes() == (resumed.out / name).read_bytes(), name


def test_more_steps_continue_from_fewer(lab):
    lab.keypoints()
    straight = lab.run(lab.context("warmup", steps=6))
    short = lab.run(lab.context("warmup", steps=3))
    longer = lab.context("warmup", steps=6)
    longer.previous = replace(lab.inputs["clips"], folder=short.out, steps=3)
    lab.run(longer)
    for name in FILES:
        assert (straight.out / name).read_bytes() == (longer.out / name).read_bytes(), name
    assert lines(longer)[0]["step"] == 2  # the log goes on, too


def test_a_shorter_run_leaves_what_an_interrupted_longer_one_has_done(lab, monkeypatch):
    lab.keypoints()
    with monkeypatch.context() as patch:
        broken_at(patch, 6, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            lab.run(lab.context("warmup", scratch="work", steps=8))
    longer = lab.context("warmup", scratch="work", steps=8)
    before = StepCheckpoints(longer.scratch).steps()
    assert before[-1] > 3
    shorter = lab.run(lab.context("warmup", scratch="work", steps=3))
    alone = lab.run(lab.context("warmup", steps=3))
    for name in FILES:
        assert (shorter.out / name).read_bytes() == (alone.out / name).read_bytes(), name
    assert StepCheckpoints(longer.scratch).steps() == before
    assert shorter.scratch == f"{longer.scratch}/steps-3"


def test_what_a_phase_publishes(trained):
    artifact, context = trained
    state = load_file(artifact.path("model.safetensors"))
    assert {name.split(".")[0] for name in state} == {"kp_detector"}
    assert sorted(p.name for p in context.out.iterdir()) == sorted(
        (*FILES, "best.safetensors", "metrics.jsonl", "samples.png")
    )
    state, about = checkpoints.load_checkpoint(context.out / "model.safetensors")
    assert (about["model"], about["phase"], about["step"]) == ("fsrt", "warmup", 6)
    assert about["provenance"] == {"kp_detector": "distilled"}
    started = load_file(artifact.path("model.safetensors"))
    frozen = {name: tensor for name, tensor in state.items() if name.startswith("kp_detector.")}
    assert frozen.keys() == started.keys()
    assert all(torch.equal(tensor, started[name]) for name, tensor in frozen.items())


def test_landmarks_of_another_net_than_the_papers_are_named_in_the_checkpoint(lab):
    context = lab.context("keypoints", steps=1)
    context.config.keypoints.landmarker = "mesh468_iris"
    _, about = checkpoints.load_checkpoint(lab.run(context).out / "model.safetensors")
    assert about["provenance"] == {"kp_detector": "distilled", "landmarks": "mesh468_iris"}


def test_the_running_mean_is_published_beside_its_part(trained):
    context = trained[1]
    state, model = (load_file(context.out / name) for name in (FILES[1], FILES[0]))
    name = "per_patch_linear.weight"
    assert torch.equal(model[f"encoder.{name}"], state[f"net.encoder.{name}"])
    assert torch.equal(model[f"encoder_ema.{name}"], state[f"ema.encoder.{name}"])
    assert not torch.equal(model[f"encoder_ema.{name}"], model[f"encoder.{name}"])
    assert torch.equal(inference_weights(model)[f"encoder.{name}"], model[f"encoder_ema.{name}"])


def test_figures_reach_the_run_as_they_appear(trained):
    context = trained[1]
    by_step = {}
    for step, values in context.seen["metrics"]:
        by_step.setdefault(step, {}).update(values)
    assert set(by_step) == {2, 3, 4, 6, None}
    losses = {f"loss/{name}" for name in ("pixel", "invariance", "variance", "covariance", "total")}
    assert losses | {"gradient_norm", "learning_rate", "speed/data_wait"} <= set(by_step[2])
    assert {"held_out/l1", "held_out/psnr", "held_out/copy_psnr"} <= set(by_step[4])
    assert "final/held_out/psnr" in by_step[None]
    assert context.seen["progress"][-1][:2] == (6, 6)
    assert {"net.kp_detector": "distilled", "provenance": "kp_detector distilled"} in context.seen["params"]
    assert context.seen["progress"][-1][2].endswith(" [kp_detector distilled]")
    assert not any(
        "speed" in name for line in lines(context) for name in line
    )  # bytes must not tell the time


def test_a_phase_learns_something(lab):
    context = lab.run(lab.context("keypoints", steps=30, batch=8, chunk=8))
    figures = [line["loss/position"] for line in lines(context) if "loss/position" in line]
    assert np.mean(figures[-3:]) < 0.8 * np.mean(figures[:3])


def test_nan_stops_with_the_clips_of_the_batch(lab, monkeypatch):
    lab.keypoints()
    whole = FsrtReenactmentTask.loss_terms

    def step(self, views, queries):
        return {
            **whole(self, views, queries),
            "pixel": lambda: torch.tensor(float("nan"), requires_grad=True),
        }

    monkeypatch.setattr(FsrtReenactmentTask, "loss_terms", step)
    with pytest.raises(
        FloatingPointError, match=r"step 1: the loss is nan \(pixel nan.*\); clips with it: id0#rec0"
    ):
        lab.run(lab.context("warmup"))


def test_a_misspelt_loss_stops_at_the_first_step(lab):
    lab.keypoints()
    with pytest.raises(InvalidSettings, match=r"weighs losses \['pixle'\].*'pixel', 'variance'"):
        lab.run(lab.context("warmup", losses={"pixle": Loss(1.0)}))


def test_a_phase_without_its_start_is_refused(lab):
    lab.keypoints()
    state, about = checkpoints.load_checkpoint(lab.inputs["train.fsrt.keypoints"].path("model.safetensors"))
    state.pop("kp_detector.kp.bias")
    checkpoints.save_checkpoint(lab.inputs["train.fsrt.keypoints"].folder / "model.safetensors", state, about)
    with pytest.raises(InvalidSettings, match=r"cannot start from keypoints: .* \['kp_detector'\]"):
        lab.run(lab.context("warmup"))


def test_clips_without_landmarks_and_test_identities_are_not_trained_on(lab, family):
    from pipelines.train.launch import open_training_tables

    lost = family.keys[0]
    some = type(family)({key: sample for key, sample in family.samples.items() if key != lost})
    lab.inputs["keypoints"] = replace(lab.inputs["keypoints"], opened=some)
    context = lab.context("warmup")
    train, held_out = open_training_tables(
        context, {"clips": {"clips": ("frames",), "keypoints": ("landmarks",)}}
    )
    assert held_out is not None
    assert {"data.train.identities": 2, "data.train.clips": 3, "data.train.missing.keypoints": 1} in (
        context.seen["params"]
    )
    trained = {key for keys in train["clips"].identities for key in keys}
    assert trained == {key for key in family.keys if key.startswith(("id0", "id1")) and key != lost}
    assert {key[:3] for keys in held_out["clips"].identities for key in keys} == {"id2"}


def test_clips_that_a_view_lacks_are_counted(lab, family):
    """The view's own list does not name them; that of the clips does."""
    from pipelines.train.launch import open_training_tables

    lost = family.keys[0]
    geometry = {"affine": np.zeros((6, 2, 3)), "frame_at": np.arange(6)}
    view = {key: sample | geometry for key, sample in family.samples.items() if key != lost}
    lab.inputs["views.vox_max"] = replace(lab.inputs["clips"], opened=type(family)(view))
    context = lab.context("warmup")
    reads = {"clips": ("clip",), "views.vox_max": ("frames", "affine", "frame_at"),
             "keypoints": ("landmarks",)}  # fmt: skip
    train, _ = open_training_tables(context, {"clips": reads})
    assert lost not in train["clips"].keys
    assert {"data.train.identities": 2, "data.train.clips": 3, "data.train.missing.views.vox_max": 1} in (
        context.seen["params"]
    )


def test_clips_with_fewer_pixels_than_the_phase_can_use_are_told_of(lab, family):
    """Squares of 40, 80, ... px in the recording, on clips of 64 px."""
    from pipelines.train.launch import open_training_tables

    context = lab.context("warmup")
    tables = {"clips": {"clips": ("frames", "clip"), "keypoints": ("landmarks",)}}
    open_training_tables(context, tables, (), {16: "pictures blur", 64: "crops blur", 128: "all blurs"})
    told = {name: value for values in context.seen["params"] for name, value in values.items()}
    below = {side: told[f"data.train.below_{side}px"] for side in (16, 64, 128)}
    assert below == {16: "0 of 4", 64: "1 of 4", 128: "4 of 4"}
    assert told["data.test.below_64px"] == "0 of 1"
    assert (None, {"data/train_share_below_64px": 0.25}) in context.seen["metrics"]
    assert [text.partition(";")[0] for text in context.seen["warnings"]] == [
        "1 of 4 training clips looked at show fewer than 64 px of their recording: crops blur",
        "4 of 4 training clips looked at show fewer than 128 px of their recording: all blurs",
    ]


def test_clips_without_sound_are_counted_where_it_is_heard(lab, family):
    from pipelines.train.launch import open_training_tables

    for i, (key, sample) in enumerate(family.samples.items()):
        family.samples[key] = sample | {"clip": {"has_sound": i != 1}, "speech": np.zeros((6, 5))}
    lab.inputs["speech"] = lab.inputs["clips"]
    context = lab.context("warmup")
    open_training_tables(context, {"clips": {"clips": ("frames", "clip"), "speech": ("speech",)}})
    told = {name: value for values in context.seen["params"] for name, value in values.items()}
    assert (told["data.train.without_sound"], told["data.test.without_sound"]) == ("1 of 4", "0 of 1")


def test_a_cancelled_run_stops_at_a_step_and_resumes(lab, monkeypatch):
    lab.keypoints()
    context = lab.context("warmup", scratch="cancelled", steps=400, every=1000)
    context.stop_at = 2
    monkeypatch.setattr(metric_log, "FLUSH_SECONDS", 0.0)
    lab.run(context)
    assert list(context.out.iterdir()) == []  # nothing published
    reached = StepCheckpoints(context.scratch).latest_step_up_to(400)
    assert reached is not None
    assert reached < 400
    again = lab.context("warmup", scratch="cancelled", steps=reached + 2, every=1000)
    lab.run(again)
    assert max(line["step"] for line in lines(again)) == reached + 2
