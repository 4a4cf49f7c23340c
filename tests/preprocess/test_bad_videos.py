"""Videos that players forgive and pipelines do not: what becomes of each kind, to the frame and the sample.

python -m pytest tests/preprocess/test_bad_videos.py -s prints the table of outcomes.
"""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines import media
from pipelines.errors import Rejected
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from storage.shards import encode_sample
from tests.video_files import RUNTIME

SETTINGS = ClipsConfig(size=64, min_frames=10, min_size=32)
SIDE = 160
SECONDS = 3
PRIMING = 1024 / 44_100
"""Seconds of silence that AAC puts first; only an edit list can hide them."""
KINDS = {}


@dataclass
class Kind:
    make: object
    """(folder, base, helpers) -> path. base: 3 s, 160 x 160, 25 fps, a click and a white frame at 1.2 s."""
    expect: object
    """Clips as [(first tick, frames)], or a reject code."""
    tracks: list = field(default_factory=lambda: [track(0, 75, [0, 0, SIDE, SIDE])])
    shown: tuple = (SIDE, SIDE)
    flash: float | None = 1.2
    """Second at which the picture is white; None where the kind has no such frame."""
    click: float | None = 1.2
    """Second at which the sound begins; None for silence."""
    nets: bool = False


def track(start, end, box, width=SIDE, height=SIDE):
    return {"start": start, "end": end, "fps": 25.0, "width": width, "height": height, "box": box}


def kind(expect, **more):
    def add(make):
        KINDS[make.__name__.replace("_", " ")] = Kind(make, expect, **more)
        return make

    return add


def remade(name, expect, *arguments, to="a.mp4", **more):
    """A kind that one ffmpeg command makes of the base."""
    KINDS[name] = Kind(
        lambda folder, base, helpers: helpers.ffmpeg("-i", base, *arguments, folder / to), expect, **more
    )


def picture(frames=75, side=SIDE, fps=25):
    """A moving gradient, dark, but for the frame at 1.2 s."""
    ramp = np.linspace(20, 90, side).astype(np.uint8)
    out = np.stack([np.roll(ramp, 2 * k) for k in range(frames)])[:, None, :, None]
    out = np.broadcast_to(out, (frames, side, side, 3)).copy()
    out[round(1.2 * fps)] = 235
    return out


def click(seconds=SECONDS, at=1.2, rate=44_100):
    sound = np.zeros(int(seconds * rate), np.float32)
    sound[int(at * rate) : int(at * rate) + 400] = 0.9
    return sound


@pytest.fixture(scope="module")
def base(tmp_path_factory, helpers):
    path = tmp_path_factory.mktemp("base") / "base.mp4"
    return helpers.write_video(path, picture(), sound=click(), gop=25)


# --- timing -------------------------------------------------------------------------------------------------
X264 = ("-c:v", "libx264", "-qp", 12, "-threads", 1, "-c:a", "copy")
COPY = ("-c", "copy")
ALL = [(0, 75)]

remade("B-frames", ALL, *X264, "-bf", 3, "-b_strategy", 0)
remade(
    "negative times without an edit list", ALL, *X264, "-bf", 2, "-avoid_negative_ts", "disabled",
    "-use_editlist", 0, "-movflags", "negative_cts_offsets", click=1.2 + PRIMING,
)  # fmt: skip
remade(
    "transport stream that starts at an hour", ALL, *COPY, "-output_ts_offset", 3600, to="a.ts",
    flash=1.2 + PRIMING, click=1.2 + PRIMING,
)  # fmt: skip
remade("no frame at all", "zero_duration", *COPY, "-bsf:v", "noise=drop=1", to="a.mkv")


@kind([(0, 75)])
def plain(folder, base, helpers):
    return base


@kind([(0, 75)])
def variable_frame_rate(folder, base, helpers):
    times = np.sort(np.r_[np.arange(31) / 25, 1.2 + np.cumsum(np.tile([0.02, 0.06, 0.1], 10))])
    frames = picture(len(times))
    return helpers.write_video(folder / "a.mkv", frames, times=times, sound=click())


@kind([(0, 75)])
def sixty_frames_a_second(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture(180, fps=60), fps=60, sound=click())


@kind([(0, 75)])
def ten_frames_a_second(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture(30, fps=10), fps=10, sound=click())


@kind([(0, 60)], flash=0.6, click=0.6)
def edit_list_with_negative_times(folder, base, helpers):
    """Cut at 0.6 s without decoding: the file keeps the frames from the key frame at 0, told not to show
    them."""
    return helpers.ffmpeg("-ss", 0.6, "-i", base, "-c", "copy", folder / "a.mp4")


