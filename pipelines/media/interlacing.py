"""Whether a video is interlaced, by the flags of its first frames; H.264 often says in its header that no
frame is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

INTERLACE_CHECK_SECONDS = 1.0
"""Seconds from the first frame on whose frames are decoded for their flags: a title, say, may be progressive
before a broadcast that is not."""
PROGRESSIVE_CODECS = ("vp8", "vp9", "av1", "theora", "gif")
"""Codecs of video without fields."""
HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
"""profile_idc of H.264 whose parameter sets begin with the format of colours (ITU-T H.264, 7.3.2.1.1)."""
H264_START_CODE_PATTERN = re.compile(b"\x00\x00\x01")


def may_be_interlaced(context: VideoCodecContext) -> bool:
    """False where the codec, or what the file's header says of the video, rules it out."""
    if context.name != "h264":
        return context.name not in PROGRESSIVE_CODECS
    sets = extract_h264_sps(context.extradata or b"")
    return not sets or not all(is_frame_mbs_only(one) for one in sets)


def extract_h264_sps(extradata: bytes) -> list[bytes]:
    """The sequence parameter sets of H.264, as mp4 and Matroska keep them (avcC) or with start codes."""
    if extradata[:1] != b"\x01":
        return [unit for unit in H264_START_CODE_PATTERN.split(extradata) if unit and unit[0] & 31 == 7]
    sets, at = [], 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        length = int.from_bytes(extradata[at : at + 2])
        sets.append(extradata[at + 2 : at + 2 + length])
        at += 2 + length
    return sets


def is_frame_mbs_only(parameter_set: bytes) -> bool:
    """frame_mbs_only_flag; False, too, where the set cannot be read so far."""
    bits = _Bits(parameter_set[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    try:
        profile = bits.take(8)
        bits.take(16)  # constraints and level
        bits.skip(1)  # seq_parameter_set_id
        if profile in HIGH_PROFILES:
            if bits.golomb() == 3:  # chroma_format_idc
                bits.take(1)
            bits.skip(2)  # bit depths
            bits.take(1)  # lossless flag
            if bits.take(1):  # scaling matrices: rare, and long
                return False
        bits.skip(1)  # log2_max_frame_num
        order = bits.golomb()
        if order == 0:
            bits.skip(1)
        elif order == 1:
            bits.take(1)
            bits.skip(2)
            bits.skip(bits.golomb())
        bits.skip(1)  # max_num_ref_frames
        bits.take(1)  # whether numbers of frames may have gaps
        bits.skip(2)  # width and height
        return bool(bits.take(1))
    except EOFError:
        return False


class _Bits:
    """Reads bits from the front of some bytes."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte, shift = divmod(self._at, 8)
            if byte >= len(self._data):
                raise EOFError
            value = value << 1 | self._data[byte] >> (7 - shift) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        """An Exp-Golomb number, ue(v) or the code of an se(v)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip(self, count: int) -> None:
        """So many Exp-Golomb numbers."""
        for _ in range(count):
            self.golomb()
