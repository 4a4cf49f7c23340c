"""Clips as models see them (models.api.Clip), over the families that hold their frames and fields."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.dataset.unit_rows import TableRows, read_rows

if TYPE_CHECKING:
    from storage.families import Artifact

MAX_CACHED_FIELDS = 2048
"""Whole small fields (landmarks: 54 KB for 100 frames) kept decoded."""


class ClipFamily(Protocol):
    """What is used of a storage.families.Family, or of the rows of a table."""

    @property
    def keys(self) -> list[str]: ...
    def __contains__(self, key: str) -> bool: ...
    def recording_of(self, key: str) -> str: ...
    def frame_count(self, key: str) -> int: ...
    def read(self, key: str, fields: Sequence[str] | None = None) -> dict[str, Any]: ...
    def frames(self, key: str, indices: Sequence[int]) -> np.ndarray: ...


class Clips:
    """Clips and where their fields are read. Pickles; opens nothing before it is asked.

    `clips`: the family that holds the frames, or any one where no frames are read; `fields`: field -> the
    family that holds it.
    """

    def __init__(self, clips: ClipFamily, fields: Mapping[str, ClipFamily]) -> None:
        self.clips, self.fields = clips, dict(fields)
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Clips, (self.clips, self.fields))

    @property
    def shows_view(self) -> bool:
        """Whether the frames are those of a view, whose own numbers of pixels and frames `affine` and
        `frame_at` tell."""
        return self.fields.get("affine") is self.clips

    def read(self, key: str, name: str) -> Any:
        """A whole field of a clip; small ones are read again and again, so the last ones stay decoded."""
        with self._lock:
            if (key, name) in self._kept:
                self._kept.move_to_end((key, name))
                return self._kept[key, name]
        value = self.fields[name].read(key, [name])[name]
        with self._lock:
            self._kept[key, name] = value
            while len(self._kept) > MAX_CACHED_FIELDS:
                self._kept.popitem(last=False)
        return value


class StoredClip:
    """models.api.Clip: one of `Clips`."""

    def __init__(self, clips: Clips, key: str) -> None:
        self.stored, self.key = clips, key
        self.length = clips.clips.frame_count(key)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        return self.stored.clips.frames(self.key, indices)

    def read_field(self, name: str) -> Any:
        return self.stored.read(self.key, name)

    def read_points(self, name: str, indices: Sequence[int]) -> np.ndarray:
        points = self.read_field(name)
        if not self.stored.shows_view:
            return points[indices]
        affine, frame_at = self.read_field("affine"), self.read_field("frame_at")
        return map_points_to_view(points, affine[indices], frame_at[indices])


def map_points_to_view(points: np.ndarray, affine: np.ndarray, frame_at: np.ndarray) -> np.ndarray:
    """points (T,K,2) in pixels of a clip's frames -> (n,K,2) in pixels of n frames of its view, by their
    affine (n,2,3) and frame_at (n,)."""
    affine = np.asarray(affine, np.float64)
    return np.einsum("nij,nkj->nki", affine[:, :, :2], points[frame_at]) + affine[:, None, :, 2]


def open_clip_families(
    inputs: Mapping[str, Artifact], reads: Mapping[str, Sequence[str]], tables: Collection[str] = ()
) -> tuple[Clips, list[str]]:
    """What a model reads of aligned families -> its clips, and the keys that every family has.

    `inputs`: node -> artifact; `reads`: node -> the fields read from it, one at least; `tables`: the nodes
    that publish a table, whose rows are read as a family. The clips show the frames of the node of which
    frames are read.
    """
    families: dict[str, ClipFamily] = {
        node: TableRows(read_rows(inputs[node])) if node in tables else inputs[node].open_family()
        for node in reads
    }
    fields = {name: families[node] for node, names in reads.items() for name in names if name != "frames"}
    frames_node = next((node for node, names in reads.items() if "frames" in names), next(iter(reads)))
    keys = [key for key in families[frames_node].keys if all(key in one for one in families.values())]
    return Clips(families[frames_node], fields), keys
