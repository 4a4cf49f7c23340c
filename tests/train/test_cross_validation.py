"""Pairs of two people in validation: a toy whose grey is the source's, moved towards the driving frame's."""

import io
import json

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from models.api import BestCriterion
from models.errors import InvalidSettings
from models.task import CrossReenactmentTask, StatelessTask, ValidationOutput
from pipelines.dataset.sampler import SplitClips
from pipelines.train.cross_validation import why_no_cross_pairs
from pipelines.train.launch import prepare_training_work_folder, publish_checkpoint, tell_cross_pairs
from pipelines.train.worker import run_training
from storage import checkpoints
from tests.train import toy
from tests.train.conftest import FakeContext
from tests.train.stand_in_faces import grey_faces

SOURCE, DRIVING = 0.8, 0.35


class CrossPainter(toy.Painter):
    """A pair's output is its net's grey, which passes the driving frame's on its way."""

    def sample_cross(self, rng, source, driving):
        return {"greys": np.float32([SOURCE, DRIVING]) + 0.01 * np.float32(rng.random(2))}

    def cross_validation_step(self, batch):
        source, driving = batch["greys"].T
        output = toy.painted(self.grey.expand_as(source))
        row = np.concatenate([toy.painted(source), output], axis=2)
        return ValidationOutput(
            row=row, titles=("source", "output"), source=row[:, :, : toy.SIDE],
            driving=toy.painted(driving), output=output,
        )  # fmt: skip


def best_by(figure, **more):
    return replace(toy.PHASE, best=BestCriterion(figure=figure, highest=False), validate_every=1, **more)


def run(folder, phase, build=CrossPainter, **more):
    """-> the context of a phase that has run, and its metric lines."""
    (folder / "out").mkdir(parents=True)
    context = FakeContext("train.painter.toy", None, {}, folder / "out", str(folder / "work"))
    prepare_training_work_folder(context, "painter", phase)  # pyright: ignore[reportArgumentType]
    job = toy.job(folder / "work", phase, build=build, features=grey_faces, **more)
    run_training(job, torch.device("cpu"))
    publish_checkpoint(context, job)  # pyright: ignore[reportArgumentType]
    lines = [json.loads(line) for line in (context.out / "metrics.jsonl").read_text().splitlines()]
    return context, lines


def test_figures_and_a_grid_of_pairs_stand_beside_those_of_samples(tmp_path):
    context, lines = run(tmp_path, replace(toy.PHASE, validation_cross_samples=3))
    last = lines[-1]
    assert last["train/cross/pose_mesh_frames"] == 3
    assert last["train/cross/copy_pose_mesh"] > last["train/cross/pose_mesh"]
    assert {"train/psnr", "train/cross/id_l2_dlib", "train/cross/driving_id_l2_dlib"} <= last.keys()
    grid = np.asarray(Image.open(io.BytesIO((context.out / "cross.png").read_bytes())))
    assert grid.shape[1] == 2 * 128 + 12


def test_pairs_change_nothing_of_what_is_learnt(tmp_path):
    """Nor of what validation says of samples: they only look."""
    (with_pairs, lines), (without, others) = (
        run(tmp_path / str(n), replace(toy.PHASE, validation_cross_samples=n)) for n in (4, 0)
    )
    for name in ("model.safetensors", "best.safetensors", "samples.png"):
        assert (with_pairs.out / name).read_bytes() == (without.out / name).read_bytes()
    plain = [{name: value for name, value in line.items() if "/cross/" not in name} for line in lines]
    assert plain == others
    assert not (without.out / "cross.png").exists()


def test_the_best_weights_follow_a_figure_of_pairs(tmp_path):
    context, lines = run(tmp_path, best_by("cross/pose_mesh"))
    found = {line["step"]: line["train/cross/pose_mesh"] for line in lines if "train/cross/pose_mesh" in line}
    _, about = checkpoints.load_checkpoint(context.out / "best.safetensors")
    step = min(found, key=lambda step: found[step])
    assert about["step"] == step < 12
    assert {"final/best_cross/pose_mesh": found[step], "final/best_step": step} in [
        values for _, values in context.seen["metrics"]
    ]


