"""`reenact pairs`: the pairs of a protocol as files, for methods whose code is somebody else's; and the
frames of a method of the run as files, in the layout that `eval.methods` reads.

Of the first kind, in a folder of its own for each pair:

  NAME/source_0.png ...      source pictures, at the size that all methods are scored at
  NAME/driving/00000.png ... driving frames, likewise, without loss, at 25 a second
  NAME/driving.wav           the sound from the first of them to the last, 16 kHz mono, of the clip that is
                             heard, where it has any

Of the second NAME/00000.png ...: a picture for each driving frame. Beside them lies pairs.csv, as the node
`pairs.<protocol>` published it: NAME, clips and numbers of frames.

Everything comes from what a run has published; nothing is computed here but the source pictures' size.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
from msgspec import Struct

from pipelines.errors import UserError, write_user_output_file
from pipelines.eval.pairs import PAIR_LIST_FILE, ClipPair, pair_file_name
from pipelines.figures.picture_grids import encode_png, resize_frames, to_uint8
from pipelines.media.clock import SAMPLES_PER_FRAME, SOUND_RATE

SOUND_FILE = "driving.wav"


class FrameFamily(Interface):
    """What is used of a storage.families.Family."""

    def __contains__(self, key: str, /) -> bool: ...
    def frame_count(self, key: str, /) -> int: ...
    def frames(self, key: str, indices: Sequence[int], /) -> np.ndarray: ...
    def read(self, key: str, fields: Sequence[str] | None = None, /) -> dict[str, Any]: ...


class PairInputs(Struct, frozen=True, kw_only=True):
    """Families that hold what methods are given."""

    source_clips: FrameFamily
    """Of which source pictures are frames."""
    driving: FrameFamily
    """A sample a pair: its driving frames at the scored size."""
    sound_clips: FrameFamily
    """The clips that are heard."""
    size: int
    """The scored size, in pixels."""


def make_export_folder(folder: Path) -> None:
    """UserError where it holds something already, or cannot be made: what lies there from another export
    would be scored as if it belonged to this one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = next(folder.iterdir(), None)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    if found is not None:
        raise UserError(f"{folder} is not empty, it holds {found.name}; name a new folder")


def export_pair_list(published: Path, folder: Path) -> None:
    write_user_output_file(folder / PAIR_LIST_FILE, published.read_bytes())


def export_pair_inputs(pair: ClipPair, inputs: PairInputs, folder: Path) -> bool:
    """The files of one pair; whether it has sound."""
    own = folder / pair_file_name(pair.id)
    (own / "driving").mkdir(parents=True)
    sources = inputs.source_clips.frames(pair.source_clip, pair.source_frames)
    for place, image in enumerate(to_uint8(resize_frames(sources, inputs.size))):
        write_user_output_file(own / f"source_{place}.png", encode_png(image))
    _write_frames(own / "driving", inputs.driving, pair)
    sample = inputs.sound_clips.read(pair.sound_clip or pair.driving_clip, ["sound", "clip"])
    if not sample["clip"].get("has_sound", True):
        return False
    sound = cut_driving_sound(sample["sound"], pair.driving_frames)
    write_user_output_file(own / SOUND_FILE, encode_wav(sound))
    return True


def export_pair_frames(pair: ClipPair, generated: FrameFamily, folder: Path) -> bool:
    """The frames that a method made of one pair; False where it made none."""
    if pair.id not in generated:
        return False
    own = folder / pair_file_name(pair.id)
    own.mkdir()
    _write_frames(own, generated, pair)
    return True


def cut_driving_sound(sound: np.ndarray, frames: Sequence[int]) -> np.ndarray:
    """(n,) of a whole clip -> that from the first of these frames to the last, in full."""
    return sound[frames[0] * SAMPLES_PER_FRAME : (frames[-1] + 1) * SAMPLES_PER_FRAME]


def encode_wav(sound: np.ndarray) -> bytes:
    """(n,) float32 in [-1,1], of 16 bits as the clips keep it -> the same samples as WAV"""
    import soundfile

    out = io.BytesIO()
    samples = np.clip(np.round(sound * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    soundfile.write(out, samples, SOUND_RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()


def _write_frames(folder: Path, family: FrameFamily, pair: ClipPair) -> None:
    """A picture for each driving frame; one that stands for all of them is written as often."""
    found, wanted = family.frame_count(pair.id), len(pair.driving_frames)
    files = [encode_png(image) for image in family.frames(pair.id, range(found))]
    for place, data in enumerate(files * wanted if found == 1 else files):
        write_user_output_file(folder / f"{place:05d}.png", data)


def describe_export(
    protocol: str, pairs: int, folder: Path, missing: str, without: Sequence[str]
) -> list[str]:
    """What was written. missing: what some pairs lack; without: the names of these."""
    lines = [f"wrote {pairs} pair{'s' * (pairs != 1)} of protocol {protocol} to {folder}"]
    if without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        lines.append(f"  without {missing}: {', '.join(without[:3])}{more}")
    return lines
