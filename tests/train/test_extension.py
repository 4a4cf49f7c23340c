"""More steps than before: the bytes published are those of one training in one go, whatever was logged."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipelines.train import state
from pipelines.train.launch import prepare_training_work_folder, publish_checkpoint
from pipelines.train.worker import run_training
from storage import checkpoints
from storage.errors import DamagedFile
from tests.train import toy
from tests.train.conftest import FakeArtifact, FakeContext

CONTENT = ("state.safetensors", "model.safetensors", "best.safetensors")


def run(folder: Path, steps: int, validate_every: int, previous: FakeArtifact | None = None, **runtime: int):
    """A toy phase of so many steps, in a folder of its own -> its artifact."""
    folder.mkdir()
    (folder / "out").mkdir()
    phase = replace(toy.PHASE, steps=steps, validate_every=validate_every)
    context = FakeContext("train.painter.toy", None, {}, folder / "out", str(folder / "work"))
    context.previous = previous
    prepare_training_work_folder(context, "painter", phase)  # pyright: ignore[reportArgumentType]
    job = toy.job(folder / "work", phase, **runtime)
    run_training(job, torch.device("cpu"))
    publish_checkpoint(context, job)  # pyright: ignore[reportArgumentType]
    return FakeArtifact(folder / "out", steps=steps)


def content(artifact: FakeArtifact) -> dict[str, bytes]:
    files = {path.name: path for path in artifact.folder.iterdir()}
    return {name: files[name].read_bytes() for name in CONTENT if name in files}


@settings(max_examples=8, deadline=None)
@given(
    k=st.integers(1, 11), validate_every=st.integers(1, 13),
    runtimes=st.tuples(*[st.fixed_dictionaries(
        {"log_every": st.integers(1, 13), "checkpoint_every": st.integers(1, 13)})] * 3),
)  # fmt: skip
@example(k=4, validate_every=3, runtimes=({}, {}, {}))  # step 4 is the best of 4, but not one of every third
def test_k_steps_and_then_n_publish_the_bytes_of_n_steps(k, validate_every, runtimes):
    with tempfile.TemporaryDirectory() as folder:
        n = 12
        whole = run(Path(folder) / "whole", n, validate_every, **runtimes[0])
        short = run(Path(folder) / "short", k, validate_every, **runtimes[1])
        longer = run(Path(folder) / "longer", n, validate_every, short, **runtimes[2])
        assert content(longer) == content(whole)
        assert ("best.safetensors" in content(whole)) == (validate_every <= n)


def test_the_toy_is_at_its_best_before_its_end(tmp_path):
    """Or the property above would say little."""
    _, about = checkpoints.load_checkpoint(run(tmp_path / "run", 12, 1).path("state.safetensors"))
    assert about["best"][1] < 12


def test_an_older_best_beside_the_state_of_more_steps_is_damage(tmp_path):
    short = run(tmp_path / "short", 6, 3)
    stale = run(tmp_path / "stale", 3, 3).path("best.safetensors")
    assert checkpoints.load_checkpoint(short.path("state.safetensors"))[1]["best"][1] == 6
    stale.replace(short.folder / "best.safetensors")
    with pytest.raises(DamagedFile, match="holds weights of step 3, its record says 6"):
        run(tmp_path / "longer", 12, 3, short)


def test_an_older_best_in_the_work_folder_is_not_published(tmp_path):
    phase = replace(toy.PHASE, steps=6)
    context = FakeContext("train.painter.toy", None, {}, tmp_path / "out", str(tmp_path / "work"))
    run_training(job := toy.job(tmp_path / "work", phase), torch.device("cpu"))
    (tmp_path / "work" / state.best_file_name(3)).replace(tmp_path / "work" / state.best_file_name(6))
    (tmp_path / "out").mkdir()
    with pytest.raises(DamagedFile, match="holds weights of step 3"):
        publish_checkpoint(context, job)  # pyright: ignore[reportArgumentType]


def test_checkpoints_beyond_the_steps_asked_for_are_not_used(tmp_path):
    device, out = torch.device("cpu"), tmp_path / "out"
    run_training(toy.job(tmp_path / "work"), device)
    phase = replace(toy.PHASE, steps=6)
    run_training(job := toy.job(tmp_path / "work", phase), device)
    out.mkdir()
    context = FakeContext("train.painter.toy", None, {}, out, str(tmp_path / "work"))
    publish_checkpoint(context, job)  # pyright: ignore[reportArgumentType]
    assert content(FakeArtifact(out)) == content(run(tmp_path / "alone", 6, 3))
