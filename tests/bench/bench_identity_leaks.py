"""Who is who by face: thresholds are set on some people and judged on others; mistakes put in are looked for.

REENACT_BENCH_REAL_VIDEOS=FOLDER python -m pytest tests/bench/bench_identity_leaks.py -m bench -s

People are rendered, four recordings of 1.6 s each: REENACT_BENCH_PEOPLE of them, 120 by default, which takes
a quarter of an hour on two cores. REENACT_BENCH_REAL_VIDEOS names a folder of videos and pictures of one real
person each; files that show the same person stand in the CSV (columns file, identity) that
REENACT_BENCH_REAL_NAMES names. Parts of a real video stand for recordings: of one camera and one day, so that
they are more alike than others. REENACT_BENCH_IDENTITY_CACHE names a folder that keeps the embeddings for the
next time; delete it when nets change.
"""

import os
from typing import NamedTuple

import numpy as np
import pytest

from pipelines.corpus import identity_check
from pipelines.corpus.identity_check import find_people
from pipelines.preprocess.identity import IdentityConfig
from tests.bench.identity_people import read_real_people, render_people, spread_frames
from tests.corpus.leak_trials import (
    clips_with_two_names,
    face_clips,
    list_with_recordings,
    sum_trials,
    try_clip_twice,
    try_two_names,
    try_wrong_name,
)

PEOPLE = int(os.environ.get("REENACT_BENCH_PEOPLE", "120"))
REAL_VIDEOS = os.environ.get("REENACT_BENCH_REAL_VIDEOS", "")
REAL_NAMES = os.environ.get("REENACT_BENCH_REAL_NAMES", "")
CONFIG = IdentityConfig()
SINGLE_CLIPS = "the same, of a single clip each"
"""The hardest: two times 1.6 s."""
TRIALS, FEW = 200, 10
RATES = (0.01, 0.003, 0.001, 0.0)
"""Shares of pairs of two people that are taken for one."""


class Pairs(NamedTuple):
    """Distances of pairs of two people, and of one person under two names; both sorted."""

    different: np.ndarray
    same: np.ndarray

    def rates(self, threshold):
        """-> share of false names, and of people found."""
        return float(np.mean(self.different <= threshold)), float(np.mean(self.same <= threshold))


@pytest.fixture(scope="module")
def rendered():
    """People and copies of their recordings, for setting a threshold and for judging."""
    people, copies = render_people(PEOPLE)
    return third_and_rest(with_frames_of_the_stage(people), copies)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """All of them, the copies of their recordings, and halves for setting a threshold and for judging."""
    if not REAL_VIDEOS:
        return None
    people, copies = read_real_people(REAL_VIDEOS, REAL_NAMES, tmp_path_factory.mktemp("real"))
    people = with_frames_of_the_stage(people)
    # most recordings first, so that both halves have as many people with several
    names = sorted(people, key=lambda name: (-len(people[name]), name))
    return people, copies, [{name: people[name] for name in names[start::2]} for start in (0, 1)]


def with_frames_of_the_stage(people):
    return {name: [spread_frames(clips, CONFIG.frames) for clips in own] for name, own in people.items()}


def third_and_rest(people, copies):
    """A third sets the thresholds: the more pairs judge, the finer the rate."""
    names = sorted(people)
    third = len(names) // 3
    parts = [{name: people[name] for name in some} for some in (names[:third], names[third:])]
    return parts, [{one: copies[one] for one in copies if one.rpartition("-")[0] in part} for part in parts]


# --- distances ----------------------------------------------------------------------------------------------
def pairs_of_names(people, recordings):
    """Each person in turn has a second name; the names have so many recordings."""
    different, same = [], []
    for twin in list_with_recordings(people, recordings + 1):
        known = find_people(face_clips(clips_with_two_names(people, twin, recordings, "twin")))
        names = [name for _, name in known.people]
        every = np.arange(len(names))
        matrix = identity_check._distances(known, every, every)
        one, other = names.index(twin), names.index("twin")
        same.append(matrix[one, other])
        matrix[one, other] = matrix[other, one] = np.nan
        different.append(matrix[np.triu_indices(len(names), 1)])
    values = np.concatenate(different)
    return Pairs(np.sort(values[np.isfinite(values)]), np.sort(same))


def pairs_of_few_names(people, recordings):
    """The same among ten people at a time."""
    names = sorted(people)
    found = [pairs_of_names({name: people[name] for name in names[start : start + FEW]}, recordings)
             for start in range(0, len(names) - FEW + 1, FEW)]  # fmt: skip
    return Pairs(*(np.sort(np.concatenate(some)) for some in zip(*found, strict=True)))


