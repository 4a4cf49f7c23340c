"""From rendered videos to a scored run, and rerunning only what changed: what a user sees."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data

from models.provenance import ProvenanceKind, provenance_kind
from models.weights import THIRD_PARTY_WEIGHTS
from storage import checkpoints

MICRO = str(Path(__file__).with_name("micro.yaml"))
KEYED = ("download", "clips", "keypoints", "fit3dmm", "speech")


def scored(model: str) -> set[str]:
    """The nodes that follow a model's last phase."""
    seen = {f"features.{model}.self.{name}" for name in ("landmarks.dlib68", "imagenet.efficientnet_lite0")}
    return {f"{stage}.{model}.self" for stage in ("generate", "samples", "score")} | seen | {"report"}


AFTER_TRAINING = scored("fsrt")
AFTER_WARMUP = {"train.fsrt.perceptual", "train.fsrt.adversarial", *AFTER_TRAINING}


def test_the_run_ends_with_scores_a_report_and_how_to_open_mlflow(micro):
    out = (micro.home / "out.txt").read_text()
    heads = next(line for line in out.splitlines() if line.startswith("metric"))
    models = ["fsrt (ours)", "headgan (ours)"]
    assert re.split(r" {2,}", heads) == ["metric", *models, "copy-source", "warp", "codec"]
    assert "psnr_frame" in out
    assert re.search(r"fd_efflite0_b15: \* the losses of fsrt.* use efficientnet_lite0 too", out)
    assert "reenact ui" in out
    report = next(line.split()[1] for line in out.splitlines() if line.startswith("report  /"))
    assert "<html" in Path(report).read_text()[:200].lower()


def test_labels_of_records_come_from_a_closed_set_and_none_is_random(micro):
    (report,) = (micro.home / "store").glob("whole/report/*/report.json")
    (found,) = json.loads(report.read_text())["protocols"].values()
    labels = {tuple(label) for record in found["own"] for label in record["provenance"].items()}
    assert labels == {
        ("kp_detector", "distilled"), ("perceptual_net", "efficientnet_lite0"), ("tokens", "none"),
        ("head", "analytic_head"), ("face_points", "mesh468"), ("landmarks", "mesh468_iris"),
    }  # fmt: skip


def test_labels_of_records_and_checkpoints_are_known_and_none_tells_of_random_weights(micro):
    whole = micro.store / "whole"
    records = [r for path in whole.glob("score.*/*/metrics.json") for r in json.loads(path.read_text())]
    (report,) = whole.glob("report/*/report.json")
    for one in json.loads(report.read_text())["protocols"].values():
        records += [*one["own"], *one["shared"]]
    trained = [checkpoints.load_checkpoint(path)[1] for path in whole.glob("train.*/*/model.safetensors")]
    labels = {what for one in (*records, *trained) for what in one["provenance"].values()}
    assert {provenance_kind(what) for what in labels} <= {
        ProvenanceKind.DISTILLED, ProvenanceKind.OTHER_NET, ProvenanceKind.TOKENS, ProvenanceKind.UNUSED,
        ProvenanceKind.OTHER_HEAD, ProvenanceKind.OTHER_POINTS,
    }  # fmt: skip
    assert {"distilled", "efficientnet_lite0"} <= labels
    assert {one for record in records for one in record["weights"]} <= set(THIRD_PARTY_WEIGHTS)
    assert {record["method"] for record in records} == {"fsrt", "headgan", "copy_source", "warp", "codec"}


