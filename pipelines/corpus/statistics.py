"""What node `corpus` finds out about the data: what was lost on the way, who is in which split, what the
clips are like. `page.py` renders it.

Counts come from every record; distributions and pictures from at most SAMPLED clips, drawn by the hash of
their keys, so that a clip more changes little of what is shown.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipelines.dataset.recording_table import Recording
    from pipelines.media.probe_schema import Probe
    from pipelines.preprocess.sources.common.rows import RejectRow
    from storage.families import Artifact, Family, ManifestRow
    from storage.shards import Sample

FPS = 25
MAX_SAMPLED_CLIPS = 400
"""Clips whose landmarks, poses and expressions are read for the distributions."""
MAX_SAMPLED_RECORDING_PROBES = 20_000
"""Recordings whose probes are read."""
THUMBNAIL_COUNT = 24
MAX_LISTED_IDENTITIES = 12
"""Identities listed by name."""
MAX_REJECT_EXAMPLES = 3
"""Rejected units shown for a code."""
CORPUS_STATISTICS_STAGES = ("download", "clips", "keypoints", "fit3dmm", "speech")
FRAME_STEP = 5
"""Frames between those that count for faces, poses and expressions."""
PERCENTILES = (5, 25, 50, 75, 95)
EYELID_LANDMARKS, INNER_LIP_LANDMARKS, EYE_CORNER_LANDMARKS = (
    ((37, 41), (38, 40), (43, 47), (44, 46)),
    (62, 66),
    (36, 45),
)
"""Landmarks: upper and lower lids, inner lips, outer corners."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCounts:
    """A keyed node's manifest, counted."""

    name: str
    ok: int
    rejected: int
    clips: int
    hours: float
    """Of the clips that it has; 0 for downloads, which have none yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    name: str
    identities: int
    recordings: int
    clips: int
    hours: float


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityCounts:
    name: str
    splits: list[str]
    recordings: int
    clips: int
    hours: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectCount:
    node: str
    code: str
    count: int
    examples: list[str]
    """Units and their reasons, as recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicateFiles:
    """Recordings whose files are the same bytes."""

    digest: str
    recordings: list[str]
    splits: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlippedClip:
    """A clip with frames whose landmarks slip (pipelines/preprocess/landmark_slips.py)."""

    key: str
    frames: int
    """Those with such landmarks, which are left out."""
    of: int
    """Frames in which landmarks were found."""
    worst: int
    """The frame that slips furthest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusStatistics:
    """Everything the page says, without its pictures; corpus.json."""

    listed: int
    """Rows of the source, those rejected there included."""
    recordings: int
    stages: list[StageCounts]
    splits: list[SplitCounts]
    identities: list[IdentityCounts]
    """Those with the most video."""
    shared: list[str]
    """Identities in more than one split; must be empty."""
    duplicates: list[DuplicateFiles]
    rejects: list[RejectCount]
    sampled: int
    probed: int
    """Downloaded recordings whose probes were read for what follows, and for duplicates."""
    resolutions: dict[str, int]
    """WIDTH x HEIGHT -> how many."""
    transports: dict[str, int]
    """How they were brought -> how many."""
    soundless: int = 0
    """Of those probed: recordings without sound. HeadGAN hears zeros in their clips."""
    interlaced: int = 0
    """Of those probed: recordings of interlaced video, whose clips are deinterlaced."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Tracks that made no clip in sampled recordings that made others: code -> how many."""
    unfitted: list[str] = field(default_factory=list)
    """Clips that fit3dmm left out (`no_fit`) of recordings in which it kept others."""
    slip_frames: int = 0
    """Frames of the sampled clips in which landmarks were found twice."""
    slipped_frames: int = 0
    """Of those: frames whose landmarks slip, and are left out."""
    slipped_clips: list[SlippedClip] = field(default_factory=list)
    """Sampled clips with such frames, those with the largest share first."""
    slipped_out: list[str] = field(default_factory=list)
    """Clips that keypoints left out, as they slip in too many frames, of recordings in which it kept others;
    those of a recording that lost all are counted as its reject."""
    values: dict[str, list[float]] = field(default_factory=dict)
    """Distributions by name; see `measure_clips`."""
    expression: list[list[float]] = field(default_factory=list)
    """PERCENTILES of each expression coefficient, sigmas."""

    def stage_counts(self, name: str) -> StageCounts:
        return next(stage for stage in self.stages if stage.name == name)