@kind([(20, 55)], flash=2.0, click=1.2)
def picture_that_starts_after_the_sound(folder, base, helpers):
    late = ("-itsoffset", 0.8, "-i", base, "-i", base, "-map", "0:v", "-map", "1:a", "-c", "copy")
    return helpers.ffmpeg(*late, "-t", 3, folder / "a.mkv")


@kind([(0, 75)], click=1.7)
def sound_that_starts_after_the_picture(folder, base, helpers):
    late = ("-i", base, "-itsoffset", 0.5, "-i", base, "-map", "0:v", "-map", "1:a", "-c", "copy")
    return helpers.ffmpeg(*late, folder / "a.mkv")


@kind([(0, 2)], tracks=[track(0, 75, [0, 0, SIDE, SIDE])], flash=None, click=None)
def two_frames(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture()[:2], sound=np.zeros(4000, np.float32))


@kind("zero_duration")
def one_frame(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture()[:1], sound=np.zeros(2000, np.float32))


@kind([(0, 75)], flash=None)
def one_frame_a_second(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture(60)[::20], fps=1, sound=click())


@kind("damaged")
def picture_that_stands_still_for_two_seconds(folder, base, helpers):
    """By its time stamps alone, a file that lost frames looks the same."""
    times = np.r_[np.arange(25) * 0.04, 3 + np.arange(25) * 0.04]
    return helpers.write_video(folder / "a.mkv", picture(50), times=times, sound=click(4))


# --- sound --------------------------------------------------------------------------------------------------
FLAC = ("-c:v", "copy", "-c:a", "flac")

remade("no sound", ALL, "-an", *COPY, click=None)
remade("sound without a packet", ALL, *COPY, "-bsf:a", "noise=drop=1", to="a.mkv", click=None)
remade("stereo", ALL, *FLAC, "-ac", 2, to="a.mkv")
remade("five channels and bass", ALL, *FLAC, "-ac", 6, to="a.mkv")
remade("eight kilohertz", ALL, *FLAC, "-ar", 8000, to="a.mkv")
remade("hole in the sound", ALL, *FLAC, "-af", "aselect=not(between(t\\,0.5\\,1))", to="a.mkv")


@kind([(0, 75)])
def sound_shorter_than_the_picture(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture(), sound=click(1.5))


@kind([(0, 75)])
def sound_longer_than_the_picture(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture(), sound=click(6))


@kind([(0, 75)])
def several_sound_tracks(folder, base, helpers):
    other = "sine=frequency=900:duration=3"
    both = ("-map", "0:v", "-map", "0:a", "-map", "1:a", "-c:v", "copy", "-c:a", "aac")
    return helpers.ffmpeg("-i", base, "-f", "lavfi", "-i", other, *both, folder / "a.mp4")


@kind([(0, 75)], click=None)
def sound_that_ends_before_the_track_begins(folder, base, helpers):
    return helpers.write_video(folder / "a.mp4", picture(), sound=np.zeros(4410, np.float32))


# --- pictures -----------------------------------------------------------------------------------------------
X265 = ("-c:v", "libx265", "-x265-params", "log-level=none:pools=none", "-qp", 12, "-c:a", "copy")
PQ = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"
VP8 = ("-c:v", "libvpx", "-b:v", "2M", "-threads", 1, "-c:a", "libopus")
ODD = {"shown": (161, 121), "tracks": [track(0, 75, [20, 0, 140, 120], 161, 121)]}
WIDE = {"shown": (320, SIDE), "tracks": [track(0, 75, [80, 0, 240, 160], 320, SIDE)]}
TINY = {"shown": (16, 16), "tracks": [track(0, 75, [0, 0, 16, 16], 16, 16)]}

remade("odd size", ALL, "-vf", "scale=161:121", *X264, "-pix_fmt", "yuv444p", **ODD)
remade(
    "odd size with halved colours",
    ALL,
    "-vf",
    "scale=161:121",
    *VP8,
    "-pix_fmt",
    "yuv420p",
    to="a.webm",
    **ODD,
)
remade("pixels twice as wide as high", ALL, "-vf", "setsar=2", *X264, **WIDE)
remade("sixteen pixels", "too_small", "-vf", "scale=16:16", *X264, **TINY)
remade("ten bits", ALL, "-vf", "format=yuv420p10le", *X265)
remade("high dynamic range", ALL, "-vf", f"format=yuv420p10le,{PQ}", *X265)
remade("full colours", ALL, *X264, "-pix_fmt", "yuv444p")
remade("grey only", ALL, "-c:v", "ffv1", "-pix_fmt", "gray", "-c:a", "copy", to="a.mkv")
remade("interlaced", ALL, "-vf", "setfield=tff", *X264, "-flags", "+ilme+ildct")


