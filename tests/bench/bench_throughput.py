"""Preprocessing of a corpus on Ray against the bare stage functions: how busy are the cores?

The corpus: the demo's people, once as a folder of video files (`download` copies them, `clips` finds and
follows the faces), once rendered on the way (`download` renders).

python -m pytest -m bench -s tests/bench/bench_throughput.py

efficiency = seconds of the bare stage functions
             / (cores x seconds from the start of the first unit to the last result), Ray's start-up left out.
The functions run one after the other in a process of one thread, one process on each core: busy cores share
memory and caches. `alone` is the same with a single process.
The first runs give every node the machine for itself; the last is the run as users start it, where nodes that
do not wait for each other share the cores. REENACT_BENCH_SETS="data.main.limit=4" makes it small.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from storage import ledger, locations
from storage.families import read_pack_record
from storage.files import Store
from storage.frame_codec import EncodedFrames

ROOT = Path(__file__).resolve().parents[2]
DEMO = "configs/run/demo.yaml"
NODES = ("download", "clips", "keypoints.main", "fit3dmm.main", "speech.main")
"""Each reads those before it under the name of its stage."""
SETS = os.environ.get("REENACT_BENCH_SETS", "").split()
AIM = 0.85
"""Efficiency of all nodes in one run."""
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


def bare_kernels() -> dict[str, float]:
    """Node -> seconds of its function over all recordings."""
    from pipelines.config import load_config
    from pipelines.engine.fingerprint import node_config, resolve_entry_point
    from pipelines.errors import Rejected
    from pipelines.graph import build_graph
    from pipelines.nets import load_nets
    from pipelines.preprocess.recordings import list_corpus_recordings

    config = load_config(ROOT / DEMO, SETS).config
    graph, store = build_graph(config), Store(os.environ["REENACT_STORE"])
    stages = {
        node.name: partial(
            resolve_entry_point(node.run),
            config=node_config(node, config),
            nets=load_nets(node.nets, store),
            runtime=config.runtime,
            **node.arguments,
        )
        for node in map(graph.__getitem__, NODES)
    }
    rows = list_corpus_recordings(config.data["main"]).rows
    rounds = []
    for row in [rows[0], *rows]:
        rounds.append(dict.fromkeys(NODES, 0.0))
        inputs = {"recordings": [row]}
        with contextlib.suppress(Rejected):  # what follows in this recording has nothing to do
            for name, stage in stages.items():
                clock = time.perf_counter()
                try:
                    role = graph[name].stage
                    inputs[role] = list(stage(inputs))
                finally:
                    rounds[-1][name] = time.perf_counter() - clock
                for sample in inputs[role]:  # as the next stage reads it; decoding is not counted
                    if isinstance(frames := sample.get("frames"), EncodedFrames):
                        sample["frames"] = frames.decode()
    del rounds[0]  # which also imported libraries
    return {name: sum(one[name] for one in rounds) for name in NODES}


def bare_processes(count: int, env: Mapping[str, str]) -> dict[str, float]:
    """The mean of `count` processes that do the same side by side."""
    argv = [sys.executable, __file__]
    running = [
        subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running)
    return {name: sum(json.loads(text)[name] for text in outputs) / count for name in NODES}


@dataclass(frozen=True)
class Stream:
    """A node at work, in seconds of the epoch."""

    asked: float
    """when the runner started it"""
    begin: float
    """when its first unit began, in the worker"""
    end: float
    """when its last result arrived"""
    busy: float
    """seconds that the workers spent in its units"""
    packs: int
    units: int


def streams(store: Store) -> dict[str, Stream]:
    """Every keyed node of the latest run, from the ledger and from what the workers published."""
    events = list(ledger.read_events(store, ledger.list_runs(store)[-1]))
    found = {}
    for event in events:
        if event["type"] != "node_started" or event["node"] not in NODES:
            continue
        node = event["node"]
        progress = [e["time"] for e in events if e["type"] == "progress" and e["node"] == node and e["done"]]
        stage = event.get("stage") or node
        packs = {e.name.removesuffix(".parquet"): e.mtime for e in store.list(locations.packs_folder(stage))
                 if e.name.endswith(".parquet")}  # fmt: skip
        seconds = {key: [u.seconds for u in read_pack_record(store, stage, key)] for key in packs}
        begin = min(packs[key] - sum(seconds[key]) for key in packs)  # a pack's record is written last
        busy, units = (
            sum(sum(times) for times in seconds.values()),
            sum(len(times) for times in seconds.values()),
        )
        found[node] = Stream(event["time"], begin, max(progress), busy, len(packs), units)
    return found


def together(some: list[Stream]) -> float:
    """Seconds in which at least one of the nodes was at work."""
    total, reached = 0.0, 0.0
    for stream in sorted(some, key=lambda s: s.begin):
        total += max(0.0, stream.end - max(stream.begin, reached))
        reached = max(reached, stream.end)
    return total


def as_files(store: Store, folder: Path) -> None:
    """The videos that a run downloaded, each in a folder of its own."""
    packs = locations.packs_folder("download")
    for entry in store.list(packs):
        if not entry.name.endswith(".tar"):
            continue
        with tarfile.open(store.fetch(f"{packs}/{entry.name}")) as pack:
            (member,) = (one for one in pack if one.name.endswith(".mp4"))
            video = pack.extractfile(member)
            assert video is not None
            name = member.name.partition(".")[0]
            (folder / name).mkdir(parents=True)
            (folder / name / f"{name}.mp4").write_bytes(video.read())


@pytest.mark.bench
@pytest.mark.parametrize("source", ["folder", "synthetic"])
def test_throughput_on_ray(reenact, tmp_path, source):
    settings = list(SETS)
    if source == "folder":
        reenact("run", DEMO, *(part for text in SETS for part in ("--set", text)), "--only", "download")
        as_files(Store(str(tmp_path / "store")), tmp_path / "videos")
        shutil.rmtree(tmp_path / "store")
        settings = ["data.main.source=folder", f"data.main.folder.path={tmp_path / 'videos'}"]
    sets = [part for text in settings for part in ("--set", text)]
    cores = os.cpu_count() or 1
    env = os.environ | ONE_THREAD | {"REENACT_STORE": str(tmp_path / "store"), "PYTHONPATH": str(ROOT)}
    env |= {"REENACT_BENCH_SETS": " ".join(settings)}
    load = os.getloadavg()[0]
    single, kernel = (bare_processes(count, env) for count in (1, cores))
    print(f"\n{source}: load {load:.1f} when it began, {cores} cores; seconds")
    heads = ("units", "packs", "alone", "kernel", "in units", "stream", "start", "efficiency")
    print(" " * 12 + "".join(f"{head:>11}" for head in heads))

    def line(name: str, nodes: dict[str, Stream], seconds: float) -> float:
        one, wall = (sum(seconds[node] for node in nodes) for seconds in (single, kernel))
        start = sum(s.begin - s.asked for s in nodes.values()) / len(nodes)
        units, packs = (max(getattr(s, part) for s in nodes.values()) for part in ("units", "packs"))
        busy = sum(s.busy for s in nodes.values())
        print(f"{name:<12}{units:11}{packs:11}{one:11.1f}{wall:11.1f}{busy:11.1f}{seconds:11.1f}{start:11.1f}"
              f"{wall / cores / seconds:11.0%}")  # fmt: skip
        return wall / cores / seconds

    store = Store(str(tmp_path / "store"))
    alone: dict[str, Stream] = {}
    for node in NODES:
        reenact("run", DEMO, *sets, "--only", node)
        alone[node] = streams(store)[node]
        line(node, {node: alone[node]}, alone[node].end - alone[node].begin)
    line("one by one", alone, sum(s.end - s.begin for s in alone.values()))
    for top in ("packs", "manifests", "keys"):
        store.delete_tree(top)
    reenact("run", DEMO, *sets, "--only", "fit3dmm", "--only", "speech")
    whole = streams(store)
    assert line("in one run", whole, together(list(whole.values()))) >= AIM


if __name__ == "__main__":
    print(json.dumps(bare_kernels()))
