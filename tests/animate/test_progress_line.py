"""How far an animation is."""

import io

from pipelines.animate.progress_line import ProgressLine


def test_the_progress_line_tells_rate_and_time_left(capsys):

    stream = io.StringIO()
    ticker = ProgressLine(stream, live=True)
    ticker(1, 100)
    ticker._first = (ticker._first[0] - 10, 1)
    ticker(100, 100)
    assert "100/100 frames  9.9 frames/s  ETA 0:00" in stream.getvalue()
