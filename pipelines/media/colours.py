"""Colours as a plain screen shows them: high dynamic range, and tags that ffmpeg's scaler refuses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

    from pipelines.media.filters import FilterStream
    from pipelines.media.probe_schema import Probe

HDR_TRANSFERS = {16: "smpte2084", 18: "arib-std-b67"}
"""Transfer curves of high dynamic range, PQ and HLG (ITU-T H.273), by ffmpeg's names."""
PEAK_LUMINANCE = {"smpte2084": 10_000.0, "arib-std-b67": 1_000.0}
"""cd/m2 of the largest code; of HLG, on the nominal display of BT.2100."""
WHITE_LUMINANCE = 203.0
"""cd/m2 of diffuse white in high dynamic range: HLG 75 %, PQ 58 % (BT.2408)."""
TONE_MAP_KNEE = 0.9
"""Of diffuse white: up to here light is kept, from here to the peak it rolls off."""
NON_BT2020_HDR_PRIMARIES = dict.fromkeys((1, 5, 6, 7), "bt709") | dict.fromkeys((11, 12), "smpte432")
"""Of high dynamic range, those other than BT.2020 (taken where none are stated): BT.709's and P3's."""
HDR_MATRIX_NAMES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m"}
"""Of high dynamic range, those other than BT.2020's, likewise."""
UNSUPPORTED_MATRICES = {8: "ycgco", 14: "ictcp"} | dict.fromkeys((10, 11, 12, 13, 15, 16, 17), "bt2020nc")
"""Matrices that the scaler refuses -> as which they are read, in any video."""
LUMINANCE_WEIGHTS = {
    "bt2020": (0.2627, 0.6780, 0.0593),
    "bt709": (0.2126, 0.7152, 0.0722),
    "smpte432": (0.2290, 0.6917, 0.0793),
}
"""Of red, green and blue light."""
PRIMARIES_TO_BT709_MATRICES = {
    "bt2020": ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    "bt709": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "smpte432": ((1.2249, -0.2249, 0.0), (-0.0420, 1.0420, 0.0), (-0.0196, -0.0786, 1.0983)),
}
"""Light of these primaries -> of BT.709."""
PIXEL_ROWS_PER_BLOCK = 32
"""Of a picture that are converted at a time."""


def read_codec_colour_tags(context: VideoCodecContext) -> dict[str, str]:
    """Of a PyAV codec context: `transfer`, "" unless HDR; `matrix` and `primaries` only where they are others
    than those that are taken for granted."""
    transfer = HDR_TRANSFERS.get(int(context.color_trc or 0), "")
    matrices = (
        UNSUPPORTED_MATRICES | HDR_MATRIX_NAMES if transfer else UNSUPPORTED_MATRICES | {14: "bt2020nc"}
    )
    found = {"transfer": transfer}
    if (matrix := int(context.colorspace)) in matrices:
        found["matrix"] = matrices[matrix]
    if transfer and (primaries := int(context.color_primaries)) in NON_BT2020_HDR_PRIMARIES:
        found["primaries"] = NON_BT2020_HDR_PRIMARIES[primaries]
    return found


# --- the filters --------------------------------------------------------------------------------------------
def set_scaler_colour_tags(stream: FilterStream, probed: Probe) -> FilterStream:
    """With tags that the scaler takes: it converts by no curve, but refuses a file for some of them (log100),
    and for a matrix that it has no figures of."""
    tags = {"color_trc": probed.get("transfer") or "bt709"}
    if matrix := probed.get("matrix"):
        tags["colorspace"] = "bt2020nc" if matrix in UNSUPPORTED_MATRICES.values() else matrix
    elif probed.get("transfer"):
        tags["colorspace"] = "bt2020nc"
    return stream.filter("setparams", **tags)


def convert_stream_to_rgb(stream: FilterStream, probed: Probe) -> FilterStream:
    """As red, green and blue, still in the file's own curve, where that is not for the scaler: it has no
    figures of YCgCo and ICtCp, and white of 16 bits comes out of it as 65,283."""
    curve, matrix = probed.get("transfer", ""), probed.get("matrix", "bt2020nc")
    if not curve and matrix != "ycgco":
        return stream
    primaries = probed.get("primaries", "bt2020")
    curves = {"transferin": curve or "bt709", "transfer": curve or "bt709"}
    kept = {"primariesin": primaries, "primaries": primaries, **curves}
    stream = stream.filter("format", "yuv444p16le|gbrp16le")
    stream = stream.filter("zscale", matrixin=matrix, matrix="gbr", range="pc", **kept)
    return stream.filter("format", "gbrp16le" if curve else "gbrp")


