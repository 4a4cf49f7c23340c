"""StyleGAN2-ADA's and e4e's steps as updates: killed and resumed, and shared by workers, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from pipelines.train import loop
from pipelines.train.metric_log import read_metrics
from pipelines.train.worker import run_training
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from tests.train.gan_toys import E4E, STYLEGAN, job

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
PHASES = {phase.name: phase for phase in (STYLEGAN, E4E)}


def run(folder: Path, name: str) -> bytes:
    """-> the checkpoint after the last step."""
    made = job(folder, PHASES[name])
    run_training(made, CPU)
    return (Path(made.scratch) / StepCheckpoints.file_name(made.phase.steps)).read_bytes()


@pytest.mark.parametrize("name", PHASES)
def test_a_killed_run_resumes_step_exactly(tmp_path, monkeypatch, name):
    straight = run(tmp_path / "straight", name)
    real = loop.train_step

    def killed(*given):
        real(*given)
        if given[4] == 13:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", killed)
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path / "again", name)
    assert run(tmp_path / "again", name) == straight
    logs = [list(read_metrics(Store(str(tmp_path / folder / name)))) for folder in ("straight", "again")]
    assert [line["values"] for line in logs[0]] == [line["values"] for line in logs[1]]


PROGRAM = """
import sys
from pathlib import Path
import torch.distributed as dist
from tests.train.test_gan_steps import PHASES, run

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
for name in PHASES:
    run(Path(sys.argv[3]), name)
"""


@pytest.mark.slow
def test_two_workers_end_at_the_bits_of_one(tmp_path):
    argv, folder = [sys.executable, "-c", PROGRAM, str(tmp_path / "meet")], str(tmp_path / "two")
    both = [
        subprocess.Popen([*argv, str(rank), folder], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    alone = {name: run(tmp_path / "one", name) for name in PHASES}
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for name, phase in PHASES.items():
        file = tmp_path / "two" / name / StepCheckpoints.file_name(phase.steps)
        assert file.read_bytes() == alone[name], name


def test_regularisers_move_at_their_interval_alone(tmp_path):
    run(tmp_path, "stylegan")
    moves = {"path_length": 34 // 4, "r1": 34 // 16}
    tensors, _ = StepCheckpoints(str(tmp_path / "stylegan")).load(34)
    steps = {
        name: int(tensors[f"optim.{name}.step"]) for name in ("generator.weight", "discriminator.0.bias")
    }
    assert steps == {"generator.weight": 34 + moves["path_length"], "discriminator.0.bias": 34 + moves["r1"]}


def test_noise_differs_between_updates_chunks_and_steps():
    from pipelines.train.updates import seed_train_step

    seeds = [
        seed_train_step(0, step, chunk, update, CPU).generator.initial_seed()
        for step in (1, 2)
        for chunk in (0, 1)
        for update in ("", "discriminator")
    ]
    assert len(set(seeds)) == len(seeds)


def test_parts_that_have_not_joined_yet_stay_as_they_were(tmp_path):
    made = replace(job(tmp_path, replace(E4E, steps=4, validate_every=4)))
    run_training(made, CPU)
    early, _ = StepCheckpoints(made.scratch).load(4)
    assert not any("deltas" in name for name in early if name.startswith("optim."))
    run(tmp_path, "e4e")
    late, _ = StepCheckpoints(made.scratch).load(20)
    deltas = [name for name in early if name.startswith("net.encoder.deltas")]
    assert all(not torch.equal(early[name], late[name]) for name in deltas)


def test_the_best_is_of_the_lowest_figure_where_the_phase_says_so(tmp_path):
    run(tmp_path, "stylegan")
    _, about = StepCheckpoints(str(tmp_path / "stylegan")).load(34)
    lines = list(read_metrics(Store(str(tmp_path / "stylegan"))))
    gaps = {
        line["step"]: line["values"]["train/mean_gap"] for line in lines if "train/mean_gap" in line["values"]
    }
    assert about["best"] == [min(gaps.values()), min(gaps, key=lambda step: gaps[step])]