@kind([(0, 75)], shown=(SIDE, 120), tracks=[track(0, 75, [0, 0, 120, 120], SIDE, 120)])
def rotated_by_its_matrix(folder, base, helpers):
    flat = helpers.ffmpeg("-i", base, "-vf", "crop=120:160:0:0", "-c:a", "copy", folder / "flat.mp4")
    return helpers.ffmpeg("-display_rotation", 90, "-i", flat, "-c", "copy", folder / "a.mp4")


@kind("no_face", tracks=[], nets=True)
def no_face_in_it(folder, base, helpers):
    return base


@kind([(0, 75)])
def size_that_changes_on_the_way(folder, base, helpers):
    for n, side in enumerate((160, 128)):
        part = f"trim=start_frame={n * 38}:end_frame={n * 38 + 38},setpts=PTS-STARTPTS,scale={side}:{side}"
        codec = ("-c:v", "libx264", "-qp", 12, "-threads", 1, "-an", "-f", "mpegts")
        helpers.ffmpeg("-i", base, "-vf", part, *codec, folder / f"{n}.ts")
    (folder / "list.txt").write_text("file '0.ts'\nfile '1.ts'\n")
    both = ("-map", "0:v", "-map", "1:a", "-c", "copy")
    return helpers.ffmpeg("-f", "concat", "-i", folder / "list.txt", "-i", base, *both, folder / "a.mkv")


@kind([(0, 75)])
def cover_picture_before_the_video(folder, base, helpers):
    cover = helpers.ffmpeg("-i", base, "-frames:v", 1, "-vf", "scale=32:32", folder / "cover.png")
    maps = ("-map", "1:v", "-map", "0:v", "-map", "0:a", "-c", "copy", "-disposition:v:0", "attached_pic")
    return helpers.ffmpeg("-i", base, "-i", cover, *maps, folder / "a.mp4")


@kind([(0, 75)])
def title_that_is_not_utf_8(folder, base, helpers):
    path = helpers.ffmpeg("-i", base, "-c", "copy", "-metadata", "title=Zuerich", folder / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"Zuerich", b"Z\xfc\xffrich"))
    return path