# --- light --------------------------------------------------------------------------------------------------
def tone_map(codes: np.ndarray, probed: Probe, out: np.ndarray) -> None:
    """R'G'B' of high dynamic range (H,W,3) uint16 -> `out` (H,W,3) uint8, as a plain screen shows it.

    The light that an HDR display emits (BT.2100), over that of diffuse white, is the light of the plain
    screen over that of its white (BT.1886, gamma 2.4). So a grey card of 18 %, 26 cd/m2, has code 109 (a
    camera of BT.709 gives it 104), and skin its natural brightness. From KNEE on, all up to the peak is
    rolled off (Mobius, smooth at the knee) into the little room that is left: diffuse white has code 250.
    The largest of the three colours is rolled off and the others in proportion, which keeps the hue. Nothing
    depends on what a file says of its own brightness.
    """
    for top in range(0, len(codes), PIXEL_ROWS_PER_BLOCK):  # few rows stay in the processor's cache
        part = slice(top, top + PIXEL_ROWS_PER_BLOCK)
        _tone_map_rows(codes[part], probed["transfer"], probed.get("primaries", "bt2020"), out[part])


def _tone_map_rows(codes: np.ndarray, transfer: str, primaries: str, out: np.ndarray) -> None:
    peak, curve = np.float32(PEAK_LUMINANCE[transfer] / WHITE_LUMINANCE), _curve(transfer)
    planes = [np.take(curve, codes[..., k]) for k in range(3)]
    if transfer == "arib-std-b67":  # the OOTF of a display of 1,000 cd/m2: a power of luminance, not of each
        gain = _power_of(_weighted_sum(planes, LUMINANCE_WEIGHTS[primaries]), 0.2)
        planes = [plane * gain for plane in planes]
    planes = [_weighted_sum(planes, row) * peak for row in PRIMARIES_TO_BT709_MATRICES[primaries]]
    most = np.maximum(np.maximum(planes[0], planes[1]), np.maximum(planes[2], np.float32(1e-6)))
    gain = _roll_off(most, float(peak)) / most
    for k, plane in enumerate(planes):
        out[..., k] = np.rint(255 * _power_of(plane * gain, 1 / 2.4))


def _weighted_sum(planes: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    red, green, blue = (np.float32(weight) for weight in weights)
    return red * planes[0] + green * planes[1] + blue * planes[2]


def _power_of(light: np.ndarray, power: float) -> np.ndarray:
    """A power of light from 0 to 1, of a table over its root: fine enough where it is dark."""
    root = np.sqrt(np.clip(light, 0, 1)) * np.float32(65535) + np.float32(0.5)
    return np.take(_powers(2 * power), root.astype(np.uint16))


@cache
def _powers(power: float) -> np.ndarray:
    return (np.linspace(0, 1, 65536) ** power).astype(np.float32)


@cache
def _curve(transfer: str) -> np.ndarray:
    """Light (65536,) float32 of each code: of HLG, the scene's (BT.2100, inverse OETF); of PQ, the display's.
    1 is the peak."""
    code = np.arange(65536) / 65535
    if transfer == "arib-std-b67":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = code ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return light.astype(np.float32)


def _roll_off(light: np.ndarray, peak: float) -> np.ndarray:
    """Light, diffuse white 1 -> kept up to the knee, and from there on below 1, which the peak has."""
    a = TONE_MAP_KNEE**2 * (1 - peak) / (TONE_MAP_KNEE**2 - 2 * TONE_MAP_KNEE + peak)
    b = (TONE_MAP_KNEE**2 - 2 * TONE_MAP_KNEE * peak + peak) / (peak - 1)
    above = np.float32((b + TONE_MAP_KNEE) ** 2 / (b - a)) * (light + np.float32(a)) / (light + np.float32(b))
    return np.where(light > TONE_MAP_KNEE, above, light)
