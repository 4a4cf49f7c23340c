import dataclasses

import numpy as np
import pytest

from pipelines.corpus import corpus_page, statistics

EMPTY = {
    "listed": 0, "recordings": 0, "stages": [], "splits": [], "identities": [], "shared": [],
    "duplicates": [], "rejects": [], "sampled": 0, "probed": 0, "resolutions": {}, "transports": {},
}  # fmt: skip


def test_splits_count_people_clips_and_hours(facts):
    train, test = facts["splits"]
    assert (train["name"], train["identities"], train["clips"]) == ("train", 1, 2)
    assert (test["name"], test["identities"], test["clips"]) == ("test", 2, 4)
    assert test["hours"] == pytest.approx(4 * 9 / 25 / 3600)


def test_rejects_are_counted_by_node_and_code_with_an_example(facts):
    assert [(r["node"], r["code"], r["count"]) for r in facts["rejects"]] == [
        ("recordings", "bad_id", 1),
        ("clips", "no_face", 1),
    ]
    assert facts["rejects"][1]["examples"] == ["rec9: no face in any of 40 frames"]


def test_the_road_counts_rows_the_source_lost(facts):
    assert (facts["listed"], facts["recordings"]) == (7, 6)


def test_a_person_in_both_splits_is_called_out(corpus_inputs):
    rows = [{"id": "r1", "identity": "p", "split": "train"}, {"id": "r2", "identity": "p", "split": "test"}]
    stages = {name: corpus_inputs[name] for name in statistics.CORPUS_STATISTICS_STAGES}
    found = statistics.compute_corpus_statistics(rows, [], stages, corpus_inputs["clips"].open_family(), {})
    assert found.shared == ["p"]
    assert "1 identities are in more than one split: p" in corpus_page.render_corpus_page(found, [])


def test_distributions_leave_out_frames_without_a_face(facts):
    assert facts["values"]["found"]["p50"] == pytest.approx(100 * 8 / 9, abs=1e-3)
    assert facts["values"]["crop"]["p50"] == 100


def test_the_same_video_under_two_names_is_found_even_across_splits(facts, built):
    assert facts["duplicates"] == [
        {"digest": "same", "recordings": ["rec0", "rec4"], "splits": ["test", "train"]}
    ]
    assert "1 of them lie in two splits" in (built.out / "corpus.html").read_text()


def test_a_listed_file_that_was_never_downloaded_is_compared_by_its_digest():
    rows = [{"id": i, "split": "train", "sha256": "ab"} for i in ("a", "b")]
    assert statistics.find_duplicates(rows, {})[0].recordings == ["a", "b"]
    assert statistics.find_duplicates(rows, {"a": {"sha256": "cd"}}) == []
    assert statistics.find_duplicates([row | {"sha256": ""} for row in rows], {}) == []


def test_recordings_are_counted_by_size_and_identities_by_video(facts):
    assert facts["resolutions"] == {"1280 x 720": 5, "640 x 360": 2}
    assert facts["transports"] == {"local": 5, "mirror": 2}
    assert [one["name"] for one in facts["identities"]] == ["id0", "id1", "id2"]
    assert facts["identities"][1]["splits"] == ["test"]
    assert facts["values"]["clips_each"]["p50"] == 2
    assert facts["values"]["raw_seconds"]["p50"] == 4


def test_recordings_without_sound_are_counted(facts, built):
    assert facts["soundless"] == 2
    assert built.figures["corpus/soundless"] == 2
    assert "2 without sound" in (built.out / "corpus.html").read_text()


def test_interlaced_recordings_are_counted(facts, built):
    assert facts["interlaced"] == 1
    assert "1 interlaced (clips are deinterlaced)" in (built.out / "corpus.html").read_text()