def test_headgan_is_animated_with_the_fitter_that_it_was_trained_with(micro, tmp_path):
    """The micro run fits Algorithm 1 to dense points; a run file that says otherwise changes nothing."""
    (path,) = (micro.store / "whole").glob("train.headgan.decay/*/model.safetensors")
    about = checkpoints.load_checkpoint(path)[1]
    assert about["fit3dmm"]["backend"] == "algorithm1"
    assert (about["fit3dmm"]["points"], about["keypoints"]["landmarker"]) == ("dense", "mesh468_iris")
    Image.fromarray(data.astronaut()[:300, 80:400]).save(tmp_path / "face.png")
    out = tmp_path / "out.png"
    done = micro.call(
        "animate", str(tmp_path / "face.png"), "--frontal", "--out", str(out), "--run", MICRO,
        "--model", "headgan", "--set", "fits.main.alignments=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "with fit3dmm.alignments 5 (1 in the run): so are faces fitted here" in done.stderr + done.stdout
    assert "head: analytic_head" in Image.open(out).text["reenact.provenance"]
    assert "face_points: mesh468" in Image.open(out).text["reenact.provenance"]


def test_run_again_and_nothing_runs(micro):
    done = micro.call("run", MICRO)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert set(micro.states().values()) == {"cached"}


def test_plan_check_tells_work_by_its_exit_code(micro):
    assert micro.call("plan", MICRO, "--check").returncode == 0
    assert micro.call("plan", MICRO, "--check", "--set", "speech.main.mels=40").returncode == 10


def test_a_training_value_reruns_that_phase_and_what_follows(micro):
    states = micro.states("fsrt.phases.warmup.optimizers.g.lr=0.002")
    assert {n for n, s in states.items() if s != "cached"} == {"train.fsrt.warmup", *AFTER_WARMUP}
    plan = micro.ask("plan", MICRO, "--set", "fsrt.phases.warmup.optimizers.g.lr=0.002")
    assert "-> 0.002" in plan
    assert "config fsrt.phases.warmup.optimizers.g.lr" in plan


def test_a_weight_of_the_last_phase_reruns_that_phase_and_what_follows(micro):
    states = micro.states("fsrt.phases.adversarial.updates.generator.losses.gan.weight=0.002")
    assert {n for n, s in states.items() if s != "cached"} == {"train.fsrt.adversarial", *AFTER_TRAINING}


def test_a_weight_of_headgan_reruns_nothing_of_fsrt(micro):
    states = micro.states("headgan.phases.decay.updates.generator.losses.l1.weight=40")
    assert {n for n, s in states.items() if s != "cached"} == {
        "train.headgan.decay",
        *scored("headgan"),
    }


def test_an_interval_reruns_the_report_alone(micro):
    states = micro.states("report.resamples=60")
    assert {n for n, s in states.items() if s != "cached"} == {"report"}


def test_a_metric_less_scores_anew_and_generates_nothing(micro):
    states = micro.states("eval.metrics=[l1, akd_l1_dlib]")
    scores = {f"score.{method}.self" for method in ("fsrt", "headgan", "copy_source", "warp", "codec")}
    assert {n for n, s in states.items() if s != "cached"} == {*scores, "report"}


def test_another_size_generates_anew_and_trains_nothing(micro):
    states = micro.states("eval.protocols.self.size=32")
    assert {n.split(".")[0] for n, s in states.items() if s != "cached"} == {
        "pairs", "generate", "samples", "features", "score", "report",
    }  # fmt: skip


def test_a_model_less_generates_no_other_again_unless_the_pairs_change(micro):
    assert micro.states("models=[fsrt]")["pairs.self"] == "stale"  # it reads fewer families
    states = micro.states("models=[headgan]")
    assert {n for n, s in states.items() if s != "cached"} == {"report"}


def test_missing_weights_refuse_the_run_before_anything_runs(micro):
    done = micro.call("run", MICRO, "--set", "fsrt.perceptual_net=vgg19", "--set", "speech.main.mels=41")
    assert done.returncode == 2
    assert "weights vgg19 (perceptual losses) are missing: get vgg19-dcbb9e9d.pth" in done.stderr
    assert "> speech" not in done.stdout


def test_workers_that_cannot_share_a_phase_are_refused_before_anything_runs(micro):
    sets = ("runtime.train_workers=3", "fsrt.phases.adversarial.optimizers.g.lr=0.002", "speech.main.mels=42")
    done = micro.call("run", MICRO, *(a for text in sets for a in ("--set", text)))
    assert done.returncode == 2
    assert "a batch of 4 in chunks of 4 cannot be shared by 3 workers" in done.stderr
    assert "> speech" not in done.stdout


def test_a_speech_value_reruns_speech_and_who_hears_but_trains_no_fsrt(micro):
    states = micro.states("speech.main.mels=40")
    assert {n for n, s in states.items() if s == "stale"} == {
        "speech.main", "train.headgan.adversarial", "train.headgan.decay",
    }  # fmt: skip
    pending = {n for n, s in states.items() if s == "pending"}  # may cut off: by their content
    assert {"corpus", "pairs.self", "generate.headgan.self", "score.headgan.self", "report"} <= pending


def test_runtime_values_rerun_nothing(micro):
    assert set(micro.states("runtime.log_every=3", "runtime.cpus=1").values()) == {"cached"}


def test_a_comment_reruns_nothing_a_decoder_edit_training_and_a_revert_nothing(micro, tmp_path):
    """On a copy of the source, against the same store."""
    edited = type(micro)(tmp_path, env={"REENACT_STORE": str(micro.store)})
    edited.own_source()
    network = "models/fsrt/network.py"
    text = (edited.source / network).read_text()

    edited.write(network, text.replace("class Decoder(", "# a comment\n\nclass Decoder(", 1))
    assert set(edited.states().values()) == {"cached"}

    edited.write(network, text + "\n\ndef unrelated() -> int:\n    return 3\n")
    assert set(edited.states().values()) == {"cached"}

    start = text.index("class Decoder(")
    inside = text.index("def forward(", start)
    body = text.index('"""', text.index('"""', inside) + 3) + 3
    edited.write(network, text[:body] + "\n        edited = 1  # noqa" + text[body:])
    states = edited.states()
    assert {n for n, s in states.items() if s != "cached"} == {"train.fsrt.warmup", *AFTER_WARMUP}
    why = edited.ask("why", MICRO, "train.fsrt.warmup")
    assert "code models.fsrt.network.Decoder" in why
    assert "+        edited = 1" in why

    edited.write(network, text)
    assert set(edited.states().values()) == {"cached"}


@pytest.mark.slow
def test_more_steps_continue_training(copy):
    done = copy.call("run", MICRO, "--set", "fsrt.phases.warmup.steps=8", "--only", "train.fsrt.warmup")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "config fsrt.phases.warmup.steps 6 -> 8 (continues)" in done.stdout
    assert set(copy.states().values()) == {"cached"}  # and the six are still there


def test_every_number_reaches_the_keys_it_was_made_from(micro):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{micro.store}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("reenact")
    runs = client.search_runs([experiment.experiment_id])
    score = next(r for r in runs if r.data.tags.get("reenact.node") == "score.fsrt.self")
    trained = next(r for r in runs if r.data.tags.get("reenact.node") == "train.fsrt.adversarial")
    generated = next(r for r in runs if r.data.tags.get("reenact.node") == "generate.fsrt.self")
    assert score.data.tags["input.generate.fsrt.self"] == generated.data.tags["reenact.key"]
    assert generated.data.tags["input.train.fsrt.adversarial"] == trained.data.tags["reenact.key"]
    clips = next(r for r in runs if r.data.tags.get("reenact.node") == "clips")
    assert trained.data.tags["input.clips"] == clips.data.tags["reenact.key"]
    assert any(name.startswith("eval/psnr_frame") for name in score.data.metrics)


def test_trace_walks_from_a_score_to_the_recordings_and_back(micro):
    run = sorted(p.name for p in (micro.store / "runs").iterdir())[0]
    down = micro.ask("trace", run, "--store", str(micro.store))
    nodes = ("score.fsrt", "generate.fsrt", "train.fsrt.warmup", "clips", "download", "recordings")
    assert [node for node in nodes if node not in down] == []
    up = micro.ask("trace", "--recording", "syn000-00", "--store", str(micro.store))
    assert "generate.fsrt" in up
    assert "report" in up


def test_the_store_verifies_and_a_flipped_bit_is_found(copy):
    copy.ask("verify", "--store", str(copy.store))
    shard = next((copy.store / "packs/keypoints").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(bytes(data))
    assert "differs from its digest" in copy.ask("verify", "--store", str(copy.store), code=1)


def test_gc_keeps_what_the_latest_run_uses(copy):
    copy.ask("gc", "--store", str(copy.store), "--grace", "0", "--yes")
    assert set(copy.states().values()) == {"cached"}


def test_a_pin_and_an_accepted_edit(copy):
    assert "pinned 3 recordings" in copy.ask("pin", "v1", MICRO)
    states = copy.states("data.main.pin=v1", "data.main.synthetic.identities=4")
    assert set(states.values()) == {"pinned", "cached"}
    copy.own_source()
    copy.edit(
        "pipelines/preprocess/speech.py", "    settings = config\n", "    settings = config\n    _ = 0\n"
    )
    assert copy.states()["speech.main"] == "stale"
    accepted = copy.ask("accept", MICRO, "speech.main", "--reason", "a name nobody reads")
    assert "accepted for changed" in accepted
    assert set(copy.states().values()) == {"cached"}


def test_families_are_aligned(micro):
    manifests = {n: sorted((micro.store / "manifests" / n).glob("*.parquet")) for n in KEYED[1:]}
    tables = [pq.read_table(files[-1]).select(["unit", "clips"]) for files in manifests.values()]
    assert len({json.dumps(table.to_pylist()) for table in tables}) == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["run", MICRO, "--set", "clips.sise=3"], 2, "clips.sise: unknown key; did you mean 'size'?"),
        (["run", MICRO, "--only", "nope"], 2, "no node 'nope'; the nodes are recordings"),
        (["run", "nope.yaml"], 2, "no config file nope.yaml"),
        (["plan", MICRO, "--set", "data.main.pin=v9"], 2, "no pin 'v9' in this store"),
        (["weights", "import", "nope", "x.pt"], 2, "no weights 'nope'"),
        (["trace", "123456789"], 2, "no run or artifact '123456789'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(micro, args, code, message):
    done = micro.call(*args)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_store_nobody_may_write_is_told_in_one_line(micro):
    other = type(micro)(micro.home, env={"REENACT_STORE": "/proc/nowhere"})
    done = other.call("run", MICRO)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [
    "plan", "why", "run", "submit", "jobs", "logs", "stop", "accept", "pin", "graph", "ui", "trace", "gc",
    "verify", "weights list", "weights import", "weights verify", "weights export-notice",
])  # fmt: skip
def test_every_command_helps_with_an_example(micro, command):
    assert "Example:" in micro.ask(*command.split(), "--help")


# --- a folder of videos -----------------------------------------------------------------------------------
FOLDER = ("data.main.source=folder", "clips.min_frames=15", "clips.min_size=64")


def add_video(folder: Path, person: int, take: int) -> None:
    from models.perception.head.default_head import get_analytic_head
    from pipelines.preprocess.sources import synthetic

    config = synthetic.SyntheticConfig(identities=9, clips_per_identity=3, seconds=1.0, width=240, height=240)
    row = synthetic.list_recordings(config)[person * 3 + take]
    target = folder / row["identity"] / f"{row['id']}.mp4"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(synthetic.render_synthetic_recording(row, get_analytic_head())[0])


@pytest.mark.slow
def test_one_more_video_computes_one_unit_a_node_and_one_shard_a_family(micro, tmp_path):
    videos = tmp_path / "videos"
    for person in range(2):
        add_video(videos, person, 0)
    (videos / "syn001" / "empty.mp4").write_bytes(b"")
    home = type(micro)(tmp_path)
    sets = [a for s in (*FOLDER, f"data.main.folder.path={videos}") for a in ("--set", s)]
    done = home.call("run", MICRO, *sets, "--only", "keypoints.main")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rejected" in done.stdout + done.stderr
    before = shards_of(home.store)

    add_video(videos, 2, 0)
    plan = home.ask("plan", MICRO, *sets).splitlines()
    told = {line.split()[0]: line for line in plan if line and not line.startswith(" ")}
    assert "1 of 4 inputs new: syn002/syn002-00.mp4" in told["recordings"]
    assert "1 of 4 units new" in told["download"]
    assert [told["download"].split()[i] for i in (2, 3, 4, 5)] == ["4", "3", "1", "0"]
    assert [told["clips"].split()[i] for i in (2, 3, 4, 5)] == ["3", "2", "0", "1"]
    assert "1 after recordings, download (may cut off)" in told["clips"]
    assert told["train.fsrt.keypoints"].split()[1] == "stale"

    done = home.call("run", MICRO, *sets, "--only", "keypoints.main")
    assert done.returncode == 0, done.stdout + done.stderr
    new = shards_of(home.store) - before
    assert sorted(path.split("/")[1] for path in new) == ["clips", "download", "keypoints"]


def shards_of(store: Path) -> set[str]:
    return {str(p.relative_to(store)) for p in (store / "packs").rglob("*.tar")}
