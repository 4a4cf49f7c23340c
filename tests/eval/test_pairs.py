"""Which pairs are judged: test clips with which every model can be driven, and who drives whom."""

import csv
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pipelines.dataset.clip_pairs import clip_identity
from pipelines.dataset.recording_table import read_recording_people
from pipelines.errors import UserError
from pipelines.eval import pairs
from pipelines.eval.protocols import EvaluationProtocol, SweepConfig
from pipelines.preprocess.clips_config import FrameCodecConfig

CROSS = EvaluationProtocol(kind="cross_reenactment")


@pytest.fixture
def split(recordings):
    return {id: person.split for id, person in read_recording_people(recordings).items()}


@pytest.fixture
def family(make_family, clips):
    return make_family(clips)


def paired(protocol, keys, family):
    """Of one corpus."""
    candidates = pairs.CandidateClips(keys, family)
    return pairs.make_protocol_pairs(protocol, candidates, candidates)


# --- which clips can be used --------------------------------------------------------------------------------
def test_only_test_identities_are_used(family, split):
    keys, _ = pairs.find_usable_test_clips({"clips": family}, split, 2)
    assert {clip_identity(key) for key in keys} == {"id1", "id2"}


def test_no_test_clip_is_an_error_that_names_the_setting(family):
    with pytest.raises(UserError, match=r"data\.test_fraction"):
        pairs.find_usable_test_clips({"clips": family}, {f"rec{i}": "train" for i in range(6)}, 2)


def test_clips_with_no_frame_left_to_drive_are_not_used(family):
    split = {f"rec{i}": "test" for i in range(6)}
    assert len(pairs.find_usable_test_clips({"clips": family}, split, 9)[0]) == 6  # of 9 frames each
    with pytest.raises(UserError, match="none of 6 test clips has 10 frames, as many as the protocol takes"):
        pairs.find_usable_test_clips({"clips": family}, split, 10)


def test_a_clip_that_one_family_lacks_is_used_for_no_model_and_counted(make_family, family, clips, split):
    lost = next(key for key in clips if key.startswith("id1#"))
    fits = make_family({key: frames for key, frames in clips.items() if key != lost})
    families = {"clips": family, "fit3dmm": fits, "speech": family}
    keys, rejected = pairs.find_usable_test_clips(families, split, 2)
    assert rejected == {"fit3dmm": 1}
    assert set(keys) == {key for key in clips if not key.startswith("id0#")} - {lost}


def test_what_is_lost_of_the_training_clips_is_not_counted(make_family, family, clips, split):
    fits = make_family({key: frames for key, frames in clips.items() if not key.startswith("id0#")})
    assert pairs.find_usable_test_clips({"clips": family, "fit3dmm": fits}, split, 2)[1] == {}


def test_no_clip_that_drives_every_model_is_an_error_that_names_who_rejected_them(make_family, family, split):
    with pytest.raises(
        UserError, match="none of 4 test clips can drive every model: rejected are 4 by fit3d"
    ):
        pairs.find_usable_test_clips({"clips": family, "fit3dmm": make_family({})}, split, 2)


# --- self-reenactment ---------------------------------------------------------------------------------------
def test_a_clip_drives_itself_and_no_source_frame_is_judged(family):
    (pair,) = paired(EvaluationProtocol(sources=3), family.keys[:1], family)
    assert (pair.id, pair.source_clip, pair.driving_clip) == (family.keys[0],) * 3
    assert pair.source_frames == (0, 4, 8)
    assert pair.driving_frames == (1, 2, 3, 5, 6, 7)
    assert pair.recordings == ["rec0"]


def test_fewer_pairs_are_spread_over_all_clips(family):
    found = paired(EvaluationProtocol(max_pairs=2), family.keys, family)
    assert [clip_identity(pair.id) for pair in found] == ["id0", "id2"]


# --- cross-reenactment --------------------------------------------------------------------------------------
@given(
    count=st.integers(1, 400),
    persons=st.integers(1, 30),
    seed=st.integers(0, 9),
    new=st.integers(0, 40),
    most=st.sampled_from([1, 50, 200, None]),
)
@settings(max_examples=60, deadline=None)
def test_one_more_clip_moves_at_most_two_pairs(count, persons, seed, new, most):
    keys = [f"id{i % persons}#rec{i}#000000#000009" for i in range(count)]
    before = set(pairs.sample_cross_pairs(keys, seed, most))
    after = set(pairs.sample_cross_pairs([*keys, f"id{new}#new#000000#000009"], seed, most))
    assert len(before - after) <= 2
    assert len(after - before) <= 2