def test_a_validation_whose_outputs_show_no_face_is_never_the_best(tmp_path):
    """The net begins black, where the stand-in sees nobody; then it is at its nearest to black."""

    class Faceless(CrossPainter):
        def cross_validation_step(self, batch):
            look = super().cross_validation_step(batch)
            return ValidationOutput(row=look.row, source=look.source, driving=look.driving,
                                    output=look.output * (self.grey.item() > 0.25))  # fmt: skip

    context, lines = run(tmp_path, best_by("cross/pose_mesh"), build=Faceless)
    first = next(line for line in lines if "train/cross/pose_mesh_frames" in line)
    assert (first["train/cross/pose_mesh_frames"], first["train/cross/pose_mesh_missing"]) == (0, 8)
    _, about = checkpoints.load_checkpoint(context.out / "best.safetensors")
    assert about["step"] > first["step"]


def test_best_by_a_figure_of_pairs_without_two_people_says_what_it_takes(tmp_path):
    alone = {"clips": SplitClips(toy.Frames(), {}, (("a", "b"),))}  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidSettings, match=r"'cross/pose_mesh'; validation has .*clips of two people"):
        run(tmp_path, best_by("cross/pose_mesh"), held_out=alone)


def test_held_out_clips_of_one_person_give_no_pairs_and_that_is_said_once(tmp_path):
    alone = {"clips": SplitClips(toy.Frames(), {}, (("a", "b"),))}  # pyright: ignore[reportArgumentType]
    context, lines = run(tmp_path, toy.PHASE, held_out=alone)
    assert not [name for line in lines for name in line if "/cross/" in name]
    assert not (context.out / "cross.png").exists()
    job = toy.job(tmp_path / "work", held_out=alone)
    tell_cross_pairs(context, job, "tests.train.test_cross_validation:CrossPainter")  # pyright: ignore
    none = "none: 1 identity to pair in the held-out split"
    assert context.seen["params"] == [{"validation.cross": none}]
    assert context.seen["progress"][-1][2] == f"validation shows no cross-reenactment, {none}"


def test_best_by_a_figure_of_pairs_that_there_cannot_be_is_refused_before_training(tmp_path):
    """A first validation may be hours away."""
    alone = {"clips": SplitClips(toy.Frames(), {}, (("a", "b"),))}  # pyright: ignore[reportArgumentType]
    context = FakeContext("train.painter.toy", None, {}, tmp_path, str(tmp_path))
    job, cross = toy.job(tmp_path, best_by("cross/pose_mesh")), f"{__name__}:CrossPainter"
    for task, held_out, problem in (
        (cross, alone, "1 identity to pair in the held-out split"),
        ("tests.train.toy:Painter", None, "this phase cannot show another's motion"),
    ):
        with pytest.raises(InvalidSettings, match=rf"'cross/pose_mesh' is of pairs.*: {problem}; name a"):
            tell_cross_pairs(context, replace(job, held_out=held_out), task)  # pyright: ignore
    tell_cross_pairs(context, job, cross)  # pyright: ignore[reportArgumentType]


def test_a_phase_of_which_no_validation_could_choose_warns_and_keeps_no_best_weights(tmp_path):
    class Faceless(CrossPainter):
        def cross_validation_step(self, batch):
            look = super().cross_validation_step(batch)
            return ValidationOutput(row=look.row, source=look.source, driving=look.driving,
                                    output=np.zeros_like(look.driving))  # fmt: skip

    context, _ = run(tmp_path / "faceless", best_by("cross/pose_mesh"), build=Faceless)
    assert not (context.out / "best.safetensors").exists()
    (warning,) = context.seen["warnings"]
    assert "no best weights are kept" in warning
    assert "choose by cross/pose_mesh" in warning
    assert run(tmp_path / "usual", toy.PHASE)[0].seen["warnings"] == []


def test_how_many_pairs_there_are_is_said_of_tasks_that_have_them(tmp_path):
    context = FakeContext("train.painter.toy", None, {}, tmp_path, str(tmp_path))
    for task in ("tests.train.toy:Painter", "tests.train.test_cross_validation:CrossPainter"):
        tell_cross_pairs(context, toy.job(tmp_path), task)  # pyright: ignore[reportArgumentType]
    assert context.seen["params"] == [{"validation.cross": "8 pairs of training clips of two people"}]


def test_a_task_without_pairs_is_not_asked_for_any(tmp_path):
    assert not isinstance(StatelessTask(), CrossReenactmentTask)
    context, lines = run(tmp_path, toy.PHASE, build=toy.Painter)
    assert not [name for line in lines for name in line if "/cross/" in name]
    assert not (context.out / "cross.png").exists()
    assert why_no_cross_pairs({}) == "no clips"
