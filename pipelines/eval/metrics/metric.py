"""What a metric is: a pure function from the frames of a method and of what they are compared with (or
features of both) to a value for each frame or each pair, and how the mean of these becomes the metric's
value.

T = frames of a pair; images are uint8 RGB, shape (T,H,W,3). The values of frames are kept, so that
methods can be compared on any frames that they share, and resampled for an interval, without scoring them
again. A metric of whole clips (how well the mouth follows the sound) has one value for each pair. A metric
that compares two sets of frames, as a Frechet distance does, has no values of frames: it is computed from the
states of both sets, as their moments, and stands for all frames of a method or for none.

What generated frames are compared with is a metric's own: the ground truth where the pair has one, and where
it has none, as in cross-reenactment, what the papers take in its place. The source for identity, the driving
frames for pose and expression, and for some metrics nothing at all: these do not apply there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from pipelines.eval.features import FRAMES_FEATURE, METRIC_FEATURES
from pipelines.eval.methods import Reference
from pipelines.eval.metrics.moments import feature_moments


class FrameSums(Struct, frozen=True):
    """What is known of some frames: states of any frames add up to that of all of them."""

    n: float = 0.0
    """Frames that entered the value."""
    missing: float = 0.0
    """Frames left out."""
    total: float = 0.0
    """Sum of the values of those that entered."""

    def __add__(self, other: FrameSums) -> FrameSums:
        return FrameSums(self.n + other.n, self.missing + other.missing, self.total + other.total)


def _mean(mean: float) -> float:
    return mean


def is_present_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (T,...) -> (T,): 1 where both have the feature, NaN elsewhere; of a metric that compares sets,
    which frames are in them."""
    both = [np.isfinite(one.reshape(len(one), -1)).all(axis=1) for one in (prediction, target)]
    return np.where(both[0] & both[1], 1.0, np.nan)


def moments_of_frames(names: Sequence[str], vectors: np.ndarray) -> Any:
    """(n,D) -> FeatureMoments, whatever the frames are called."""
    return feature_moments(vectors)


def value_of_feature(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(T,) of a method -> (T,) float64: of a metric whose feature is the value of each frame already."""
    return prediction.astype(np.float64)


class Metric(Struct, frozen=True, kw_only=True):
    name: str
    """Two values may be compared only if name, variant, backend and protocol agree."""
    title: str
    meaning: str
    """One line for readers of the report."""
    variant: str
    better: Literal["up", "down"]
    unit: str
    per_frame: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(T,...) of the method and (T,...) of the reference -> (T,) float64, NaN where either lacks the feature.
    Of a metric without a reference both are the method's."""
    per_clip: Callable[[np.ndarray, np.ndarray], float] | None = None
    """Of a metric that has one value for each pair, in place of `per_frame`: the same arguments -> the value,
    NaN where there is none. The metric's value is the mean over pairs."""
    reference: Reference = "truth"
    """What frames of a pair with a ground truth are compared with."""
    cross_reference: Reference | None = None
    """What frames of a pair without a ground truth are compared with; None = the metric does not apply."""
    feature: str = FRAMES_FEATURE
    """What it compares: the frames themselves, uint8, or a name in METRIC_FEATURES."""
    field: str = FRAMES_FEATURE
    """Which of the feature's fields."""
    reference_feature: str = ""
    """What of the reference it is compared with, where that is another feature, such as the sound beside a
    mouth; "" = the same."""
    reference_field: str = ""
    """Which of that feature's fields."""
    lack: str = ""
    """What is said of frames or pairs without a value, where that is not just the feature's lack."""
    on_request: bool = False
    """Left out unless `eval.metrics` names it: another form of a metric that is there without being asked
    for, or a feature that costs as much as all the others."""
    temporal: bool = False
    """Its value of a frame is of the frames before it too: `per_frame` is given frames one step apart, and
    where some are left out between two, each side by itself."""
    min_frame_size: int = 0
    """Of a metric of frames: side in pixels below which it is not computed, and says so."""
    moved_by_speech: bool = False
    """What it compares moves as one speaks: beside driving frames that speak other words it does not
    apply."""
    best_when_still: bool = False
    """A frozen picture has the ideal value: copying the source is no rival."""
    edited_only: bool = False
    """Applies only where generated heads are not to do what the driving frames do: to heads that are turned
    to the camera."""
    finish: Callable[[float], float] = _mean
    """From the mean over frames to the value."""
    centred: bool = False
    """The mean of the feature over all driving frames of the protocol is taken from both sides before
    `per_frame`."""
    of_sets: Callable[[Any, Any], float] | None = None
    """Of a metric that compares sets of frames: (the method's state, the reference's) -> the value, NaN where
    there are too few frames; `per_frame` then says which frames are in the sets."""
    set_state: Callable[[Sequence[str], np.ndarray], Any] = moments_of_frames
    """Of such a metric: names of n frames and their features (n,D) -> a state; states of any frames add up,
    by +, to that of all of them."""

    @property
    def counts(self) -> Literal["frames", "windows", "pairs"]:
        """What it has a value of."""
        if self.per_clip is not None:
            return "pairs"
        return "windows" if self.window > 1 else "frames"

    @property
    def window(self) -> int:
        """Frames that one value is of."""
        return 1 if self.feature == FRAMES_FEATURE else METRIC_FEATURES[self.feature].window

    @property
    def compared(self) -> tuple[str, str]:
        """Feature and field of the generated frames."""
        return self.feature, self.field

    @property
    def compared_with(self) -> tuple[str, str]:
        """Feature and field of the reference."""
        return (self.reference_feature, self.reference_field) if self.reference_feature else self.compared

    def reference_in(
        self, has_truth: bool, follows_driving: bool = True, other_sound: bool = False
    ) -> Reference | None:
        """What frames of a protocol are compared with; None = the metric does not apply there.
        follows_driving: whether generated heads are to do what the driving frames do. other_sound: whether
        they speak other words than those."""
        if (self.edited_only and follows_driving) or (self.moved_by_speech and other_sound):
            return None
        reference = self.reference if has_truth else self.cross_reference
        return reference if follows_driving or reference != "driving" else None

    @property
    def feature_includes_truth(self) -> bool:
        """Whether its feature is of the method's frames and the truth's together."""
        return self.feature != FRAMES_FEATURE and self.field in METRIC_FEATURES[self.feature].pair_fields

    def compute(self, sums: FrameSums) -> float:
        """NaN where no frame entered."""
        return self.finish(sums.total / sums.n) if sums.n else float("nan")


def sum_frame_values(values: np.ndarray, keep: np.ndarray | None = None) -> FrameSums:
    """Values of frames (T,), and which of them count (T,) bool; by default those that have one."""
    keep = np.isfinite(values) if keep is None else keep
    if keep.shape != values.shape:
        raise ValueError(f"keep {keep.shape} for {len(values)} frames: expected one bool each")
    if not np.isfinite(values[keep]).all():
        raise ValueError("keep names frames without a value")
    return FrameSums(float(keep.sum()), float((~keep).sum()), float(values[keep].sum()))
