"""Healthy videos as people bring them, drawn at random: containers x codecs x timing x sound x geometry.

Each is three seconds long, made by ffmpeg, with one white frame and a click at the same moment, so
that the truth about it is known from how it was made: no frame is lost, none is made up, sound and picture
meet, and no file is refused. REENACT_ODD_VIDEOS=N draws N of them in the long run (make slow).
"""

import os
import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from pipelines import media
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from tests.video_files import RUNTIME

SECONDS = 3
FLASH = 1.6
"""Second from which one frame is white and the click sounds, before anything is moved."""
CLIPS = ClipsConfig(size=64, min_frames=5, min_size=32)
APART = 0.02
"""Seconds that sound and picture may be apart."""
LONG_RUN = int(os.environ.get("REENACT_ODD_VIDEOS", "300"))

FAST = ("-preset", "ultrafast")
CODECS = {
    "h264": ("libx264", *FAST, "-crf", "12"),
    "h264 B-frames": ("libx264", "-preset", "veryfast", "-crf", "12", "-bf", "3", "-b_strategy", "0"),
    "h265": ("libx265", *FAST, "-crf", "12", "-x265-params", "log-level=none:pools=none"),
    "mpeg4": ("mpeg4", "-q:v", "2"),
    "mpeg2": ("mpeg2video", "-q:v", "2"),
    "mpeg1": ("mpeg1video", "-q:v", "2"),
    "mjpeg": ("mjpeg", "-q:v", "2"),
    "vp8": ("libvpx", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8"),
    "vp9": ("libvpx-vp9", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8"),
    "av1": ("libsvtav1", "-preset", "12", "-crf", "20", "-svtav1-params", "lp=1"),
    "prores": ("prores_ks", "-profile:v", "1"),
    "ffv1": ("ffv1",),
    "png": ("png",),
    "flv1": ("flv", "-q:v", "2"),
    "wmv2": ("wmv2", "-q:v", "2"),
    "theora": ("libtheora", "-q:v", "8"),
}
SOUNDS = {
    "aac": ("aac",),
    "mp3": ("libmp3lame",),
    "mp2": ("mp2",),
    "ac3": ("ac3",),
    "opus": ("libopus",),
    "vorbis": ("libvorbis",),
    "flac": ("flac",),
    "alac": ("alac",),
    "pcm": ("pcm_s16le",),
    "wma": ("wmav2",),
}
CONTAINERS = {
    "mp4": ("h264 h264_B-frames h265 mpeg4 av1 vp9", "aac mp3 ac3 alac opus flac"),
    "mov": ("h264 h264_B-frames h265 mjpeg prores png", "aac pcm alac mp3"),
    "mkv": (
        "h264 h264_B-frames h265 mpeg2 mjpeg vp8 vp9 av1 ffv1 theora",
        "aac mp3 opus vorbis flac pcm ac3",
    ),
    "webm": ("vp8 vp9 av1", "opus vorbis"),
    "avi": ("h264 mpeg4 mjpeg ffv1", "mp3 pcm ac3"),
    "flv": ("h264 h264_B-frames flv1", "aac mp3"),
    "ts": ("h264 h264_B-frames h265 mpeg2", "aac mp2 ac3 mp3"),
    "m2ts": ("h264 mpeg2", "ac3 aac"),
    "mpg": ("mpeg1 mpeg2", "mp2 ac3"),
    "wmv": ("wmv2 mpeg4", "wma mp3"),
    "ogv": ("theora", "vorbis opus flac"),
    "mxf": ("mpeg2", "pcm"),
    "nut": ("h264 mpeg4 ffv1", "mp3 pcm flac"),
}
FRAGMENTS = "-movflags +frag_keyframe+empty_moov+default_base_moof"
MUXING = {
    "mp4": ["", "", "-movflags +faststart", FRAGMENTS, "-use_editlist 0", "-movflags +negative_cts_offsets"],
    "mov": ["", "", "-movflags +faststart", FRAGMENTS],
    "mkv": ["", "", "-live 1", "-cluster_time_limit 200", "-write_crc32 0 -reserve_index_space 4096"],
    "webm": ["", "-live 1"],
    "flv": ["", "-flvflags +no_duration_filesize", "-flvflags +add_keyframe_index"],
    "ts": ["", "-muxdelay 0", "-pat_period 0.5 -pcr_period 90", "-mpegts_flags +resend_headers"],
}
RATES = ("10", "12", "15", "24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
MPEG_RATES = ("24000/1001", "24", "25", "30000/1001", "30", "50", "60")
"""The only ones that MPEG-1 and -2 know."""
SQUARE = ("mpeg1", "mpeg2", "flv1")
"""Codecs that know a few aspects of the whole picture, or none, but not that of a pixel."""
FLOATING = ("mp4", "mov", "flv", "ts", "wmv")
"""Containers that may hold frames of any length. So may Matroska, but its header, as ffmpeg writes it here,
says that no frame lasts longer than the others: a frame after a gap then means that some were lost."""


@dataclass(frozen=True)
class Recipe:
    container: str = "mp4"
    codec: str = "h264"
    sound: str = "aac"
    """"" = none"""
    rate: str = "25"
    size: tuple[int, int] = (96, 64)
    aspect: str = "1"
    """Of a pixel"""
    pixels: str = "yuv420p"
    gop: int = 25
    hertz: int = 48_000
    channels: int = 2
    late: float = 0.0
    """Seconds by which the sound is late; below 0, the picture"""
    offset: float = 0.0
    """Seconds at which the time stamps start"""
    held: int = 0
    """Frames left out after 0.4 s, so that the one before them is held"""
    turned: int = 0
    """Degrees"""
    interlaced: bool = False
    second_sound: bool = False
    cover: bool = False
    """A picture beside the video"""
    muxing: str = ""
    """Further options of the muxer"""
    cue: float = 0.0
    """Second of a subtitle; 0 = none"""

    @property
    def frame(self) -> float:
        return float(1 / Fraction(self.rate))

    @property
    def white(self) -> int:
        """Number of the white frame, before any is left out."""
        return round(FLASH / self.frame)


@st.composite
def recipes(draw) -> Recipe:
    container = draw(st.sampled_from(sorted(CONTAINERS)))
    videos, sounds = (names.split() for names in CONTAINERS[container])
    codec = draw(st.sampled_from(videos)).replace("_", " ")
    sound = draw(st.sampled_from([*sounds, ""]))
    rates = MPEG_RATES if codec in ("mpeg1", "mpeg2") else RATES
    recipe = Recipe(
        container=container,
        codec=codec,
        sound=sound,
        rate=draw(st.sampled_from(rates)),
        size=draw(st.sampled_from([(96, 64), (64, 96), (176, 144), (80, 80), (320, 180)])),
        aspect=draw(st.sampled_from(["1", "1", "4/3", "12/11"])) if codec not in SQUARE else "1",
        gop=draw(st.sampled_from([1, 12, 25, 250])),
        hertz=draw(st.sampled_from(HERTZ.get(sound, [48_000, 44_100, 32_000]))),
        channels=draw(st.sampled_from([1, 2, 6] if sound in ("aac", "ac3", "flac", "pcm") else [1, 2])),
        late=draw(st.sampled_from([0.0, 0.0, 0.3, -0.3])) if container in LATE else 0.0,
        muxing=draw(st.sampled_from(MUXING.get(container, [""]))),
        cover=draw(st.sampled_from([False, False, True])) if container in ("mp4", "mov") else False,
        offset=draw(st.sampled_from([0.0, 0.0, 7.3, 95443.2])) if container == "ts" else 0.0,
        held=draw(st.sampled_from([0, 0, 1])) if container in FLOATING else 0,
        second_sound=draw(st.booleans()) if container in ("mp4", "mov", "mkv", "ts") else False,
        cue=draw(st.sampled_from([0.0, 0.0, 300.0])) if container in ("mp4", "mov", "mkv") else 0.0,
        turned=draw(st.sampled_from([0, 0, 90, 180])) if container in ("mp4", "mov") else 0,
        interlaced=draw(st.booleans()) if codec in ("mpeg2", "h264") and container != "flv" else False,
        pixels=draw(st.sampled_from(PIXELS.get(codec, ["yuv420p"]))),
    )
    if recipe.held:
        recipe = replace(recipe, held=round(1.0 / recipe.frame), interlaced=False)
    if recipe.late < 0:  # encoders count frames
        recipe = replace(recipe, late=-round(0.3 / recipe.frame) * recipe.frame)
    if (recipe.container, recipe.sound) == ("flv", "mp3"):  # of the three rates that it knows, one of ours
        recipe = replace(recipe, hertz=44_100)
    if recipe.container == "mxf":
        recipe = replace(recipe, hertz=48_000, rate="25", gop=12)
    if recipe.muxing == FRAGMENTS and recipe.sound == "ac3":  # whose parameters stand in its packets
        recipe = replace(recipe, muxing="")
    if recipe.muxing == "-use_editlist 0":  # without it, mp4 cannot say that a stream is late
        recipe = replace(recipe, late=0.0)
    return recipe


LATE = ("mp4", "mov", "mkv", "webm", "ts", "flv", "nut")
"""Containers in which one stream may begin after the other."""
HERTZ = {"pcm": [8_000, 16_000, 48_000, 96_000], "flac": [22_050, 48_000, 96_000], "opus": [48_000]}
PIXELS = {
    "h264": ["yuv420p", "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "gray"],
    "h265": ["yuv420p", "yuv420p10le"],
    "vp9": ["yuv420p", "yuva420p", "yuv444p"],
    "prores": ["yuv422p10le"],
    "ffv1": ["yuv420p", "yuv444p", "gray", "bgr0", "yuv420p16le"],
    "png": ["rgb24", "rgba", "gray"],
    "mjpeg": ["yuvj420p", "yuvj422p"],
    "av1": ["yuv420p", "yuv420p10le"],
}


def make(recipe: Recipe, folder: Path, ffmpeg) -> Path:
    """The video of a recipe."""
    width, height = recipe.size
    fields = 2 if recipe.interlaced else 1
    rate = Fraction(recipe.rate) * fields
    whites = recipe.white * fields, (recipe.white + 1) * fields - 1
    picture = f"testsrc2=size={width}x{height}:rate={rate}:duration={SECONDS},lutyuv=y=val/3"
    picture += f",drawbox=c=white:t=fill:enable='between(n,{whites[0]},{whites[1]})'"
    if recipe.interlaced:
        picture += ",tinterlace=interleave_top,setfield=tff"
    if recipe.held:
        first = round(0.4 / recipe.frame)
        picture += f",select='not(between(n,{first + 1},{first + recipe.held}))'"
    picture += f",setsar={recipe.aspect}"
    at = recipe.white * recipe.frame
    wave = f"0.9*sin(2*PI*1000*t)*between(t,{at},{at + 0.01})"
    channels = {1: "mono", 2: "stereo", 6: "5.1"}[recipe.channels]
    channels += "".join(f"|c{n}=c0" for n in range(recipe.channels))
    tone = f"aevalsrc='{wave}':s={recipe.hertz}:d={SECONDS},pan={channels}"
    inputs = ["-itsoffset", max(0.0, -recipe.late), "-f", "lavfi", "-i", picture]
    maps = ["-map", "0:v"]
    if recipe.sound:
        inputs += ["-itsoffset", max(0.0, recipe.late), "-f", "lavfi", "-i", tone]
        maps += ["-map", "1:a"]
        if recipe.second_sound:
            inputs += ["-f", "lavfi", "-i", "sine=frequency=300:duration=9"]
            maps += ["-map", "2:a"]
        maps += ["-c:a", *SOUNDS[recipe.sound], "-strict", "-2"]
    if recipe.cue:
        cue = folder / "cue.srt"
        cue.write_text("1\n00:05:00,000 --> 00:05:02,000\nHello\n")
        inputs += ["-i", cue]
        maps += ["-map", f"{1 + bool(recipe.sound) * (1 + recipe.second_sound)}:s"]
        maps += ["-c:s", "srt" if recipe.container == "mkv" else "mov_text"]
    codec = [*CODECS[recipe.codec], "-g", recipe.gop, "-pix_fmt", recipe.pixels, "-threads", 1]
    if recipe.interlaced:
        codec += ["-flags", "+ilme+ildct"]
    timing = ["-fps_mode", "vfr" if recipe.held else "passthrough"]
    timing += recipe.muxing.split()
    if recipe.offset:
        timing += ["-output_ts_offset", recipe.offset]
    if recipe.container in ("m2ts", "ts"):
        timing += ["-f", "mpegts", *(["-mpegts_m2ts_mode", 1] if recipe.container == "m2ts" else [])]
    path = ffmpeg(*inputs, *maps, "-c:v", *codec, *timing, folder / f"a.{recipe.container}")
    if recipe.cover:
        bare, path = path, folder / f"c.{recipe.container}"
        still = ffmpeg("-f", "lavfi", "-i", "testsrc=size=32x32", "-frames:v", 1, folder / "cover.png")
        first = ("-i", bare, "-i", still, "-map", "1:v", "-map", 0, "-c", "copy")
        ffmpeg(*first, "-disposition:v:0", "attached_pic", path)
    if recipe.turned:
        flat, path = path, folder / f"b.{recipe.container}"
        ffmpeg("-display_rotation", recipe.turned, "-i", flat, "-map", 0, "-c", "copy", path)
    return path


def check(recipe: Recipe, folder: Path, ffmpeg) -> None:
    """Every claim about one video."""
    path = make(recipe, folder, ffmpeg)
    probed = media.probe_file(path)
    note(f"{recipe} {probed}")
    count = len(range(round(SECONDS / recipe.frame))) - recipe.held
    frames, times = media.read_frames(path, probed, (32, 32))
    # Matroska rounds the sides of what is shown
    assert (probed["width"], probed["height"]) == pytest.approx(size_of(recipe), abs=2)
    if recipe.codec == "theora":  # whose encoder leaves out frames that repeat the one before
        count = probed["frames"]
    assert (probed["frames"], len(frames)) == (count, count)
    assert np.diff(times).min() >= 0
    assert (len(probed["held"]), probed["interlaced"]) == (bool(recipe.held), recipe.interlaced)
    assert bool(probed["audio_rate"]) == bool(recipe.sound)
    first, last = media.video_tick_range(probed)
    if recipe.sound:
        white = times[int(frames.mean((1, 2, 3)).argmax())]
        sound = np.abs(media.read_sound(path, probed, 0, last))
        click = np.flatnonzero(sound > 0.25 * sound.max())[0] / media.SOUND_RATE
        assert click - white == pytest.approx(recipe.late, abs=tolerance(recipe))
    clips = list(cut_clips(as_inputs(path, probed, first, last), CLIPS, {}, RUNTIME))
    assert len(clips) == 1 + bool(recipe.held)
    hold = sum(end - begin for begin, end in probed["held"])
    kept = sum(clip["clip"]["frames"] for clip in clips)
    assert kept == pytest.approx(last - first - hold * 25, abs=2)


def as_inputs(path: Path, probed, first: int, last: int):
    """For `clips`: one face that fills the height or width all along."""
    side = min(probed["width"], probed["height"])
    frame = {"fps": 25.0, "width": probed["width"], "height": probed["height"]}
    track = {"start": first, "end": last, "box": [0, 0, side, side], **frame}
    row = {"id": "rec", "identity": "ann", "tracks": [track]}
    return {"recordings": [row], "download": [{"video": path, "probe": probed}]}


def size_of(recipe: Recipe) -> tuple[int, int]:
    """Upright, of square pixels."""
    width, height = recipe.size
    shown = (2 * round(width * float(Fraction(recipe.aspect)) / 2), height)
    return shown[::-1] if recipe.turned % 180 else shown


def tolerance(recipe: Recipe) -> float:
    """Seconds. AVI has no time stamps, so that what an encoder puts before the sound moves it; in MPEG-PS a
    frame that begins in the packet of another has that one's."""
    return APART + {"avi": 0.06, "mpg": recipe.frame}.get(recipe.container, 0.0)


def held_to_truth(recipe: Recipe, ffmpeg) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(recipe, Path(folder), ffmpeg)


@pytest.mark.slow
@settings(
    max_examples=LONG_RUN, deadline=None, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
@given(recipe=recipes())
def test_many_odd_videos_are_read_as_they_are(recipe, helpers):
    held_to_truth(recipe, helpers.ffmpeg)


@settings(
    max_examples=12, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
@example(recipe=Recipe())
@given(recipe=recipes())
def test_odd_videos_are_read_as_they_are(recipe, helpers):
    held_to_truth(recipe, helpers.ffmpeg)