def subsample_keys(keys: Sequence[str], most: int) -> list[str]:
    """Up to `most` keys at random: those whose hashes come first, in order of key."""
    first = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:most]
    return sorted(first)


def corpus_mlflow_metrics(facts: CorpusStatistics) -> dict[str, float]:
    """For MLflow: corpus/NAME."""
    clips = facts.stage_counts("clips")
    found: dict[str, float] = {
        "recordings": facts.recordings,
        "listed": facts.listed,
        "identities": sum(split.identities for split in facts.splits),
        "clips": clips.clips,
        "hours": clips.hours,
        "duplicates": sum(len(d.recordings) - 1 for d in facts.duplicates),
        "soundless": facts.soundless,
        "interlaced": facts.interlaced,
        "shared_identities": len(facts.shared),
        "unfitted": len(facts.unfitted),
        "slipped_out": len(facts.slipped_out),
    }
    if facts.slip_frames:
        found["slipped_frames_percent"] = 100 * facts.slipped_frames / facts.slip_frames
    found |= {f"rejected.{stage.name}": stage.rejected for stage in facts.stages}
    found |= {f"hours.{split.name}": split.hours for split in facts.splits}
    medians = ("seconds", "crop", "face", "found", "fit_error", "mouth")
    found |= {
        f"median.{name}": float(np.median(facts.values[name])) for name in medians if facts.values.get(name)
    }
    return {f"corpus/{name}": value for name, value in found.items()}


# --- counts -------------------------------------------------------------------------------------------------
def compute_corpus_statistics(
    rows: Sequence[Recording],
    rejects: Sequence[RejectRow],
    artifacts: Mapping[str, Artifact],
    clips: Family,
    probed: Mapping[str, Probe],
) -> CorpusStatistics:
    """Recordings, their rejects, the keyed artifacts by node, the clips' family and the probes of recordings
    -> counts."""
    manifests = {name: artifact.manifest() for name, artifact in artifacts.items()}
    frames = {row.unit: row.frames for row in manifests["clips"] if row.status == "ok"}
    stages = [
        StageCounts(
            name=name,
            ok=sum(row.status == "ok" for row in manifest),
            rejected=sum(row.status == "rejected" for row in manifest),
            clips=sum(row.clips for row in manifest) if name != "download" else 0,
            hours=_hours(manifest, frames) if name != "download" else 0.0,
        )
        for name, manifest in manifests.items()
    ]
    people = _identities(rows, clips)
    return CorpusStatistics(
        listed=len(rows) + len(rejects),
        recordings=len(rows),
        stages=stages,
        splits=_splits(rows, people),
        identities=sorted(people, key=lambda one: (-one.hours, one.name))[:MAX_LISTED_IDENTITIES],
        shared=[one.name for one in people if len(one.splits) > 1],
        duplicates=find_duplicates(rows, probed),
        rejects=_rejects(rejects, manifests),
        sampled=min(len(clips.keys), MAX_SAMPLED_CLIPS),
        probed=len(probed),
        resolutions=_tally(f"{probe['width']} x {probe['height']}" for probe in probed.values()),
        transports=_tally(probe.get("transport", "") for probe in probed.values()),
        soundless=sum(not probe["audio_rate"] for probe in probed.values()),
        interlaced=sum(bool(probe.get("interlaced")) for probe in probed.values()),
        values={
            "clips_each": [float(one.clips) for one in people],
            "raw_seconds": [float(probe["seconds"]) for probe in probed.values()],
            "raw_fps": [float(probe["fps"]) for probe in probed.values()],
        },
    )


def _tally(names: Iterable[str]) -> dict[str, int]:
    """Name -> how often, the commonest first."""
    return dict(sorted(Counter(names).items(), key=lambda one: (-one[1], one[0])))


def _hours(manifest: Sequence[ManifestRow], frames: Mapping[str, int]) -> float:
    return sum(frames.get(row.unit, 0) for row in manifest if row.status == "ok") / FPS / 3600


