"""Edits of a finished run's code that change no number, and one that could but is shown not to."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.runs.accept import GOLDENS_FOLDER
from pipelines.runs.snapshot import CODE_ROOT

MICRO = str(Path(__file__).with_name("micro.yaml"))
USES = (
    "pipelines/train/state.py",
    "ParameterEma(self.parameters, phase.ema_parts)\n        self.steps_before",
    "ParameterEma(self.parameters, phase.ema_parts if phase.extra >= 0 else {})\n        self.steps_before",
)


def git(folder: Path, *arguments: str) -> None:
    mine = ("-c", "user.name=tester", "-c", "user.email=tester@example.com")
    subprocess.run(["git", *mine, *arguments], cwd=folder, check=True, capture_output=True)


def add_field(checkout) -> None:
    """A setting of phases that says what was done before there was one."""
    last = "    validation_samples: int = 16\n"
    checkout.edit("models/api.py", last, f"{last}    extra: float = 0.0\n")
    checkout.edit("models/api.py", '{"seed": None,', '{"seed": None, "extra": 0.0,')


@pytest.fixture
def edited(copy):
    """A finished run, and a checkout of one commit to edit."""
    copy.own_source()
    shutil.copytree(CODE_ROOT / GOLDENS_FOLDER, copy.source / GOLDENS_FOLDER)
    git(copy.source, "init", "-q")
    git(copy.source, "add", ".")
    git(copy.source, "commit", "-q", "-m", "as it ran")
    return copy


def test_a_moved_file_a_new_field_and_a_reworded_message_make_nothing_stale(edited):
    fsrt = edited.source / "models/fsrt"
    (edited.source / "models/moved").mkdir()
    (fsrt / "losses.py").rename(edited.source / "models/moved/losses.py")
    edited.edit(
        "models/fsrt/image_task.py", "from models.fsrt import losses", "from models.moved import losses"
    )
    for name in ("task", "detector_task"):
        moved = "from models.fsrt import augment, visualize\nfrom models.moved import losses\n"
        edited.edit(f"models/fsrt/{name}.py", "from models.fsrt import augment, losses, visualize\n", moved)
    add_field(edited)
    edited.edit("pipelines/train/launch.py", "training workers need", "workers of a training need")
    edited.edit("models/provenance.py", "fine-tuned", "trained further from")
    edited.edit(
        "pipelines/runs/progress.py",
        "PROGRESS_LOG_INTERVAL_SECONDS = 10.0",
        "PROGRESS_LOG_INTERVAL_SECONDS = 20.0",
    )
    assert set(edited.states().values()) == {"cached"}


def test_a_caption_reruns_the_report_alone(edited):
    edited.edit("pipelines/eval/captions.py", "driving = truth", "driving, which is the truth")
    assert {name for name, state in edited.states().items() if state != "cached"} == {"report"}


def test_code_that_reads_a_new_field_is_accepted_once_for_every_phase(edited):
    add_field(edited)
    edited.edit(*USES)
    stale = {name for name, state in edited.states().items() if state == "stale"}
    assert stale == {name for name in edited.states() if name.startswith("train.")}
    done = edited.call("accept", MICRO, "--since", "HEAD", "--reason", "off by default")
    assert done.returncode == 0, done.stderr
    assert all(f"{name}: outputs of" in done.stdout for name in stale)
    assert "pipelines.train.state.TrainState" in done.stdout
    assert set(edited.states().values()) == {"cached"}


def test_nothing_is_accepted_where_a_golden_changed(edited):
    edited.edit(*USES)
    golden = edited.source / GOLDENS_FOLDER / "fsrt.json"
    golden.write_text(golden.read_text() + "\n")
    done = edited.call("accept", MICRO, "--since", "HEAD", "--reason", "off by default")
    assert done.returncode == 2
    assert "fsrt.json changed since" in done.stderr


def test_a_commit_that_is_none_is_one_line(edited):
    done = edited.call("accept", MICRO, "--since", "--output=x", "--reason", "none")
    assert done.returncode == 2
    assert "no commit '--output=x'" in done.stderr
