import pytest

from pipelines.cluster.runtime import RuntimeConfig
from storage.errors import InvalidInput


@pytest.mark.parametrize(
    "bad",
    [
        {"store": ""},
        {"max_rejected": 2.0},
        {"workers": 0},
        {"pools": {"download": 0}},
        {"net_batch": -1},
        {"train_workers": -1},
        {"train_cpus": 0},
        {"train_prefetch": -1},
        {"checkpoint_every": 0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        RuntimeConfig(**bad)


@pytest.mark.parametrize("setting", ["store", "tracking"])
def test_an_address_with_a_password_is_refused_and_not_repeated(setting):
    with pytest.raises(InvalidInput, match=f"runtime.{setting}") as caught:
        RuntimeConfig(**{setting: "s3://user:hidden@bucket/prefix"})
    assert "hidden" not in str(caught.value)
