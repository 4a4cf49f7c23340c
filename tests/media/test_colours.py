"""High dynamic range and unusual tags. The reference is BT.2100 in numpy, and the mapping that `plain`
states."""

import numpy as np
import pytest

from pipelines import media

TO_709 = np.array(
    [[1.6604910, -0.5876411, -0.0728499], [-0.1245505, 1.1328999, -0.0083494],
     [-0.0181508, -0.1005789, 1.1187297]]
)  # fmt: skip
"""Linear BT.2020 to BT.709 (BT.2407)."""
LUMA = np.array([0.2627, 0.6780, 0.0593])


def hlg_light(signal):
    """R'G'B' (...,3) -> cd/m2 on the nominal display, black 0: inverse OETF, then the OOTF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * scene * (scene @ LUMA)[..., None] ** 0.2


def pq_light(signal):
    """R'G'B' (...,3) -> cd/m2"""
    m, n = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / n)
    return 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m)


LIGHT = {"arib-std-b67": (hlg_light, 1000), "smpte2084": (pq_light, 10_000)}


def expected(signal, transfer):
    """(...,3) codes of 255, as real numbers."""
    light, peak = LIGHT[transfer]
    light, peak, knee = light(signal) / 203 @ TO_709.T, peak / 203, 0.9
    most = np.maximum(light.max(-1, keepdims=True), 1e-6)
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    rolled = (b + knee) ** 2 / (b - a) * (most + a) / (most + b)
    return 255 * np.clip(light * np.where(most > knee, rolled, most) / most, 0, 1) ** (1 / 2.4)


def patches(helpers, path, signal, transfer, pix_fmt="yuv444p10le", full=False, tags=None, codec="ffv1"):
    """signal (N,3) R'G'B' of BT.2020 -> a video of N squares of 16 px side by side."""
    luma = signal @ LUMA
    blue, red = (signal[:, 2] - luma) / 1.8814, (signal[:, 0] - luma) / 1.4746
    planes = [1023 * luma, 512 + 1023 * blue, 512 + 1023 * red] if full else [
        64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red]  # fmt: skip
    rows = [np.repeat(np.clip(np.round(plane), 0, 1023).astype("<u2"), 16) for plane in planes]
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"".join(np.tile(row, (16, 1)).tobytes() for row in rows) * 3)
    tags = {"color_primaries": "bt2020", "colorspace": "bt2020nc"} if tags is None else tags
    tags = {"color_trc": transfer, "range": "pc" if full else "tv", **tags}
    return helpers.ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{16 * len(signal)}x16", "-r", 25, "-i", raw,
        "-vf", f"setparams={':'.join(f'{k}={v}' for k, v in tags.items())},format={pix_fmt}", "-c:v", codec,
        path,
    )  # fmt: skip


def read(path, crop=None):
    """Mean colour of each square, (N,3), through the real reader."""
    probed = media.probe_file(path)
    width, height = (probed["width"], probed["height"]) if crop is None else (crop[2] - crop[0], 8)
    frames, _ = media.read_frames(path, probed, (width, height), crop)
    assert len(frames) == 3
    return frames[1, 4, 8::16].astype(float)


def greys(*levels):
    return np.repeat(np.array(levels)[:, None], 3, 1)


@pytest.mark.parametrize("transfer", LIGHT)
def test_a_grey_staircase_comes_out_as_bt2408_says(tmp_path, helpers, transfer):
    steps = greys(*np.arange(0, 1.0001, 1 / 32))
    found = read(patches(helpers, tmp_path / "a.mkv", steps, transfer))
    np.testing.assert_allclose(found, expected(steps, transfer), atol=1.0)
    assert (np.diff(found[:, 0]) >= 0).all()


@pytest.mark.parametrize(
    ("transfer", "below", "white", "card"),
    [("arib-std-b67", 0.73, 0.75, 0.38), ("smpte2084", 0.57, 0.58, 0.38)],
)
def test_diffuse_white_is_white_and_a_grey_card_is_grey(
    tmp_path, helpers, transfer, below, white, card
):  # fmt: skip
    """They have 203 and 26 cd/m2, and a surface that reflects 90 % has 179 (BT.2408): below white nothing is
    clipped, above it highlights are left."""
    found = read(patches(helpers, tmp_path / "a.mkv", greys(card, below, white, 1), transfer))[:, 0]
    assert found == pytest.approx([108, 242, 250, 255], abs=3)
    assert found[1] < found[2] < found[3]


