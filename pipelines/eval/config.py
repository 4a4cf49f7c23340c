"""The sections `eval` and `report` of a run file."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from msgspec import Struct, field

from pipelines.eval.methods import LANDMARK_METHOD_FUNCTIONS, METHOD_FUNCTIONS
from pipelines.eval.metrics import DEFAULT_METRICS, METRICS
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.eval.scored_frames import CLIPS_FAMILY, VIEW_FAMILY_PREFIX, check_scored_family_name
from storage.uris import ExpandedPath

OWN_METHODS = (*METHOD_FUNCTIONS, *LANDMARK_METHOD_FUNCTIONS)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class ExternalMethodConfig(Struct, frozen=True, kw_only=True):
    """Frames that other code made (pipelines/eval/external_frames.py says how they are named)."""

    not_in_key: ClassVar[tuple[str, ...]] = ("folder", "protocols", "driven_by")

    folder: ExpandedPath
    """Where they lie: a video or a folder of pictures for each pair. Their content is in the key."""
    protocols: tuple[str, ...] = ()
    """Names of the protocols whose pairs they are of; empty = all of the run."""
    driven_by: tuple[Literal["frames", "sound"], ...] = ("frames",)
    """What the method was given of what it is to do."""


class OpenFaceFiles(Struct, frozen=True, kw_only=True):
    """What OpenFace 2 found in a method's frames (pipelines/eval/openface.py says how files are named)."""

    not_in_key: ClassVar[tuple[str, ...]] = ("folder",)

    folder: ExpandedPath
    """Where they lie: a CSV file for each pair. Their content is in the key."""


class EvalConfig(Struct, frozen=True, kw_only=True):
    not_in_key: ClassVar[tuple[str, ...]] = ("data", "frames_from")

    protocols: dict[str, EvaluationProtocol | None] = field(
        default_factory=lambda: {"self": EvaluationProtocol()}
    )
    """Name -> how pairs are made and scored; null leaves one of the defaults out."""
    data: str = ""
    """The corpus whose test clips are sources and drivings, unless a protocol says; empty = that of the
    first model."""
    frames_from: str = CLIPS_FAMILY
    """The family whose frames are sources, driving frames and truth, unless a protocol says: `clips`, as they
    are stored (JPEG by default), or a view of recipe clip_square, as views.truth: the test clips without
    loss."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Names from pipelines/eval/metrics, of protocols whose pairs have a ground truth."""
    methods: dict[str, ExternalMethodConfig] = field(default_factory=dict)
    """Name -> a method of other code, compared with the models: its frames lie in a folder."""
    openface: dict[str, dict[str, OpenFaceFiles]] = field(default_factory=dict)
    """Protocol -> method, `truth` or `driving` among them -> what OpenFace 2 found in its frames, for
    au_h_openface."""
    checkpoint: Literal["last", "best"] = "last"
    """Of the model's last phase: its last step, or the step of its best validation, by PSNR unless `best` of
    the phase names another figure. Of released weights there is one set."""

    def __post_init__(self) -> None:
        check_scored_family_name(self.frames_from)
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {list(self.metrics)}: expected some of {', '.join(METRICS)}")
        for name, method in self.methods.items():
            if not _NAME.fullmatch(name) or name in OWN_METHODS:
                others = ", ".join(OWN_METHODS)
                raise ValueError(
                    f"methods.{name}: expected letters, digits and _, a letter first, and none of {others}"
                )
            if others := [one for one in method.protocols if one not in self.active_protocols]:
                known = ", ".join(self.active_protocols)
                raise ValueError(f"methods.{name}.protocols {others}: expected some of {known}")

    @property
    def active_protocols(self) -> dict[str, EvaluationProtocol]:
        """The protocols that are not left out."""
        return {name: protocol for name, protocol in self.protocols.items() if protocol is not None}

    def scored_view(self, protocol: EvaluationProtocol) -> str:
        """The view that a protocol takes frames from; "" = none, the clips themselves."""
        family = protocol.frames_from or self.frames_from
        return "" if family == CLIPS_FAMILY else family.removeprefix(VIEW_FAMILY_PREFIX)


class ReportConfig(Struct, frozen=True, kw_only=True):
    title: str = "Face reenactment, compared"
    """Heading of the page."""
    grid_pairs: int = 4
    """Rows of each sample grid, spread evenly over the pairs."""
    videos: int = 2
    """Side-by-side videos of each model, of the first pairs of its grid; each adds its size to the page."""
    resamples: int = 1000
    """Bootstrap resamples over identities behind each 95 % interval."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        for name in ("grid_pairs", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if not 0 <= self.videos <= self.grid_pairs:
            raise ValueError(f"videos {self.videos}: expected 0 to grid_pairs, {self.grid_pairs}")
