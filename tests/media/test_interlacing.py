import av
import numpy as np
import pytest

from pipelines import media
from pipelines.media.interlacing import extract_h264_sps, is_frame_mbs_only, may_be_interlaced

SMALL = ("-f", "lavfi", "-i", "testsrc=size=128x96:rate=25:duration=1")
FIELDS = "tinterlace=interleave_top,setfield=tff"
INTERLACED = ("-flags", "+ilme+ildct", "-x264-params", "tff=1")


def context_of(path):
    with av.open(str(path)) as container:
        return may_be_interlaced(container.streams.video[0].codec_context)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("profile", ["baseline", "high"])
def test_the_header_of_progressive_h264_rules_fields_out(tmp_path, helpers, ending, profile):
    kind = ("-c:v", "libx264", "-profile:v", profile, "-pix_fmt", "yuv420p")
    assert not context_of(helpers.ffmpeg(*SMALL, *kind, tmp_path / f"a.{ending}"))


def test_h264_of_fields_may_be_interlaced(tmp_path, helpers):
    assert context_of(helpers.ffmpeg(*SMALL, "-c:v", "libx264", *INTERLACED, tmp_path / "a.mp4"))


def test_codecs_without_fields_are_never_interlaced(tmp_path, helpers):
    assert not context_of(helpers.ffmpeg(*SMALL, "-c:v", "libvpx", tmp_path / "a.webm"))
    assert context_of(helpers.ffmpeg(*SMALL, "-c:v", "mpeg2video", tmp_path / "a.mkv"))


@pytest.mark.parametrize("extradata", [b"", b"\x01", b"\x01\x4d\x40\x1f\xff\xe1\x00\x1cg", b"\0\0\x01\x67"])
def test_a_header_that_is_cut_short_rules_nothing_out(extradata):
    assert not any(is_frame_mbs_only(one) for one in extract_h264_sps(extradata))


def test_a_progressive_title_does_not_hide_interlaced_video(tmp_path, helpers):
    """Ten frames flagged as progressive, then interlaced ones, in one stream of MPEG-2."""
    moving = "color=c=black:size=128x96:rate=50:duration=2[b];color=c=white:size=24x96:rate=50:duration=2[w];"
    title = helpers.ffmpeg(*SMALL, "-frames:v", 10, "-c:v", "mpeg2video", tmp_path / "title.ts")
    fields = helpers.ffmpeg(
        "-filter_complex", f"{moving}[b][w]overlay=x=n*4-24:eval=frame,{FIELDS}",
        "-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-output_ts_offset", 0.4, tmp_path / "fields.ts",
    )  # fmt: skip
    path = tmp_path / "joined.ts"
    path.write_bytes(title.read_bytes() + fields.read_bytes())
    with av.open(str(path)) as container:
        flags = [frame.interlaced_frame for frame in container.decode(video=0)]
    assert not flags[0]
    assert np.mean(flags) > 0.5
    assert media.probe_file(path)["interlaced"]
