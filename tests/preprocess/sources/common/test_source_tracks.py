import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.preprocess.sources.common.source_tracks import (
    find_tracks_time_span,
    make_source_track,
    overlapping_tracks,
    scale_track_box,
    sort_tracks,
    track_time_span,
)

BOX = (10.0, 20.0, 110.0, 220.0)
size = st.integers(2, 4096).map(lambda half: 2 * half)


@given(width=size, height=size, zoom=st.integers(1, 5))
def test_pixels_and_shares_mean_the_same_box(width, height, zoom):
    pixels = make_source_track(0, 9, 25, (width, height), (0.25 * width, 0.5 * height, 0.75 * width, height))
    shares = make_source_track(0, 9, 25, (1, 1), (0.25, 0.5, 0.75, 1.0))
    copy = (zoom * width, zoom * height)
    assert scale_track_box(pixels, *copy) == pytest.approx(scale_track_box(shares, *copy))
    assert scale_track_box(pixels, width, height) == pytest.approx(pixels["box"])


@given(width=size, height=size)
def test_a_height_alone_scales_both_sides_alike(width, height):
    box = scale_track_box(make_source_track(0, 9, 25, (0, 360), BOX), width, height)
    assert box == pytest.approx([edge * height / 360 for edge in BOX])


def test_without_a_frame_the_box_is_in_the_recordings_own_pixels():
    assert scale_track_box(make_source_track(0, 9, 25, (0, 0), BOX), 1920, 1080) == list(BOX)


def test_without_a_clock_ticks_are_the_recordings_frames():
    assert track_time_span(make_source_track(30, 60, 0, (1, 1), BOX), 30) == (1, 2)
    assert track_time_span(make_source_track(30, 60, 25, (1, 1), BOX), 30) == (1.2, 2.4)


def test_the_span_holds_all_tracks_of_any_clock():
    tracks = [make_source_track(50, 75, 25, (1, 1), BOX), make_source_track(500, 2500, 1000, (1, 1), BOX)]
    assert find_tracks_time_span(tracks) == [0.5, 3.0]


@pytest.mark.parametrize(
    "tracks", [[], [make_source_track(0, 9, 0, (1, 1), BOX), make_source_track(0, 9, 25, (1, 1), BOX)]]
)
def test_there_is_no_span_where_it_is_not_known(tracks):
    assert find_tracks_time_span(tracks) == []


def test_neighbours_that_share_time_overlap_and_those_that_touch_do_not():
    first, second, third = (
        make_source_track(*ends, 25, (1, 1), BOX) for ends in ((0, 50), (40, 90), (90, 99))
    )
    assert overlapping_tracks([third, second, first]) == [(first, second)]


@given(st.permutations([make_source_track(n, n + 5, 25, (1, 1), (n % 2, 0, 9, 9)) for n in (0, 3, 3, 7)]))
def test_the_order_of_listing_does_not_matter(tracks):
    assert sort_tracks(tracks) == sort_tracks(reversed(tracks))
