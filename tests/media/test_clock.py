import numpy as np
import pytest

from pipelines import media


def test_nearest_prefers_the_earlier_frame_on_a_tie():
    assert media.nearest_frames(np.array([0.0, 0.08]), np.arange(3) / 25).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("probed", "ticks"),
    [
        ({"seconds": 4.0}, (0, 100)),
        ({"seconds": 4.0, "begin": 0.08}, (0, 100)),  # an encoder's delay
        ({"seconds": 4.0, "begin": 1.0}, (25, 100)),
        ({"seconds": 4.0, "offset": 2.0}, (50, 150)),
        ({"seconds": 0.001}, (0, 1)),
    ],
)
def test_ticks_are_those_at_which_the_file_has_a_picture(probed, ticks):
    assert media.video_tick_range(probed) == ticks


def test_seconds_count_from_the_start_of_the_file():
    assert media.ticks_to_seconds(50, {"offset": 0.5}) == 1.5
    np.testing.assert_allclose(media.ticks_to_seconds(np.array([0, 25]), {}), [0, 1])
