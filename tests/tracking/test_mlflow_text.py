"""What may be logged."""

from __future__ import annotations

import pytest

from pipelines.tracking.mlflow_text import flatten_params, redact_uris


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a/b?token=1#f", "s3://bucket/a/b"),
        ("see https://user@host:8443/x and gs://b/c", "see https://host:8443/x and gs://b/c"),
        ("sqlite:////tmp/store/mlflow.db", "sqlite:////tmp/store/mlflow.db"),
        ("no address at all", "no address at all"),
    ],
)
def test_addresses_lose_what_may_be_secret(text, shown):
    assert redact_uris(text) == shown


def test_long_values_are_cut_to_what_mlflow_keeps():
    assert len(flatten_params({"a": "x" * 10_000})["a"]) == 6000