def test_tracks_that_made_no_clip_are_counted_once_a_recording(facts, make_family):
    assert facts["dropped"] == {"too_short": 12}
    keys = ["a#r#000000#000009", "a#r#000009#000018"]
    told = dict(zip(keys, ({"too_short": 1}, {"too_short": 1, "blurred": 2}), strict=True))
    family = make_family(dict.fromkeys(keys), fields={k: {"clip": {"dropped": d}} for k, d in told.items()})
    assert statistics.count_dropped_tracks(family, keys[:1]) == {"blurred": 2, "too_short": 1}


def test_frames_whose_landmarks_slip_are_counted_and_their_clips_named(facts, built, clips):
    first = min(clips)
    measured = sum(len(frames) - 1 for frames in clips.values())  # the last frame of each shows no face
    assert (facts["slipped_frames"], facts["slip_frames"]) == (2, measured)
    assert facts["slipped_clips"] == [{"key": first, "frames": 2, "of": len(clips[first]) - 1, "worst": 3}]
    assert built.figures["corpus/slipped_frames_percent"] == pytest.approx(200 / measured)


def test_keypoints_that_were_found_once_have_no_slips(make_family, clips):
    once = make_family(clips, fields={key: {"landmarks": np.zeros((9, 68, 2))} for key in clips})
    assert statistics.find_slipped_clips(once, list(clips)) == (0, [])


def test_clips_that_lost_their_fit_beside_others_are_named(make_family):
    keys = [f"a#{recording}#{at:06d}#{at + 9:06d}" for recording in ("r", "s") for at in (0, 9)]
    clips, fits = make_family(dict.fromkeys(keys)), make_family(dict.fromkeys(keys[1:2]))
    assert statistics.clips_left_out(clips, fits) == keys[:1]  # s has none: a reject of its own
    facts = dataclasses.replace(statistics.CorpusStatistics(**EMPTY), unfitted=keys[:1])
    assert f"<code>no_fit</code> 1 ({keys[0]})" in corpus_page._reject_table(facts)


def test_clips_whose_landmarks_slip_too_often_are_named_and_have_not_lost_their_fit(make_family):
    keys = [f"a#r#{at:06d}#{at + 9:06d}" for at in (0, 9, 18)]
    clips, placed, fits = (make_family(dict.fromkeys(some)) for some in (keys, keys[1:], keys[2:]))
    assert statistics.clips_left_out(clips, placed) == keys[:1]
    assert statistics.clips_left_out(placed, fits) == keys[1:2]
    facts = dataclasses.replace(
        statistics.CorpusStatistics(**EMPTY), slipped_out=keys[:1], slip_frames=9, unfitted=keys[1:2]
    )
    table = corpus_page._reject_table(facts)
    assert (
        f"keypoints left out of recordings in which it kept others: <code>landmarks_slip</code> 1 ({keys[0]})"
        in table
    )
    assert f"<code>no_fit</code> 1 ({keys[1]})" in table
    slips = corpus_page._slips(facts, [])
    assert "In none of 9 frames do they lie too far apart" in slips
    assert "max_slipped</code> of their frames: 1." in slips


def test_each_expression_coefficient_has_its_spread(facts):
    spread = np.asarray(facts["expression"])
    assert spread.shape == (3, 5)
    assert (np.diff(spread, axis=1) > 0).all()
    assert (np.diff(spread[:, 4] - spread[:, 0]) > 0).all()


def test_eyes_and_mouth_are_measured_in_eye_distances():
    points = np.zeros((10, 68, 2))
    points[:, 45] = [40, 0]
    points[:, 66] = [0, 10]
    for lower in (41, 40, 47, 46):
        points[:, lower] = [0, 4]
    found = statistics._of_landmarks(points)
    assert found["mouth"] == pytest.approx([0.25] * 2)
    assert found["eyes"] == pytest.approx([0.1] * 2)


def test_what_is_drawn_at_random_stays_when_the_corpus_grows():
    keys = [f"clip{i:04d}" for i in range(1000)]
    few = statistics.subsample_keys(keys, 50)
    assert few == sorted(few)
    assert len(set(few) & set(statistics.subsample_keys([*keys, "one-more"], 50))) >= 49
    assert max(keys.index(k) for k in few) > 900