def bare_distances(people):
    """L2 of single frames of different people, and of two recordings of one: what dlib's 0.6 is for."""
    first = {name: [one[0].embeddings[0] for one in own] for name, own in people.items()}
    names = sorted(first)
    different = [np.linalg.norm(first[a][0] - first[b][0]) for i, a in enumerate(names) for b in names[:i]]
    same = [np.linalg.norm(own[0] - own[-1]) for own in first.values() if len(own) > 1]
    return Pairs(np.sort(different), np.sort(same))


# --- tables -------------------------------------------------------------------------------------------------
def print_roc(set_on, judged):
    """Both: kind -> Pairs. Thresholds for all kinds at once, and what they do to each kind."""
    pooled = np.sort(np.concatenate([pairs.different for pairs in set_on.values()]))
    thresholds = [(f"set for {rate:.1%}", pooled[int(rate * len(pooled))] - 1e-6) for rate in RATES]
    thresholds.append(("identity.threshold", CONFIG.threshold))
    width = max(len(kind) for kind in judged)
    print("\nfalse names in 1,000 pairs of two people / people under two names who are found")
    print(f"{'judged on':{width}} | two people from | one up to | "
          + " | ".join(f"{name} {at:.2f}" for name, at in thresholds))  # fmt: skip
    for kind, pairs in judged.items():
        cells = []
        for name, at in thresholds:
            false, found = pairs.rates(at)
            cells.append(f"{1000 * false:.2f} / {found:.0%}".rjust(len(f"{name} {at:.2f}")))
        print(f"{kind:{width}} | {pairs.different[0]:15.2f} | {pairs.same[-1]:9.2f} | " + " | ".join(cells))


def print_bare(kind, people):
    false, found = bare_distances(people).rates(0.6)
    print(f"dlib's 0.6 on single frames, {kind}: {1000 * false:.1f} / {found:.0%}")


def run_trials(kind, people, copies):
    """Prints a row for each kind of mistake; asserts what is asked for."""
    rng = np.random.default_rng(0)
    kinds = {
        "one person under two names": lambda: try_two_names(people, 2, CONFIG, rng),
        SINGLE_CLIPS: lambda: try_two_names(people, 1, CONFIG, rng),
        "one clip under a wrong name": lambda: try_wrong_name(people, CONFIG, rng),
        "one clip twice, encoded anew": lambda: try_clip_twice(people, copies, rng),
    }
    results = {name: sum_trials([trial() for _ in range(TRIALS)]) for name, trial in kinds.items()}
    print(f"\n{kind}: {len(people)} people")
    for name, (found, false, pairs) in results.items():
        print(f"  {name:32} | found in {found} of {TRIALS} | {false} false names among {pairs:,} pairs")
    for name, (found, false, pairs) in results.items():
        assert found >= (0.85 if name == SINGLE_CLIPS else 0.9) * TRIALS
        assert false <= pairs / 1000


def rendered_pairs(people):
    found = {}
    for recordings in (1, 2):
        found[f"{recordings} of {len(people)} rendered"] = pairs_of_names(people, recordings)
        if len(people) >= FEW:
            found[f"{recordings} of {FEW} rendered"] = pairs_of_few_names(people, recordings)
    return found


@pytest.mark.bench
def test_thresholds_that_are_set_on_some_people_hold_for_others(rendered, real):
    (calibration, judged), _ = rendered
    set_on, judged_pairs = rendered_pairs(calibration), rendered_pairs(judged)
    print(f"\nthresholds set on {len(calibration)} rendered people, judged on {len(judged)} others; "
          "1 or 2 recordings a name")  # fmt: skip
    print_bare("rendered", judged)
    if real is not None:
        people, _, parts = real
        print_bare("real", people)
        for recordings in (1, 2):
            set_on[f"{recordings} of {len(parts[0])} real"] = pairs_of_names(parts[0], recordings)
            judged_pairs[f"{recordings} of {len(parts[1])} real"] = pairs_of_names(parts[1], recordings)
    print_roc(set_on, judged_pairs)
    for pairs in judged_pairs.values():
        false, found = pairs.rates(CONFIG.threshold)
        assert false <= 0.001
        assert found >= 0.9


@pytest.mark.bench
def test_mistakes_with_rendered_people_are_found(rendered):
    (_, judged), (_, copies) = rendered
    run_trials("rendered", judged, copies)


@pytest.mark.bench
def test_mistakes_with_real_people_are_found(real):
    if real is None:
        pytest.skip("REENACT_BENCH_REAL_VIDEOS names no folder of videos")
    people, copies, _ = real
    run_trials("real", people, copies)