@pytest.mark.parametrize("transfer", LIGHT)
def test_skin_and_leaves_keep_their_brightness_and_hue(tmp_path, helpers, transfer):
    colours = np.array([[0.52, 0.44, 0.38], [0.35, 0.26, 0.20], [0.36, 0.45, 0.25], [0.3, 0.35, 0.5]])
    found = read(patches(helpers, tmp_path / "a.mkv", colours, transfer))
    np.testing.assert_allclose(found, expected(colours, transfer), atol=2.0)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("full range", {"full": True}),
        ("4:2:2", {"pix_fmt": "yuv422p10le"}),
        ("4:2:0, 10 bit, ProRes", {"pix_fmt": "yuv422p10le", "codec": "prores_ks"}),
        ("no primaries", {"tags": {"color_primaries": "unknown", "colorspace": "bt2020nc"}}),
        ("no matrix", {"tags": {"color_primaries": "bt2020", "colorspace": "unknown"}}),
        ("neither", {"tags": {"color_primaries": "unknown", "colorspace": "unknown"}}),
        ("constant luminance", {"tags": {"color_primaries": "bt2020", "colorspace": "bt2020c"}}),
        ("a matrix from primaries", {"tags": {"color_primaries": "film", "colorspace": "chroma-derived-nc"}}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
@pytest.mark.parametrize("transfer", LIGHT)
def test_hdr_of_any_coding_and_tags_comes_out_the_same(tmp_path, helpers, transfer, kind, change):
    suffix = "mov" if "codec" in change else "mkv"
    steps = greys(0.1, 0.38, 0.5, 0.58)
    path = patches(helpers, tmp_path / f"a.{suffix}", steps, transfer, **change)
    assert media.probe_file(path)["transfer"] == transfer
    np.testing.assert_allclose(read(path), expected(steps, transfer), atol=2.0)
    np.testing.assert_allclose(read(path, (16, 3, 48, 11)), expected(steps[1:3], transfer), atol=2.0)
    read(path, (15, 3, 49, 11))


@pytest.mark.parametrize(
    "tags",
    [
        "color_trc=log100", "color_trc=log316:colorspace=bt709", "colorspace=bt2020c:color_primaries=bt2020",
        "colorspace=ictcp", "colorspace=chroma-derived-nc",
    ],
)  # fmt: skip
def test_tags_that_the_scaler_refuses_lose_no_video(tmp_path, helpers, tags):
    """The frames are those of the same video without them: grey, of which no matrix changes a thing."""
    grey = np.tile(np.array([[30], [90], [160], [220]], np.uint8)[:, None, None], (1, 48, 64, 3))
    plain = helpers.write_video(tmp_path / "a.mkv", grey)
    odd = helpers.ffmpeg("-i", plain, "-vf", f"setparams={tags}", "-c:v", "ffv1", tmp_path / "b.mkv")
    for crop in (None, (1, 1, 33, 33)):
        wanted, _ = media.read_frames(plain, media.probe_file(plain), (32, 32), crop)
        found, _ = media.read_frames(odd, media.probe_file(odd), (32, 32), crop)
        np.testing.assert_allclose(found.astype(int), wanted, atol=2)


def test_ycgco_is_read_with_its_own_matrix(tmp_path, helpers):
    """Y, Cg, Co of (200, 120, 60): 125, 123 and 198 of 255 at full range."""
    planes = [np.full((48, 64), value, np.uint8) for value in (125, 123, 198)]
    (tmp_path / "raw").write_bytes(b"".join(plane.tobytes() for plane in planes) * 3)
    path = helpers.ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "yuv444p", "-s", "64x48", "-r", 25, "-i", tmp_path / "raw",
        "-c:v", "libx264", "-qp", 0, "-bsf:v", "h264_metadata=matrix_coefficients=8:video_full_range_flag=1",
        tmp_path / "a.mkv",
    )  # fmt: skip
    frames, _ = media.read_frames(path, media.probe_file(path), (32, 24))
    np.testing.assert_allclose(frames.mean((0, 1, 2)), [200, 120, 60], atol=2)
