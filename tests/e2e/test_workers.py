"""How many workers train changes no result: Ray Train's processes over gloo."""

import json
import shutil
from pathlib import Path

import pytest

MICRO = str(Path(__file__).with_name("micro.yaml"))
PHASES = ("warmup", "perceptual", "adversarial")
SETS = ("fsrt.phases.warmup.steps=20", *(f"fsrt.phases.{phase}.chunk=2" for phase in PHASES))


def losses(checkout, phase: str) -> list[float]:
    """Of the phase that was trained last in this store."""
    logs = (checkout.store / "whole" / f"train.fsrt.{phase}").rglob("metrics.jsonl")
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return [line["loss/total"] for line in lines if "loss/total" in line]


@pytest.mark.slow
def test_two_workers_and_one_have_the_same_loss_curves(micro, tmp_path):
    curves = {}
    for workers in (1, 2):
        checkout = type(micro)(tmp_path / str(workers))
        shutil.copytree(micro.store, checkout.store, copy_function=shutil.copy2)
        sets = (*SETS, f"runtime.train_workers={workers}", "runtime.train_cpus=1")
        argv = [argument for text in sets for argument in ("--set", text)]
        done = checkout.call("run", MICRO, "--only", "train.fsrt.adversarial", *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        curves[workers] = {phase: losses(checkout, phase) for phase in PHASES}
    assert [len(curves[1][phase]) for phase in PHASES] == [20, 6, 6]
    for phase in PHASES:
        assert curves[2][phase] == pytest.approx(curves[1][phase], rel=1e-4), phase
