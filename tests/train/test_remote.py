"""Training whose work folder lies in a bucket that the store's URI names by an endpoint in its query."""

import torch
from msgspec.structs import replace

from pipelines.train.worker import run_training
from storage.files import Store
from tests.train import toy


def test_a_store_with_a_query_holds_a_training_to_its_last_checkpoint(bucket, tmp_path):
    job = toy.job(tmp_path)
    run_training(
        replace(job, scratch=Store(bucket.uri).uri_of("work/train.painter/key")), torch.device("cpu")
    )
    last = f"prefix/work/train.painter/key/step-{job.phase.steps:09d}.safetensors"
    assert len(bucket.bucket[last]) > 0
    assert not list(tmp_path.iterdir())