@kind([(0, 75)])
def subtitles_beside_the_picture(folder, base, helpers):
    (folder / "a.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
    both = ("-map", "0", "-map", "1", "-c", "copy", "-c:s", "mov_text")
    return helpers.ffmpeg("-i", base, "-i", folder / "a.srt", *both, folder / "a.mp4")


# --- tracks -------------------------------------------------------------------------------------------------
@kind("out_of_frame", tracks=[track(0, 75, [200, 20, 300, 120])])
def track_outside_the_frame(folder, base, helpers):
    return base


@kind([(0, 75)], tracks=[track(0, 75, [-40, 20, 100, 160])])
def track_over_the_border(folder, base, helpers):
    return base


@kind("tracks_outside", tracks=[track(80, 200, [0, 0, SIDE, SIDE])])
def track_after_the_end(folder, base, helpers):
    return base


@kind([(25, 50)], tracks=[track(25, 200, [0, 0, SIDE, SIDE])])
def track_over_the_end(folder, base, helpers):
    return base


@kind(
    [(0, 50), (20, 55)],
    tracks=[
        track(0, 50, [0, 0, SIDE, SIDE]),
        track(20, 75, [0, 0, 120, 120]),
        track(0, 50, [2, 0, SIDE, 158]),
    ],
)
def overlapping_and_repeated_tracks(folder, base, helpers):
    return base


@kind("too_small", tracks=[track(0, 75, [50, 50, 50, 50])])
def track_without_area(folder, base, helpers):
    return base


@kind("too_short", tracks=[track(10, 15, [0, 0, SIDE, SIDE])])
def track_of_five_frames(folder, base, helpers):
    return base


# --- broken files -------------------------------------------------------------------------------------------
# the packets of a second are gone, and with them a key frame
remade(
    "group of pictures lost",
    "damaged",
    *COPY,
    "-bsf:v",
    "noise=drop=between(pts*tb\\,0.99\\,1.99)",
    to="a.mkv",
)
# a key frame is gone: what follows is drawn on the wrong picture, but is there, and no decoder complains
remade(
    "key frame lost", ALL, *COPY, "-bsf:v", "noise=drop=between(pts*tb\\,0.99\\,1.01)", to="a.mkv", flash=None
)
remade("few flipped bits", ALL, *COPY, "-bsf:v", "noise=amount=3000", to="a.mkv", flash=None)
remade("many flipped bits", "damaged", *COPY, "-bsf:v", "noise=amount=100", to="a.mkv")
remade("sound only", "no_video", "-vn", *COPY, to="a.m4a")


@kind("empty")
def empty_file(folder, base, helpers):
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


@kind("unreadable")
def random_bytes(folder, base, helpers):
    (folder / "a.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    return folder / "a.mp4"


@kind("unreadable")
def web_page(folder, base, helpers):
    (folder / "a.mp4").write_text("<!doctype html><html><body>Sign in to continue</body></html>" * 50)
    return folder / "a.mp4"


@kind("unreadable")
def play_list_of_other_files(folder, base, helpers):
    (folder / "a.mp4").write_text(f"ffconcat version 1.0\nfile '{base.name}'\n")
    (folder / base.name).write_bytes(base.read_bytes())
    return folder / "a.mp4"


@kind("unreadable")
def mp4_without_its_index(folder, base, helpers):
    (folder / "a.mp4").write_bytes(base.read_bytes()[: base.stat().st_size // 2])
    return folder / "a.mp4"


@kind("truncated")
def mp4_cut_in_half(folder, base, helpers):
    whole = helpers.ffmpeg("-i", base, "-c", "copy", "-movflags", "faststart", folder / "whole.mp4")
    (folder / "a.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return folder / "a.mp4"


@kind("truncated")
def matroska_cut_in_half(folder, base, helpers):
    whole = helpers.ffmpeg("-i", base, "-c", "copy", folder / "whole.mkv")
    (folder / "a.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return folder / "a.mkv"


@kind("no_video")
def sound_with_a_cover_picture(folder, base, helpers):
    cover = helpers.ffmpeg("-i", base, "-frames:v", 1, folder / "cover.png")
    maps = ("-map", "1:v", "-map", "0:a", "-c", "copy", "-disposition:v:0", "attached_pic")
    return helpers.ffmpeg("-i", base, "-i", cover, *maps, folder / "a.m4a")


# --- what becomes of them -----------------------------------------------------------------------------------
def outcome(path, case, nets):
    """-> clips, or a reject code and its sentence."""
    row = {"id": "rec", "identity": "ann", "tracks": case.tracks}
    settings = replace(SETTINGS, min_frames=2) if case.make is two_frames else SETTINGS
    try:
        raw = {"video": path, "probe": media.probe_file(path, "rec")}
        inputs = {"recordings": [row], "download": [raw]}
        return raw["probe"], list(cut_clips(inputs, settings, nets if case.nets else {}, RUNTIME))
    except Rejected as rejected:
        return rejected.code, rejected.sentence


@pytest.mark.parametrize("name", KINDS)
def test_outcome(name, base, tmp_path, helpers, nets):
    case = KINDS[name]
    path = case.make(tmp_path, base, helpers)
    first, second = outcome(path, case, nets)
    print(f"\n{name:42s} {told(first, second)}", end="")  # noqa: T201
    if isinstance(case.expect, str):
        assert (first, str(tmp_path) in second) == (case.expect, False), second
        return
    assert not isinstance(first, str), f"{first}: {second}"
    assert (first["width"], first["height"]) == case.shown
    assert [(c["clip"]["start"], c["clip"]["frames"]) for c in second] == case.expect
    for clip in second:
        check_clip(clip, case)


def test_damaged_frames_are_counted_alike_in_each_run(base, tmp_path, helpers, nets):
    """ffmpeg's threads write one log, in an order that differs."""
    case = KINDS["many flipped bits"]
    path = case.make(tmp_path, base, helpers)
    assert len({outcome(path, case, nets) for _ in range(5)}) == 1


def check_clip(clip, case):
    start, frames = clip["clip"]["start"], clip["clip"]["frames"]
    images = clip["frames"].decode()
    assert images.shape == (frames, SETTINGS.size, SETTINGS.size, 3)
    assert clip["sound"].shape == (frames * media.SAMPLES_PER_FRAME,)
    json.dumps(clip["clip"], allow_nan=False)
    encode_sample(clip)
    grey = images.mean((1, 2, 3))
    if case.flash is not None:
        white = np.flatnonzero(grey > 180)  # slow videos show it for several ticks
        assert white.mean() == pytest.approx(case.flash * 25 - start, abs=0.51)
        assert len(white) <= 3
        assert np.median(grey) < 80
    level = np.abs(clip["sound"])
    if case.click is None:
        assert level.max() < 0.01
    else:
        loud = np.flatnonzero(level > 0.35 * level.max())
        assert level.max() > 0.1
        assert loud[0] / 640 == pytest.approx(case.click * 25 - start, abs=0.05)  # 2 ms


def told(first, second):
    if isinstance(first, str):
        return f"rejected {first}: {second}"
    clips = ", ".join(f"{len(c['frames'])} from {c['clip']['start']}" for c in second)
    sound = ", ".join(str(len(c["sound"])) for c in second)
    return f"{first['width']} x {first['height']}, {len(second)} clip(s): {clips}; {sound} samples"
