import pytest

from pipelines.eval.config import EvalConfig, ReportConfig
from pipelines.eval.protocols import EvaluationProtocol


@pytest.mark.parametrize("metrics", [("lpips",), ()])
def test_unknown_metrics_and_none_at_all_are_refused(metrics):
    with pytest.raises(ValueError, match=r"expected some of l1"):
        EvalConfig(metrics=metrics)


def test_a_protocol_that_is_null_is_left_out():
    config = EvalConfig(protocols={"self": None, "cross": EvaluationProtocol(kind="cross_reenactment")})
    assert list(config.active_protocols) == ["cross"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": 9}, "videos 9: expected 0 to grid_pairs, 4"),
        ({"grid_pairs": 0}, "grid_pairs 0: expected 1 or more"),
        ({"resamples": 0}, "resamples 0: expected 1 or more"),
    ],
)
def test_impossible_settings_of_the_report_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ReportConfig(**change)
