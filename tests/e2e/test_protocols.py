"""Evaluation beyond the clips that a model was trained beside: other corpora, and released weights alone."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from msgspec import to_builtins

MICRO = str(Path(__file__).with_name("micro.yaml"))
PORTRAITS = str(Path(__file__).with_name("portraits.yaml"))
TRAINING = ("train.headgan.adversarial", "train.headgan.decay")


def render(person: int, file: Path) -> None:
    """A second and a half of a rendered head that the run does not train on."""
    from models.perception.head.default_head import get_analytic_head
    from pipelines.preprocess.sources import synthetic

    settings = synthetic.SyntheticConfig(identities=12, clips_per_identity=1, seconds=1.6)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(
        synthetic.render_synthetic_recording(
            synthetic.list_recordings(settings)[person], get_analytic_head()
        )[0]
    )


def take_frame(video: Path, picture: Path) -> None:
    import av

    with av.open(str(video)) as container:
        picture.parent.mkdir(parents=True, exist_ok=True)
        next(container.decode(video=0)).to_image().save(picture)


@pytest.fixture
def folders(tmp_path):
    """Three portraits, and three videos of other people."""
    for place, person in enumerate(range(5, 11)):
        video = tmp_path / ("talks" if place % 2 else "left") / f"person{person}.mp4"
        render(person, video)
        if not place % 2:
            take_frame(video, tmp_path / "faces" / f"person{person}.png")
    return {name: tmp_path / name for name in ("faces", "talks")}


def stored(home, stage: str, name: str) -> Path:
    """A file of a whole node's only artifact of one kind."""
    return max((home.store / "whole" / stage).glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)


@pytest.mark.slow
def test_still_portraits_are_driven_by_videos_of_a_folder_with_a_model_of_rendered_heads(copy, folders):
    sets = [f"data.faces.pictures.path={folders['faces']}", f"data.talks.folder.path={folders['talks']}"]
    args = [PORTRAITS, *(part for text in sets for part in ("--set", text))]
    plan = copy.call("plan", *args)
    rows = {line.split()[0]: line.split()[1] for line in plan.stdout.splitlines()[1:] if line[:1].strip()}
    assert {rows[node] for node in TRAINING} == {"cached"}, plan.stdout  # names of corpora are labels

    done = copy.call("run", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    pairs = pq.read_table(stored(copy, "pairs", "pairs.parquet")).to_pylist()
    assert len(pairs) >= 2
    assert all(pair["source_clip"].endswith("#000000#000001") for pair in pairs)
    assert all(len(pair["driving_frames"]) == 6 for pair in pairs)
    report = json.loads(stored(copy, "report", "report.json").read_text())["protocols"]["portraits"]
    assert report["protocol"].startswith("cross_reenactment; absolute motion; 64 px")
    assert "nothing to do" in copy.call("run", *args).stdout
    trace = copy.call("trace", "--recording", "person5", "--store", str(copy.store)).stdout
    assert "generate.headgan" in trace
    assert "report" in trace


@pytest.mark.slow
def test_released_weights_are_scored_without_a_training_node(copy, tmp_path):
    """A net of random weights, in the files and under the names of the authors' layout."""
    import torch

    from models.fsrt.network import Fsrt
    from models.fsrt.released import export_released_format
    from models.weights import find_third_party_weights
    from pipelines.config import load_config
    from storage.files import Store
    from storage.weight_files import import_weights

    torch.manual_seed(0)
    net = load_config(Path(MICRO)).config.fsrt.net
    about = {"model": "fsrt", "phase": "adversarial", "architecture": to_builtins(net)}
    detector, renderer = export_released_format(Fsrt(net).state_dict(), about, tmp_path)
    store = Store(str(copy.store))
    for name, file in (("fsrt_kp", detector), ("fsrt_vox", renderer)):
        # Not by the command, which takes nets of the published size alone.
        import_weights(store, find_third_party_weights(name), file, accept=True)

    args = [MICRO, "--set", "models=[fsrt]", "--set", "fsrt.weights=fsrt_vox"]
    assert "train." not in copy.call("plan", *args).stdout
    done = copy.call("run", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads(stored(copy, "score.fsrt", "metrics.json").read_text())
    assert {score["name"] for score in scores if score["value"] is not None} >= {"l1", "psnr_frame", "ssim"}
    assert {score["kind"] for score in scores} == {"released"}
    used = {sha for score in scores if score["value"] is not None for sha in score["weights"].values()}
    assert {len(sha) for sha in used} == {64}

    weights = copy.store / "weights" / "fsrt_vox.safetensors"
    bytes_before = weights.read_bytes()
    weights.write_bytes(bytes_before[:-1] + b"?")
    planned = copy.call("plan", *args)
    assert "weights fsrt_vox" in planned.stdout
    assert "damaged since its import" in planned.stderr
    assert copy.call("run", *args).returncode == 2
    verified = copy.call("weights", "verify", "--store", str(copy.store))
    assert verified.returncode == 1
    assert re.search(r"^fsrt_vox +sha256 ", verified.stdout, re.M)
    weights.write_bytes(bytes_before)
    assert "nothing to do" in copy.call("plan", *args).stdout


def test_a_fit_of_another_name_in_another_run_file_computes_nothing(micro, tmp_path):
    text = Path(MICRO).read_text().replace("headgan:\n", "headgan:\n  fits: head\n")
    text = text.replace("fits: {main: {", "keypoints: {marks: {}}\nfits: {head: {keypoints: marks, ")
    text = text.replace("fsrt:\n", "fsrt:\n  keypoints: marks\n", 1)
    (tmp_path / "other.yaml").write_text(text)
    done = micro.call("plan", str(tmp_path / "other.yaml"), "--check")
    assert "fit3dmm.head " in done.stdout
    assert done.returncode == 0, done.stdout
