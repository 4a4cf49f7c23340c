"""Small models and files that the tests of `animate` share."""

import hashlib
import subprocess
from fractions import Fraction

import av
import numpy as np
import torch
from msgspec import to_builtins

from models.headgan.config import Architecture, AudioFeatureConfig
from pipelines.media import ffmpeg_path
from pipelines.preprocess.clips import ClipsConfig

CLIPS = ClipsConfig(size=64)
SIDE = 32
SINE = ("-f", "lavfi", "-i", "sine=frequency=220:sample_rate=44100:duration=2", "-map", "0:v", "-map", "1:a")
NET = Architecture(image_size=32, width=4, hidden=8)
ABOUT = {
    "model": "headgan", "phase": "decay", "architecture": to_builtins(NET), "provenance": {"tokens": "none"},
    "head": "analytic_head", "identity": "clip_mean", "shading": "smooth",
    "hearing": to_builtins(AudioFeatureConfig()),
    "speech": {"encoder": "headgan", "audio_align": "centred", "dtype": "float32"},
}  # fmt: skip
"""Metadata of a tiny HeadGAN's checkpoint."""
TALK = "aevalsrc='0.4*sin(2*PI*t*(200+150*sin(9*t)))*(1+sin(17*t))':s=22050:d=2"
HEADGAN_CLIPS = ClipsConfig(size=128)
SAMPLED = ClipsConfig(size=128, detect_every=1)
"""The detector looks at every frame."""


class Mirror:
    """A model that shows the driving square itself: what goes in can be compared with what comes out."""

    def __init__(self, batch=8):
        self.image_size, self.batch, self.provenance = SIDE, batch, {"net": "none"}
        self.reads, self.nets, self.speech_settings, self.needs_full_video, self.notes = (), (), {}, False, []
        self.asked, self.drawn = 0, []

    def check_transfer(self, how):
        if how.adapt_scale:
            raise ValueError("a mirror has no scale")

    def encode_sources(self, sources):
        return sources

    def extract_motion(self, driving):
        self.asked += len(driving.frames)
        small = driving.frames.reshape(-1, SIDE, 2, SIDE, 2, 3).mean((2, 4))
        return {"picture": torch.from_numpy(small / 255)}

    def transfer_motion(self, scene, driving, first, how):
        if how.motion == "absolute":
            return driving
        return {"picture": (0.5 + driving["picture"] - first["picture"]).clamp(0, 1)}

    def render(self, scene, motion):
        self.drawn += list(motion["picture"].numpy().astype(np.float32))
        return np.stack(self.drawn[-len(motion["picture"]) :])


def encode(path, frames, *arguments, rate="25"):
    """frames (T,H,W,3) through the ffmpeg command, with further arguments for input 1.. and output."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "pipe:", *arguments)
    wanted = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-pix_fmt", "yuv420p", str(path))
    command = [ffmpeg_path(), "-v", "error", "-y", *given, *wanted]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return path


def times_of(path):
    """Seconds, from the start of the file, at which frames appear, and when the last one ends."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        base, start = video.time_base, Fraction(container.start_time or 0, 1_000_000)
        shown = sorted((p.pts * base - start, p.duration * base) for p in container.demux(video) if p.size)
    return [begin for begin, _ in shown], sum(shown[-1])


def sound_of(path):
    """Digest of all packets, and when the first one begins."""
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        packets = [(p.pts * p.time_base, bytes(p)) for p in container.demux(sound) if p.size]
    return hashlib.sha256(b"".join(data for _, data in packets)).hexdigest(), float(packets[0][0])


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def blanked(moving, begin, end):
    frames = moving.copy()
    frames[begin:end] = 90
    return frames


def packed(rendered):
    """(T,P) of all frames."""
    return torch.cat([motion["packed"][:, -1] for motion in rendered]).numpy()
