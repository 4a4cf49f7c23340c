"""Code edited while a run goes on: what is published is of the code it began with, under that code's key."""

import shutil
from pathlib import Path

import pytest

MICRO = str(Path(__file__).with_name("micro.yaml"))
NODE = "train.fsrt.keypoints"
TASK = "models/fsrt/detector_task.py"


def weights(store: Path) -> dict[str, bytes]:
    """Key -> the published net."""
    return {
        path.parent.name: path.read_bytes() for path in (store / "whole" / NODE).glob("*/model.safetensors")
    }


@pytest.mark.slow
def test_an_edit_during_a_run_is_of_the_next_run(micro, tmp_path):
    expected = weights(micro.store)
    shutil.copytree(micro.store, tmp_path / "store", copy_function=shutil.copy2)
    shutil.rmtree(tmp_path / "store/whole" / NODE)
    shutil.rmtree(tmp_path / "store/runs")
    mine = type(micro)(tmp_path)
    mine.own_source()

    process = mine.start("run", MICRO, "--only", NODE, "--set", "runtime.train_workers=1")
    mine.wait_for(lambda: any(mine.store.glob("runs/*/events-*")), process)
    mine.edit(TASK, '"""', '"""Edited. ')
    mine.edit(TASK, "position_loss, keypoints,", "position_loss, 2 * keypoints,")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert f"note: edited meanwhile: {TASK};" in said
    assert weights(mine.store) == expected

    again = mine.call("run", MICRO, "--only", NODE)
    assert again.returncode == 0, again.stderr
    assert "models.fsrt.detector_task.KeypointTask" in again.stdout
    found = weights(mine.store)
    assert len(found) == 2
    assert len(set(found.values())) == 2
    assert expected.items() <= found.items()