@given(st.permutations([f"id{i % 3}#rec{i}#000000#000009" for i in range(9)]))
@settings(max_examples=20, deadline=None)
def test_pairs_do_not_depend_on_the_order_of_the_clips(keys):
    assert pairs.sample_cross_pairs(keys, 0, 5) == pairs.sample_cross_pairs(sorted(keys), 0, 5)


def test_no_clip_drives_or_is_a_source_twice_and_nobody_drives_himself():
    keys = [f"id{i % 5}#rec{i}#000000#000009" for i in range(60)]
    found = pairs.sample_cross_pairs(keys, 3, 40)
    assert len(found) == 40
    assert len({a for a, _ in found}) == len({b for _, b in found}) == 40
    assert all(clip_identity(a) != clip_identity(b) for a, b in found)


def test_a_cross_pair_drives_all_frames_and_names_both_recordings(family):
    pair = paired(CROSS, family.keys, family)[0]
    assert pair.driving_frames == tuple(range(9))
    assert pair.recordings == sorted(key.split("#")[1] for key in (pair.source_clip, pair.driving_clip))


def test_one_person_alone_cannot_be_crossed(family):
    with pytest.raises(UserError, match="no pair among 2 test clips: cross_reenactment takes clips of two"):
        paired(CROSS, family.keys[:2], family)


def test_a_still_picture_is_the_source_of_a_clip_of_the_other_corpus(make_family, clips):
    stills = make_family({"face#picture#000000#000001": clips[next(iter(clips))][:1]})
    source, driving = (pairs.CandidateClips(one.keys, one) for one in (stills, make_family(clips)))
    pair, *_ = pairs.make_protocol_pairs(CROSS, source, driving)
    assert (pair.source_clip, pair.source_frames) == ("face#picture#000000#000001", (0,))
    assert pair.driving_frames == tuple(range(9))
    assert pair.source_recording == "picture"


def test_the_node_reads_each_corpus_by_its_side(
    make_context, make_family, make_shards, clips, recordings, make_folder, tmp_path
):
    stills = make_shards(make_family({"face#picture#000000#000001": clips[next(iter(clips))][:1]}))
    table = pa.table({"id": ["picture"], "identity": ["p"], "split": ["test"]})
    (tmp_path / "pictures").mkdir()
    pq.write_table(table, tmp_path / "pictures" / "recordings.parquet")
    fits = make_shards(make_family({key: one for key, one in clips.items() if not key.startswith("id1")}))
    inputs = {
        "source.recordings": make_folder(tmp_path / "pictures"), "source.clips": stills,
        "driving.recordings": recordings, "driving.clips": make_shards(make_family(clips)),
        "driving.fit3dmm": fits,
    }  # fmt: skip
    (tmp_path / "out").mkdir()
    config = SimpleNamespace(protocol=CROSS, frames=FrameCodecConfig())
    pairs.make_pairs(make_context(node="pairs.faces", config=config, inputs=inputs, out=tmp_path / "out"))
    found = pairs.read_pairs(tmp_path / "out" / pairs.PAIRS_FILE)
    assert {clip_identity(pair.driving_clip) for pair in found} == {"id2"}
    assert '"driving.fit3dmm": 2' in (tmp_path / "out" / pairs.PAIRS_SUMMARY_FILE).read_text()


# --- imported lists -----------------------------------------------------------------------------------------
def listed(path, *rows):
    path.write_text("source,driving\n" + "".join(f"{a},{b}\n" for a, b in rows))
    return EvaluationProtocol(kind="cross_reenactment", pair_list=str(path))


def test_an_imported_list_is_taken_as_it_is(family, tmp_path):
    a, b, c = family.keys[:3]
    found = paired(listed(tmp_path / "list.csv", (a, c), (b, c)), family.keys, family)
    assert {(pair.source_clip, pair.driving_clip) for pair in found} == {(a, c), (b, c)}


def test_a_list_that_names_unknown_clips_is_refused_in_one_line(family, tmp_path):
    protocol = listed(tmp_path / "list.csv", (family.keys[0], "nobody#rec#0#9"))
    with pytest.raises(UserError, match=r"list\.csv names 1 clips .* the first 'nobody#rec#0#9'") as error:
        paired(protocol, family.keys, family)
    assert "\n" not in str(error.value)


def test_a_pair_that_is_listed_twice_is_refused(family, tmp_path):
    row = (family.keys[0], family.keys[2])
    with pytest.raises(UserError, match=r"list\.csv lists .* twice"):
        paired(listed(tmp_path / "list.csv", row, row), family.keys, family)


def test_another_content_of_the_list_is_another_key(family, tmp_path):
    view = SimpleNamespace(protocol=listed(tmp_path / "list.csv", ("a", "b")))
    before = pairs.digest_external_files(view)
    listed(tmp_path / "list.csv", ("a", "c"))
    assert pairs.digest_external_files(view) != before
    assert pairs.digest_external_files(SimpleNamespace(protocol=EvaluationProtocol())) == {}