def _identities(rows: Sequence[Recording], clips: Family) -> list[IdentityCounts]:
    """By name. A second face of a recording counts for the identity that the source gave the recording."""
    frames: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for key in clips.keys:
        recording = clips.recording_of(key)
        frames[recording] += clips.frame_count(key)
        made[recording] += 1
    rows_of: dict[str, list[Recording]] = {}
    for row in rows:
        rows_of.setdefault(row["identity"], []).append(row)
    return [
        IdentityCounts(
            name=name,
            splits=sorted({row["split"] for row in mine}),
            recordings=len(mine),
            clips=sum(made[row["id"]] for row in mine),
            hours=sum(frames[row["id"]] for row in mine) / FPS / 3600,
        )
        for name, mine in sorted(rows_of.items())
    ]


def _splits(rows: Sequence[Recording], people: Sequence[IdentityCounts]) -> list[SplitCounts]:
    found = []
    for name in sorted({row["split"] for row in rows}, reverse=True):  # train before test
        mine = [one for one in people if name in one.splits]
        found.append(
            SplitCounts(
                name=name,
                identities=len(mine),
                recordings=sum(row["split"] == name for row in rows),
                clips=sum(one.clips for one in mine),
                hours=sum(one.hours for one in mine),
            )
        )
    return found


def find_duplicates(rows: Sequence[Recording], probed: Mapping[str, Probe]) -> list[DuplicateFiles]:
    """Recordings with the same bytes under several names: by what was downloaded, else by the listed file."""
    same: dict[str, list[Recording]] = {}
    for row in rows:
        known = probed.get(row["id"], row)
        if content := known.get("sha256", ""):
            same.setdefault(content, []).append(row)
    return [
        DuplicateFiles(
            digest=digest,
            recordings=sorted(row["id"] for row in group),
            splits=sorted({row["split"] for row in group}),
        )
        for digest, group in sorted(same.items())
        if len(group) > 1
    ]


def _rejects(
    rejects: Sequence[RejectRow], manifests: Mapping[str, Sequence[ManifestRow]]
) -> list[RejectCount]:
    """Counted by node and code, in the order of the road, the commonest first."""
    reasons_of = [("recordings", row["code"], f"{row['id']}: {row['sentence']}") for row in rejects]
    reasons_of += [
        (name, row.code, f"{row.unit}: {row.reason}")
        for name, manifest in manifests.items()
        for row in manifest
        if row.status == "rejected"
    ]
    counts = Counter((node, code) for node, code, _ in reasons_of)
    examples: dict[tuple[str, str], list[str]] = {}
    for node, code, text in reasons_of:
        if len(reasons := examples.setdefault((node, code), [])) < MAX_REJECT_EXAMPLES:
            reasons.append(text)
    order = ["recordings", *CORPUS_STATISTICS_STAGES]
    return [
        RejectCount(node=node, code=code, count=counts[node, code], examples=examples[node, code])
        for node, code in sorted(counts, key=lambda one: (order.index(one[0]), -counts[one], one[1]))
    ]


# --- distributions ------------------------------------------------------------------------------------------
def measure_clips(
    families: Mapping[str, Family], keys: Sequence[str], progress: Callable[[int, int, str], None]
) -> tuple[dict[str, list[float]], list[list[float]]]:
    """Distributions over sampled clips: one value a clip, or one a frame (every 5th) for faces, poses and
    expressions. Also the percentiles of each expression coefficient."""
    values: dict[str, list[float]] = {}
    expressions: list[np.ndarray] = []
    for i, key in enumerate(keys):
        found = _of_clip(families["clips"].read(key, ["crop", "clip"]))
        if "keypoints" in families and key in families["keypoints"]:
            found |= _of_landmarks(families["keypoints"].read(key, ["landmarks"])["landmarks"])
        if "fit3dmm" in families and key in families["fit3dmm"]:
            fit = families["fit3dmm"].read(key, ["angles", "fit_error", "exp_coeffs"])
            seen = np.isfinite(fit["fit_error"])
            angles = fit["angles"][seen][::FRAME_STEP]
            found |= dict(zip(("pitch", "yaw", "roll"), angles.T.tolist(), strict=True))
            found["fit_error"] = fit["fit_error"][seen][::FRAME_STEP].tolist()
            expressions.append(fit["exp_coeffs"][seen][::FRAME_STEP])
        for name, some in found.items():
            values.setdefault(name, []).extend(some)
        progress(i + 1, len(keys), f"{len(keys):,} clips")
    every = np.concatenate(expressions) if expressions else np.empty((0, 0))
    return values, np.percentile(every, PERCENTILES, axis=0).T.round(4).tolist() if len(every) else []


