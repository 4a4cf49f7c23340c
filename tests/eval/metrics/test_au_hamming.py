import numpy as np
import pytest

from pipelines.eval.metrics.au_hamming import action_unit_hamming_per_frame


@pytest.fixture
def units(golden):
    """The golden file's generated and driving units (2,18)."""
    return tuple(np.array(golden["au_hamming"][side], np.float32) for side in ("generated", "driving"))


def test_the_share_of_units_that_differ_is_the_golden_one(units, golden):
    found = action_unit_hamming_per_frame(*units)
    assert found == pytest.approx(golden["au_hamming"]["per_frame"], abs=1e-12)
    assert found.mean() == pytest.approx(golden["au_hamming"]["mean"], abs=1e-12)


def test_a_frame_without_a_face_has_no_value(units):
    generated, real = units[0].copy(), units[1]
    generated[1] = np.nan
    assert np.isfinite(action_unit_hamming_per_frame(generated, real)).tolist() == [True, False]
