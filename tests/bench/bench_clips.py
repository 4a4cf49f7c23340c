"""Cutting clips against one bare ffmpeg a core, against the way of the standard scripts, and its memory.

python -m pytest -m bench -s tests/bench/bench_clips.py

The standard scripts (video-preprocessing, CelebV-HQ's and others) decode a video to PNG files, then load,
detect, crop and resize frame by frame and write PNG again. Here that way is written plainly, with the same
detector on the same frames as ours.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from pipelines import media
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.preprocess.clips import ClipsConfig, cut_clips, stream_crop
from storage.shards import ShardWriter, encode_sample

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe

ROOT = Path(__file__).resolve().parents[2]
CORES = os.cpu_count() or 1
SECONDS, FILES, ROUNDS = 12, 4, 3
CONFIG = SimpleNamespace(clips=ClipsConfig())
ROW = {"id": "rec", "identity": "id", "tracks": []}
PLAIN = "area"
SAME = "area+accurate_rnd+full_chroma_int+bitexact"
"""Scaling as ours: the same bytes on every CPU."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Talking heads in 1280x720 with sensor noise, H.264 at about 2 Mb/s."""
    from models.perception.head.default_head import get_analytic_head
    from pipelines.preprocess.sources import synthetic

    folder = tmp_path_factory.mktemp("videos")
    config = synthetic.SyntheticConfig(
        identities=FILES, test_identities=0, clips_per_identity=1, seconds=SECONDS, width=720, height=720
    )
    made = []
    for row in synthetic.list_recordings(config):
        raw, path = folder / f"{row['id']}.raw.mp4", folder / f"{row['id']}.mp4"
        raw.write_bytes(synthetic.render_synthetic_recording(row, get_analytic_head())[0])
        wide = "pad=1280:720:280:0:gray,noise=alls=6:allf=t"
        command = [
            media.ffmpeg_path(),
            "-v",
            "error",
            "-i",
            raw,
            "-vf",
            wide,
            "-c:v",
            "libx264",
            "-b:v",
            "2M",
        ]
        subprocess.run([*command, "-preset", "veryfast", "-c:a", "copy", path], check=True)
        raw.unlink()
        made.append(path)
    return made


def frame_count(path: Path) -> int:
    return media.probe_file(path)["frames"]


def track_of(path: Path) -> dict:
    """The whole video, the face's square in the middle."""
    box = [400.0, 100.0, 880.0, 580.0]
    return {"start": 0, "end": frame_count(path), "fps": 25.0, "width": 1280, "height": 720, "box": box}


def nets() -> dict:
    from models.perception.faces import dlib_faces

    return {"dlib_hog": dlib_faces.load_hog_detector({})}


def ours(path: Path, shard: Path, given: bool) -> None:
    row = ROW | {"tracks": [track_of(path)] if given else []}
    loaded = {} if given else nets()
    inputs = {
        "recordings": [row],
        "download": [{"video": path.read_bytes(), "probe": media.probe_file(path)}],
    }
    with ShardWriter(shard) as writer:
        for sample in cut_clips(inputs, CONFIG, loaded, RuntimeConfig()):
            writer.add(encode_sample(sample))