def find_slipped_clips(keypoints: Family, keys: Sequence[str]) -> tuple[int, list[SlippedClip]]:
    """Keypoints of clips -> frames in which landmarks were found twice, and the clips with frames that have
    none because they slip, those with the largest share first. (0, []) of keypoints without a slip."""
    frames, found = 0, []
    for key in keys:
        if key not in keypoints or "slip" not in keypoints.fields(key):
            continue
        clip = keypoints.read(key, ["landmarks", "slip"])
        slip, lost = clip["slip"], ~np.isfinite(clip["landmarks"]).all((1, 2))
        measured = np.isfinite(slip)
        frames += int(measured.sum())
        if count := int((measured & lost).sum()):
            worst = int(np.argmax(np.where(measured & lost, slip, -1.0)))
            found.append(SlippedClip(key=key, frames=count, of=int(measured.sum()), worst=worst))
    return frames, sorted(found, key=lambda one: (-one.frames / one.of, one.key))


def _of_clip(clip: Sample) -> dict[str, list[float]]:
    """Length, crop, and the gates' scores where the clip records them."""
    found = {
        "seconds": [len(clip["crop"]) / FPS],
        "crop": np.diff(clip["crop"][::FRAME_STEP, [0, 2]]).ravel().tolist(),
    }
    for name in ("sharpness", "audible"):
        if clip["clip"].get(name) is not None:
            found[name] = [float(clip["clip"][name])]
    return found


def _of_landmarks(landmarks: np.ndarray) -> dict[str, list[float]]:
    """landmarks (T,68,2) -> share of frames with a face, its size, and how far eyes and mouth are open, in
    distances of the outer eye corners."""
    seen = np.isfinite(landmarks).all(axis=(1, 2))
    points = landmarks[seen][::FRAME_STEP]
    unit = np.linalg.norm(points[:, EYE_CORNER_LANDMARKS[1]] - points[:, EYE_CORNER_LANDMARKS[0]], axis=1)

    def apart(pair: tuple[int, int]) -> np.ndarray:
        return np.linalg.norm(points[:, pair[1]] - points[:, pair[0]], axis=1) / np.maximum(unit, 1e-6)

    extent = np.ptp(points, axis=1)  # (n,2)
    return {
        "found": [100 * float(seen.mean())],
        "face": np.sqrt(extent.prod(axis=1)).tolist(),
        "mouth": apart(INNER_LIP_LANDMARKS).tolist(),
        "eyes": np.mean([apart(pair) for pair in EYELID_LANDMARKS], axis=0).tolist(),
    }


def read_sampled_probes(download: Artifact) -> dict[str, Probe]:
    """Probes of downloaded recordings by id, at most PROBED at random: each lies in a pack of its own, and so
    costs two small reads."""
    units = subsample_keys(
        [row.unit for row in download.manifest() if row.status == "ok"], MAX_SAMPLED_RECORDING_PROBES
    )
    family = download.open_family(units)
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda key: family.read(key, ["probe"])["probe"], family.keys)
        return dict(zip(family.keys, found, strict=True))


def count_dropped_tracks(clips: Family, keys: Sequence[str]) -> dict[str, int]:
    """Tracks that made no clip in the recordings of these clips; a recording's last clip tells of all."""
    of = {clips.recording_of(key) for key in keys}
    last = {recording: key for key in clips.keys if (recording := clips.recording_of(key)) in of}
    lost: Counter[str] = Counter()
    for key in last.values():
        lost.update(clips.read(key, ["clip"])["clip"].get("dropped") or {})
    return _tally(lost.elements())


def clips_left_out(given: Family, kept: Family) -> list[str]:
    """Keys that a stage was given and has not kept, of recordings in which it kept others: one of which it
    kept nothing is rejected."""
    some = {kept.recording_of(key) for key in kept.keys}
    return [key for key in given.keys if key not in kept and given.recording_of(key) in some]


def summarize_statistics(facts: CorpusStatistics) -> dict[str, Any]:
    """The facts with each distribution as percentiles."""
    found = asdict(facts)
    found["values"] = {
        name: {f"p{p:02d}": round(float(np.percentile(data, p)), 4) for p in PERCENTILES}
        for name, data in facts.values.items()
        if data
    }
    return found