# --- sound and edits ---
AUDIO = EvaluationProtocol(kind="audio_driven", sound="other")


def test_who_is_heard_is_another_person_and_who_is_seen_drives_himself(family):
    for pair in paired(AUDIO, family.keys, family):
        assert pair.driving_clip == pair.source_clip
        assert clip_identity(pair.clip_with_sound) != clip_identity(pair.source_clip)
        assert pair.sound_recording == pair.sound_clip.split("#")[1]
        assert pair.recordings == [pair.source_recording]


def test_there_are_as_many_frames_as_are_both_seen_and_heard(make_family, clips):
    seen, heard = sorted(clips)[0], sorted(clips)[-1]
    short = make_family({seen: clips[seen], heard: clips[heard][:4]})
    lengths = {pair.source_clip: len(pair.driving_frames) for pair in paired(AUDIO, short.keys, short)}
    assert lengths == {seen: 4, heard: 4}


def test_by_its_own_sound_a_clip_is_paired_with_itself(family):
    own = EvaluationProtocol(kind="audio_driven")
    pairs_of_self = [
        (pair.source_clip, pair.driving_frames) for pair in paired(EvaluationProtocol(), family.keys, family)
    ]
    assert [
        (pair.clip_with_sound, pair.driving_frames) for pair in paired(own, family.keys, family)
    ] == pairs_of_self


def test_a_sweep_takes_the_source_frame_for_each_value(family):
    sweep = SweepConfig(attribute="pose.yaw", values=(-10, 10))
    protocol = EvaluationProtocol(kind="editing", sweep=sweep, max_pairs=1)
    (pair,) = paired(protocol, family.keys, family)
    assert (pair.source_frames, pair.driving_frames) == ((0,), (0, 0))


def test_a_frontal_head_is_made_of_every_driving_frame_the_source_too(family):
    (pair, *_) = paired(EvaluationProtocol(kind="frontalisation"), family.keys, family)
    assert pair.driving_frames == tuple(range(9))


# --- frames in a list ---
def listed_frames(path, source, driving, source_frames, driving_frames):
    path.write_text(
        f"source,driving,source_frames,driving_frames\n{source},{driving},{source_frames},{driving_frames}\n"
    )
    return path


def test_a_list_may_name_the_frames_of_a_clip_that_drives_itself(family, tmp_path):
    path = listed_frames(tmp_path / "list.csv", family.keys[0], family.keys[0], "3", "0 5 8")
    (pair,) = paired(EvaluationProtocol(pair_list=str(path)), family.keys, family)
    assert (pair.source_frames, pair.driving_frames) == ((3,), (0, 5, 8))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (("9", "0"), "frame 9 of 9, counted from 0"),
        (("0", "1 12"), "frame 12 of 9"),
        (("x", "1"), "source_frames 'x': expected numbers of frames from 0"),
        (("0", "3 1"), "driving_frames '3 1': expected each frame once, in ascending order"),
    ],
)
def test_frames_that_a_clip_does_not_have_are_refused(frames, message, family, tmp_path):
    path = listed_frames(tmp_path / "list.csv", family.keys[0], family.keys[0], *frames)
    with pytest.raises(UserError, match=message):
        paired(EvaluationProtocol(pair_list=str(path)), family.keys, family)


def test_a_source_frame_that_is_to_be_scored_is_refused(family, tmp_path):
    path = listed_frames(tmp_path / "list.csv", family.keys[0], family.keys[0], "", "0 1 2")
    with pytest.raises(UserError, match="a source frame is to be scored; name other frames in pair_list"):
        paired(EvaluationProtocol(pair_list=str(path)), family.keys, family)


def test_a_clip_that_is_paired_with_itself_is_refused_where_two_are_needed(family, tmp_path):
    path = listed_frames(tmp_path / "list.csv", family.keys[0], family.keys[0], "", "")
    protocol = EvaluationProtocol(kind="cross_reenactment", pair_list=str(path))
    with pytest.raises(UserError, match="with itself, and cross_reenactment takes two clips"):
        paired(protocol, family.keys, family)


def test_other_frames_of_the_same_clips_are_another_list(family, tmp_path):
    digests = []
    for frames in ("1 2", "1 2 3"):
        path = listed_frames(tmp_path / "list.csv", family.keys[0], family.keys[0], "0", frames)
        digests.append(
            pairs.pair_list_digest(paired(EvaluationProtocol(pair_list=str(path)), family.keys, family))
        )
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "protocol",
    [
        AUDIO,
        EvaluationProtocol(kind="editing", sweep=SweepConfig(attribute="pose.yaw", values=(-10, 10))),
        EvaluationProtocol(max_frames=3),
    ],
)
def test_pairs_that_were_written_out_are_read_back_as_they_were(protocol, family, tmp_path):
    before = paired(protocol, family.keys, family)
    pairs.write_pair_list(tmp_path / "pairs.csv", before)
    again = structs.replace(protocol, pair_list=str(tmp_path / "pairs.csv"))
    assert paired(again, family.keys, family) == before


