import io

import pytest

from pipelines.runs import progress
from pipelines.runs.progress import ProgressPrinter


@pytest.fixture
def said(monkeypatch):
    """Events, each with the seconds at which it comes -> what a log file shows."""

    def show(*events):
        now, out = [0.0], io.StringIO()
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        shown = ProgressPrinter(out, live=False)
        for at, event in events:
            now[0] = at
            shown(event)
        return out.getvalue()

    return show


def step(done, frames=0, **more):
    return {"type": "progress", "node": "clips", "done": done, "total": 100, "frames": frames, **more}


START = (0.0, {"type": "node_started", "node": "clips", "reasons": ["never run", "config clips.size 1 -> 2"]})


def test_a_start_says_why(said):
    assert said(START) == "> clips                      never run (+1 more)\n"


def test_rates_leave_the_start_up_out(said):
    out = said(START, (10.0, step(10, 1000)), (20.0, step(30, 5000)), (31.0, step(52, 9000)))
    assert "  52/100      2.00/s 381 frames/s  ETA 0:24" in out


def test_a_log_has_a_line_now_and_then(said):
    out = said(START, *((10.0 + i / 10, step(i + 1)) for i in range(200)))
    assert 2 <= out.count("/100") <= 3


def test_rejects_are_counted_and_named(said):
    reject = {"unit": "r1", "code": "no_face", "reason": "nobody there"}
    end = {"type": "node_finished", "node": "clips", "status": "FINISHED", "seconds": 7, "rejects": [reject]}
    out = said(
        START, (5.0, step(3, rejected=1)), (7.0, end | {"counts": {"units": 3, "cached": 3, "rejected": 1}})
    )
    assert "v clips                      0:07, 3 units, 1 rejected\n" in out
    assert "rejected r1: no_face: nobody there" in out