def by_ffmpeg(path: Path, flags: str) -> Iterator[memoryview]:
    """Decode, crop, scale to 256, RGB: what one ffmpeg writes, a piece at a time in one buffer."""
    x0, y0, x1, y1 = (int(v) for v in track_of(path)["box"])
    picture = f"crop={x1 - x0}:{y1 - y0}:{x0}:{y0},scale=256:256:flags={flags}"
    command = [media.ffmpeg_path(), "-v", "error", "-threads", "1", "-i", path, "-an", "-vf", picture]
    with subprocess.Popen(
        [*command, "-threads", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"],
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        buffer = memoryview(bytearray(2**20))
        while count := process.stdout.readinto(buffer):  # pyright: ignore[reportAttributeAccessIssue]
            yield buffer[:count]


def by_stage(path: Path, probed: "Probe") -> Iterator[np.ndarray]:
    """What `cut_clips` reads its frames with: decoded, cropped, scaled, picked by time."""
    return stream_crop(path, probed, np.array(track_of(path)["box"], int), 256, 0, probed["frames"])


def bare_ffmpeg(path: Path, flags: str) -> None:
    """Into nothing."""
    for _ in by_ffmpeg(path, flags):
        pass


def crops_alone(path: Path, probed: "Probe") -> None:
    """Into nothing."""
    for _ in by_stage(path, probed):
        pass


def scripts_way(path: Path, folder: Path) -> None:
    """Everything to PNG, then load, detect, crop, resize with anti-aliasing, write PNG."""
    from PIL import Image
    from skimage.transform import resize

    detector = nets()["dlib_hog"]
    folder.mkdir()
    command = [media.ffmpeg_path(), "-v", "error", "-threads", "1", "-i", path, folder / "%07d.png"]
    subprocess.run(command, check=True)
    box = np.array(track_of(path)["box"], int)
    for at, file in enumerate(sorted(folder.glob("*.png"))):
        image = np.asarray(Image.open(file))
        if at % CONFIG.clips.detect_every == 0:
            small = Image.fromarray(image).resize((512, 288), Image.Resampling.BOX)
            detector.detect(np.asarray(small)[None])
        crop = resize(image[box[1] : box[3], box[0] : box[2]], (256, 256), anti_aliasing=True)
        Image.fromarray((255 * crop).astype(np.uint8)).save(folder / f"crop-{file.name}")


class Spent(NamedTuple):
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all processes: what can be compared while others use the machine."""


def side_by_side(work: Callable[..., None], *columns) -> Spent:
    """For all files, one process a core; the processes are there before the clock starts, as a stage's
    are."""
    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(media.probe_file, columns[0]))
        begin = time.perf_counter()
        cpu = sum(pool.map(partial(cost, work), *columns))
        return Spent(time.perf_counter() - begin, cpu)


def cost(work: Callable[..., None], *arguments) -> float:
    """CPU seconds of a call and of the processes that it waited for."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before = [resource.getrusage(one) for one in who]
    work(*arguments)
    after = [resource.getrusage(one) for one in who]
    return sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def minutes(videos, tmp_path_factory) -> list[Path]:
    """The same pictures for a minute each: a recording is minutes long, not seconds."""
    folder = tmp_path_factory.mktemp("minutes")
    made = [folder / path.name for path in videos]
    for path, target in zip(videos, made, strict=True):
        long_video(target, path, 1)
    return made


@pytest.mark.bench
def test_against_ffmpeg(videos, minutes, tmp_path):
    count, probed = 60 * 25 * len(minutes), [media.probe_file(path) for path in minutes]
    shards = [tmp_path / f"{path.stem}.tar" for path in minutes]
    alone = b"".join(bytes(piece) for piece in by_ffmpeg(videos[0], SAME))
    staged = b"".join(frame.tobytes() for frame in by_stage(videos[0], media.probe_file(videos[0])))
    assert alone[: len(staged)] == staged[: len(alone)]  # but for a frame that ffmpeg may repeat at the end
    work = {
        "ffmpeg, decode + crop + scale": (bare_ffmpeg, minutes, [PLAIN] * len(minutes)),
        "the same picture by ffmpeg alone": (bare_ffmpeg, minutes, [SAME] * len(minutes)),
        "clips, decode + crop": (crops_alone, minutes, probed),
        "clips, with sound, scores, JPEG": (ours, minutes, shards, [True] * len(minutes)),
    }
    rounds = [[side_by_side(*one) for one in work.values()] for _ in range(ROUNDS)]
    spent = np.median(np.array(rounds), axis=0)  # (rows, wall and CPU)
    plain, same = spent[0] / spent, spent[1] / spent
    print(f"\n{count} frames of 1280x720, {CORES} cores, medians of {ROUNDS} rounds; ratios by wall, by CPU")
    for row, (name, (wall, cpu)) in enumerate(zip(work, spent, strict=True)):
        print(f"{name:33s}{count / wall:6.0f} frames/s, {1000 * cpu / count:.2f} CPU ms a frame; "
              f"{plain[row, 0]:.0%}, {plain[row, 1]:.0%} of ffmpeg; "
              f"{same[row, 0]:.0%}, {same[row, 1]:.0%} of the same picture")  # fmt: skip


@pytest.mark.bench
def test_against_the_standard_way(videos, tmp_path):
    count = SECONDS * 25 * len(videos)
    shards = [tmp_path / f"{path.stem}.tar" for path in videos]
    found, _ = side_by_side(ours, videos, shards, [False] * len(videos))
    peer, _ = side_by_side(scripts_way, videos, [tmp_path / path.stem for path in videos])
    sizes = [
        sum(p.stat().st_size for p in tmp_path.glob(pattern)) for pattern in ("*.tar", "*/*.png", "*/crop-*")
    ]
    print(f"\n{count} frames of 1280x720, {CORES} cores, frames a second")
    print(f"clips, own detection                {count / found:7.0f}")
    print(f"all to PNG, crop a frame at a time  {count / peer:7.0f}  ours {peer / found:.1f} times as fast")
    print(f"bytes: shards {sizes[0] / 1e6:.0f} MB, PNG {sizes[1] / 1e6:.0f} MB ({sizes[1] / sizes[0]:.1f}x), "
          f"of which crops {sizes[2] / 1e6:.0f} MB ({sizes[2] / sizes[0]:.1f}x)")  # fmt: skip


def long_video(path: Path, source: Path, minutes: int) -> None:
    """The source again and again, nothing encoded twice."""
    loops = str(minutes * 60 // SECONDS - 1)
    command = [media.ffmpeg_path(), "-v", "error", "-stream_loop", loops, "-i", source, "-c", "copy", path]
    subprocess.run(command, check=True)


@pytest.mark.bench
@pytest.mark.parametrize("tracks", ["given", "found"])
@pytest.mark.parametrize("minutes", [int(m) for m in os.environ.get("REENACT_BENCH_MINUTES", "5 60").split()])
def test_memory_of_a_long_recording(videos, tmp_path, minutes, tracks):
    """found: `clips` looks for the faces itself, at several times the cost of all else."""
    long_video(tmp_path / "long.mp4", videos[0], minutes)
    video, store = str(tmp_path / "long.mp4"), str(tmp_path / "store")
    argv = [sys.executable, __file__, video, str(minutes), store, tracks]
    done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"\n{minutes} min of 1280x720, tracks {tracks}: {done.stdout.strip()}")
    assert float(done.stdout.rpartition("+")[2].split()[0]) <= 2


def peak_memory() -> int:
    """KiB that this process has had resident at most; getrusage would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def every_stage_of(video: str, minutes: int, folder: str, tracks: str) -> str:
    """clips, keypoints, fit3dmm and speech of one long recording, pack after pack, in this process."""
    from pipelines.config import load_config
    from pipelines.engine.fingerprint import node_config, resolve_entry_point
    from pipelines.engine.packs import PackJob, UnitInputPacks, UnitJob, build_pack
    from pipelines.graph import build_graph
    from pipelines.nets import load_nets
    from storage.files import Store

    config, store = (
        load_config(ROOT / "configs/run/demo.yaml", ["data.main.source=folder"]).config,
        Store(folder),
    )
    track = track_of(Path(video)) | {"end": minutes * 60 * 25}
    row = {
        "id": "long", "identity": "a", "split": "train", "source": "folder", "uri": video, "sha256": "",
        "seed": 0, "spec": "", "tracks": [track] if tracks == "given" else [], "span": [],
    }  # fmt: skip
    graph, lines, before = build_graph(config), [], 0
    for name in ("download", "clips", "keypoints.main", "fit3dmm.main", "speech.main"):
        node = graph[name]
        nets, begin = load_nets(node.nets, store), time.perf_counter()
        before = before or peak_memory()
        samples = {
            role: UnitInputPacks(graph[read.node].stage, (("long", "k"),), read.fields)
            for role, read in node.reads.items()
            if read.node != "recordings"
        }
        job = PackJob(name, node.stage, "k", (UnitJob("long", "u", {"recordings": row}, samples),))
        given = {"config": node_config(node, config), "nets": nets, "runtime": config.runtime}
        result = build_pack(job, partial(resolve_entry_point(node.run), **given, **node.arguments), store)
        (unit,) = result.rows
        assert unit.status == "ok", (name, unit.reason)
        peak = (peak_memory() - before) / 2**20
        lines.append(f"{node.stage} {time.perf_counter() - begin:.0f} s, +{peak:.2f} GiB")
    return "; ".join(lines)


if __name__ == "__main__":
    print(every_stage_of(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
