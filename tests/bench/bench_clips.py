"""Cutting clips against one bare ffmpeg a core, against the way of the standard scripts, and its memory.

python -m pytest -m bench -s tests/bench/bench_clips.py

The standard scripts (video-preprocessing, CelebV-HQ's and others) decode a video to PNG files, then load,
detect, crop and resize frame by frame and write PNG again. Here that way is written plainly, with the same
detector on the same frames as ours.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.preprocess import media
from pipelines.preprocess.clips import ClipsConfig, cut_clips, read_crop
from storage.shards import ShardWriter, encode_sample

ROOT = Path(__file__).resolve().parents[2]
CORES = os.cpu_count() or 1
SECONDS, FILES = 12, 4
CONFIG = SimpleNamespace(clips=ClipsConfig())
ROW = {"id": "rec", "identity": "id", "tracks": []}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Talking heads in 1280x720 with sensor noise, H.264 at about 2 Mb/s."""
    from models.perception.morphable import analytic
    from pipelines.preprocess.sources import synthetic

    folder = tmp_path_factory.mktemp("videos")
    config = synthetic.SyntheticConfig(
        identities=FILES, test_identities=0, clips_per_identity=1, seconds=SECONDS, width=720, height=720
    )
    made = []
    for row in synthetic.recordings(config):
        raw, path = folder / f"{row['id']}.raw.mp4", folder / f"{row['id']}.mp4"
        raw.write_bytes(synthetic.render(row, analytic())[0])
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


def track_of(path: Path) -> dict:
    """The whole video, the face's square in the middle."""
    box = [400.0, 100.0, 880.0, 580.0]
    return {"start": 0, "end": SECONDS * 25, "fps": 25.0, "width": 1280, "height": 720, "box": box}


def nets() -> dict:
    from models.perception import dlib_faces

    return {"dlib_hog": dlib_faces.load_hog({})}


def ours(path: Path, shard: Path, given: bool) -> float:
    row = ROW | {"tracks": [track_of(path)] if given else []}
    loaded = {} if given else nets()
    begin = time.perf_counter()
    inputs = {"recordings": [row], "download": [{"video": path.read_bytes(), "probe": media.probe(path)}]}
    with ShardWriter(shard) as writer:
        for sample in cut_clips(inputs, CONFIG, loaded):
            writer.add(encode_sample(sample))
    return time.perf_counter() - begin


def bare_ffmpeg(path: Path) -> float:
    """Decode, crop, scale to 256, RGB, into nothing."""
    x0, y0, x1, y1 = (int(v) for v in track_of(path)["box"])
    picture = f"crop={x1 - x0}:{y1 - y0}:{x0}:{y0},scale=256:256:flags=area"
    command = [media.ffmpeg_path(), "-v", "error", "-threads", "1", "-i", path, "-an", "-vf", picture]
    begin = time.perf_counter()
    with subprocess.Popen(
        [*command, "-threads", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while process.stdout.read(2**20):
            pass
    return time.perf_counter() - begin


def crops_alone(path: Path) -> float:
    """What `cut_clips` reads its frames with: decoded, cropped, scaled, picked by time, in memory."""
    probed = media.probe(path)
    begin = time.perf_counter()
    read_crop(path, probed, np.array(track_of(path)["box"], int), 256, 0, SECONDS * 25)
    return time.perf_counter() - begin


def scripts_way(path: Path, folder: Path) -> float:
    """Everything to PNG, then load, detect, crop, resize with anti-aliasing, write PNG."""
    from PIL import Image
    from skimage.transform import resize

    detector = nets()["dlib_hog"]
    begin = time.perf_counter()
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
    return time.perf_counter() - begin


def side_by_side(work, *columns) -> float:
    """Seconds for all files, one process a core."""
    begin = time.perf_counter()
    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(work, *columns))
    return time.perf_counter() - begin


@pytest.mark.bench
def test_against_ffmpeg_and_the_standard_way(videos, tmp_path):
    count = SECONDS * 25 * len(videos)
    shards = [tmp_path / f"{path.stem}.tar" for path in videos]
    side_by_side(bare_ffmpeg, videos)  # warm
    floor = side_by_side(bare_ffmpeg, videos)
    crops = side_by_side(crops_alone, videos)
    given = side_by_side(ours, videos, shards, [True] * len(videos))
    print(f"\n{count} frames of 1280x720, {CORES} cores, frames a second")
    print(f"bare ffmpeg, decode + crop + scale  {count / floor:7.0f}")
    print(f"clips, their frames alone           {count / crops:7.0f}  {floor / crops:.0%} of ffmpeg")
    print(f"clips, with sound, scores, JPEG     {count / given:7.0f}  {floor / given:.0%} of ffmpeg")
    found = side_by_side(ours, videos, shards, [False] * len(videos))
    peer = side_by_side(scripts_way, videos, [tmp_path / path.stem for path in videos])
    sizes = [
        sum(p.stat().st_size for p in tmp_path.glob(pattern)) for pattern in ("*.tar", "*/*.png", "*/crop-*")
    ]
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
@pytest.mark.parametrize("minutes", [int(m) for m in os.environ.get("REENACT_BENCH_MINUTES", "5 60").split()])
def test_memory_of_a_long_recording(videos, tmp_path, minutes):
    long_video(tmp_path / "long.mp4", videos[0], minutes)
    argv = [sys.executable, __file__, str(tmp_path / "long.mp4"), str(minutes), str(tmp_path / "store")]
    done = subprocess.run(argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"\n{minutes} min of 1280x720: {done.stdout.strip()}")


def peak_memory() -> int:
    """KiB that this process has had resident at most; getrusage would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def every_stage_of(video: str, minutes: int, folder: str) -> str:
    """clips, keypoints, fit3dmm and speech of one long recording, pack after pack, in this process."""
    from pipelines.config import load
    from pipelines.engine.fingerprint import resolve
    from pipelines.engine.keys import View
    from pipelines.engine.packs import PackJob, UnitJob, build_pack
    from pipelines.executor import load_nets
    from pipelines.graph import build
    from storage.files import Store

    config, store = load(ROOT / "configs/run/demo.yaml", ["data.source=folder"]).config, Store(folder)
    track = track_of(Path(video)) | {"end": minutes * 60 * 25}
    row = {
        "id": "long", "identity": "a", "split": "train", "source": "folder", "uri": video, "sha256": "",
        "seed": 0, "spec": "", "tracks": [track], "span": [],
    }  # fmt: skip
    graph, told, before = build(config), [], 0
    for name in ("download", "clips", "keypoints", "fit3dmm", "speech"):
        node = graph[name]
        nets, begin = load_nets(node.nets, store), time.perf_counter()
        before = before or peak_memory()
        samples = {up: ("k", fields) for up, fields in node.reads.items() if up != "recordings"}
        job = PackJob(name, "k", (UnitJob("long", "u", {"recordings": row}, samples),))
        result = build_pack(job, resolve(node.run), View(config, node.config), nets, store)
        (unit,) = result.rows
        assert unit.status == "ok", (name, unit.reason)
        peak = (peak_memory() - before) / 2**20
        told.append(f"{name} {time.perf_counter() - begin:.0f} s, +{peak:.2f} GiB")
    return "; ".join(told)


if __name__ == "__main__":
    print(every_stage_of(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
