"""Which clips are scored: test identities, and only those with which every model can be driven."""

from types import SimpleNamespace

import pytest

from pipelines.errors import UserError
from pipelines.eval import clip_list


def list_of(families, split_of, most=None, sources=1):
    return clip_list.choose(families, split_of, most, sources).clips


@pytest.fixture
def split_of(recordings):
    return clip_list.splits(recordings.path("recordings.parquet"))


def test_only_test_identities_are_scored(make_family, clips, split_of):
    assert {key.split("#")[0] for key in list_of({"clips": make_family(clips)}, split_of)} == {"id1", "id2"}


def test_fewer_clips_are_spread_over_all_of_them(make_family, clips, split_of):
    keys = list_of({"clips": make_family(clips)}, split_of, most=2)
    assert [key.split("#")[0] for key in keys] == ["id1", "id2"]


def test_no_test_clip_is_an_error_that_says_what_to_raise(make_family, clips):
    with pytest.raises(UserError, match=r"data\.NAME\.test_fraction"):
        list_of({"clips": make_family(clips)}, {f"rec{i}": "train" for i in range(6)})


def test_clips_with_no_frame_left_to_drive_are_not_scored(make_family, clips):
    split_of = {f"rec{i}": "test" for i in range(6)}
    assert len(list_of({"clips": make_family(clips)}, split_of, sources=8)) == 6  # of 9 frames each
    with pytest.raises(UserError, match=r"none of 6 test clips has more frames than eval\.sources, 9"):
        list_of({"clips": make_family(clips)}, split_of, sources=9)


def test_a_clip_that_one_family_lacks_is_scored_for_no_model_and_counted(make_family, clips, split_of):
    lost = next(key for key in clips if key.startswith("id1#"))
    fits = make_family({key: frames for key, frames in clips.items() if key != lost})
    families = {"clips": make_family(clips), "fit3dmm": fits, "speech": make_family(clips)}
    found = clip_list.choose(families, split_of, None, 1)
    assert found.left_out == {"fit3dmm": 1}
    assert set(found.clips) == {key for key in clips if not key.startswith("id0#")} - {lost}


def test_what_is_lost_of_the_training_clips_is_not_counted(make_family, clips, split_of):
    fits = make_family({key: frames for key, frames in clips.items() if not key.startswith("id0#")})
    assert clip_list.choose({"clips": make_family(clips), "fit3dmm": fits}, split_of, None, 1).left_out == {}


def test_no_clip_that_drives_every_model_is_an_error_that_says_who_lacks_them(make_family, clips, split_of):
    families = {"clips": make_family(clips), "fit3dmm": make_family({})}
    with pytest.raises(
        UserError, match="none of 4 test clips can drive every model: rejected are 4 by fit3d"
    ):
        clip_list.choose(families, split_of, None, 1)


def test_a_family_more_that_lacks_nothing_leaves_the_published_list_as_it_was(
    make_context, make_family, make_shards, clips, recordings, tmp_path
):
    written = []
    for name, more in (("one", {}), ("two", {"speech": make_shards(make_family(clips))})):
        (tmp_path / name).mkdir()
        inputs = {"recordings": recordings, "clips": make_shards(make_family(clips)), **more}
        config = SimpleNamespace(eval=SimpleNamespace(max_clips=None, sources=1))
        context = make_context(node="test_clips", config=config, inputs=inputs, out=tmp_path / name)
        clip_list.choose_clips(context)
        written.append((tmp_path / name / clip_list.LIST).read_bytes())
    assert written[0] == written[1]
