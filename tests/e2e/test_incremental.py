"""Forty recordings: add one, change one, remove one, and count what moves."""

import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from storage import ledger
from storage.files import Store

RUN = "tests/e2e/micro.yaml"
NODES = ("download", "clips", "keypoints", "fit3dmm", "speech")
PEOPLE, TAKES = 11, 4


def render(path: Path, person: int, take: int) -> None:
    from models.perception.head.default_head import get_analytic_head
    from pipelines.preprocess.sources import synthetic

    config = synthetic.SyntheticConfig(
        identities=PEOPLE, clips_per_identity=TAKES + 1, seconds=1.0, width=240, height=240
    )
    row = synthetic.list_recordings(config)[person * (TAKES + 1) + take]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(synthetic.render_synthetic_recording(row, get_analytic_head())[0])


def place(folder: Path, person: int, take: int) -> Path:
    return folder / f"p{person:02d}" / f"p{person:02d}-{take}.mp4"


@dataclass
class Objects:
    """Every shard of a store: name -> (mtime, digest)."""

    shards: dict[str, tuple[int, str]]

    @staticmethod
    def of(store: Path) -> "Objects":
        return Objects({
            str(p.relative_to(store / "packs")): (
                p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest(),
            )
            for p in (store / "packs").rglob("*.tar")
        })  # fmt: skip


def computed(store: Path) -> dict[str, int]:
    """Node -> units that its last run computed, as the ledger tells."""
    opened = Store(str(store))
    found = dict.fromkeys(NODES, 0)
    for event in ledger.read_events(opened, ledger.list_runs(opened)[-1]):
        stage = event.get("node", "").split(".")[0]
        if event["type"] == "progress" and stage in found:
            found[stage] = max(found[stage], event["done"])
    return found


@pytest.mark.slow
def test_one_recording_more_other_or_less_touches_only_its_own(micro, tmp_path):
    videos, home = tmp_path / "videos", type(micro)(tmp_path)
    home.env["OMP_NUM_THREADS"] = "1"
    wanted = [(place(videos, p, t), p, t) for p in range(PEOPLE - 1) for t in range(TAKES)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(render, *zip(*wanted, strict=True)))
    folder = ("data.main.source=folder", f"data.main.folder.path={videos}", "data.main.clips_per_shard=8")
    clips = ("clips.min_frames=15", "clips.min_size=64", "runtime.workers=null")
    sets = [part for text in (*folder, *clips) for part in ("--set", text)]
    args = [RUN, *sets, "--only", "fit3dmm.main", "--only", "speech.main"]

    def run() -> tuple[float, Objects]:
        clock = time.monotonic()
        done = home.call("run", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - clock, Objects.of(home.store)

    seconds, before = run()
    assert computed(home.store) == dict.fromkeys(NODES, len(wanted))
    size = sum((home.store / "packs" / name).stat().st_size for name in before.shards)
    say = partial(print, flush=True)
    say(f"\n{'':8}{'units a node':>14}{'new shards':>12}{'new MB':>9}{'seconds':>9}")
    say(f"{'all':8}{len(wanted):14}{len(before.shards):12}{size / 1e6:9.1f}{seconds:9.1f}")

    def step(name: str, units: int, buckets: int) -> None:
        nonlocal before
        seconds, after = run()
        new = {n: home.store / "packs" / n for n in after.shards if n not in before.shards}
        megabytes = sum(p.stat().st_size for p in new.values()) / 1e6
        say(f"{name:8}{units:14}{len(new):12}{megabytes:9.1f}{seconds:9.1f}")
        assert computed(home.store) == dict.fromkeys(NODES, units), name
        per_node = {node: sum(n.startswith(f"{node}/") for n in new) for node in NODES}
        assert per_node == {node: units if node == "download" else buckets for node in NODES}, name
        assert {n: before.shards[n] for n in before.shards} == {n: after.shards[n] for n in before.shards}, (
            name
        )
        before = after

    render(place(videos, PEOPLE - 1, 0), PEOPLE - 1, 0)
    step("add", 1, 1)
    render(place(videos, 7, 2), 7, TAKES)
    step("change", 1, 1)
    place(videos, 8, 1).unlink()
    step("remove", 0, 1)
    assert "nothing to do" in home.call("run", *args).stdout