def test_a_list_of_two_clips_is_refused_where_each_drives_itself(family, tmp_path):
    path = listed_frames(tmp_path / "list.csv", family.keys[0], family.keys[2], "", "")
    with pytest.raises(UserError, match="self_reenactment pairs each clip with itself; name one"):
        paired(EvaluationProtocol(pair_list=str(path)), family.keys, family)


# --- the node -----------------------------------------------------------------------------------------------
def test_the_table_gives_back_its_pairs(road, family, clips):
    keys = [key for key in clips if not key.startswith("id0#")]
    assert pairs.read_pairs(road.pairs.out / pairs.PAIRS_FILE) == paired(road.protocol, keys, family)


def test_what_the_frames_have_been_through_is_published_and_logged(road):
    about = json.loads((road.pairs.out / pairs.PAIRS_SUMMARY_FILE).read_text())
    assert (about["frames"], about["lossless"]) == ("JPEG q95 4:2:0, 41 to 47 dB", False)
    assert road.pairs.facts == {"protocol": about["protocol"], "frames": about["frames"]}


def test_a_clip_that_the_lossless_view_lacks_is_used_for_no_model_and_counted(
    make_context, make_family, make_shards, clips, recordings, tmp_path
):
    view = make_shards(make_family({key: one for key, one in clips.items() if "#rec5#" not in key}))
    inputs = {"recordings": recordings, "clips": make_shards(make_family(clips)), "scored_frames": view}
    config = SimpleNamespace(protocol=EvaluationProtocol(), frames=FrameCodecConfig(codec="png"))
    pairs.make_pairs(make_context(node="pairs.self", config=config, inputs=inputs, out=tmp_path))
    about = json.loads((tmp_path / pairs.PAIRS_SUMMARY_FILE).read_text())
    assert (about["rejected"], about["lossless"]) == ({"scored_frames": 1}, True)
    assert "rec5" not in {pair.driving_recording for pair in pairs.read_pairs(tmp_path / pairs.PAIRS_FILE)}


def test_the_list_for_other_code_names_clips_frames_and_files(road):
    rows = list(csv.DictReader((road.pairs.out / pairs.PAIR_LIST_FILE).read_text().splitlines()))
    found = pairs.read_pairs(road.pairs.out / pairs.PAIRS_FILE)
    assert [row["file"] for row in rows] == [pair.id.replace("#", ".") for pair in found]
    assert [row["driving"] for row in rows] == [pair.driving_clip for pair in found]
    assert {row["driving_frames"] for row in rows} == {"1 2 3 4 5 6"}


def test_a_family_more_that_lacks_nothing_leaves_what_is_published_as_it_was(
    make_context, make_family, make_shards, clips, recordings, tmp_path
):
    written = []
    for name, more in (("one", {}), ("two", {"speech": make_shards(make_family(clips))})):
        (tmp_path / name).mkdir()
        inputs = {"recordings": recordings, "clips": make_shards(make_family(clips)), **more}
        config = SimpleNamespace(protocol=EvaluationProtocol(), frames=FrameCodecConfig())
        pairs.make_pairs(make_context(node="pairs.self", config=config, inputs=inputs, out=tmp_path / name))
        written.append(
            [(tmp_path / name / file).read_bytes() for file in (pairs.PAIRS_FILE, pairs.PAIRS_SUMMARY_FILE)]
        )
    assert written[0] == written[1]


def test_clips_without_a_sound_are_left_out_where_they_are_to_be_heard(
    make_context, make_family, make_shards, clips, recordings, tmp_path
):
    def facts(key):
        return {"clip": {"audible": 0.0 if key.startswith("id2#rec4") else 0.5}}

    spoken = make_family(clips, fields={key: facts(key) for key in clips})
    context = make_context(
        node="pairs.talk",
        config=SimpleNamespace(protocol=EvaluationProtocol(kind="audio_driven"), frames=FrameCodecConfig()),
        inputs={"recordings": recordings, "clips": make_shards(spoken)}, out=tmp_path,
    )  # fmt: skip
    pairs.make_pairs(context)
    found = pairs.read_pairs(tmp_path / "pairs.parquet")
    assert [pair.source_recording for pair in found] == ["rec2", "rec3", "rec5"]
    assert json.loads((tmp_path / pairs.PAIRS_SUMMARY_FILE).read_text())["rejected"] == {"silence": 1}
