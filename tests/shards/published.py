"""Three families of one recording, published as the engine publishes them."""

import numpy as np
import pytest

from storage import locations, shards
from storage.families import ManifestRow, UnitRecord, encode_manifest, encode_pack_record
from storage.files import Store
from tests.storage.shard_files import write_shard

KEYS = ("ann#rec1#000000#000010", "ann#rec1#000010#000020")


def clip(key, frames=10, size=32):
    y, x = np.mgrid[:size, :size]
    images = np.stack([np.stack([x * 4, y * 4, (x + y + t) % 256], -1) for t in range(frames)])
    return {
        "__key__": key,
        "frames": images.astype(np.uint8),
        "sound": np.sin(np.arange(640 * frames) / 20).astype(np.float32) / 2,
        "boxes": np.tile(np.array([20, 20, 60, 60], np.float32), (frames, 1)),
        "crop": np.tile(np.array([0, 0, 64, 64], np.float32), (frames, 1)),
        "clip": {"identity": "ann", "recording": "rec1", "frames": frames, "size": size},
    }


def keypoints(key, frames=10):
    points = np.random.default_rng(0).uniform(8, 24, (frames, 68, 2)).astype(np.float32)
    points[3] = np.nan
    return {"__key__": key, "landmarks": points, "score": np.ones(frames, np.float32)}


def fit(key, frames=10):
    from models.perception.head.default_head import get_analytic_head
    from models.perception.head.pose import AXIS_FLIP

    model = get_analytic_head()
    return {
        "__key__": key,
        "id_coeffs": np.zeros(model.n_id, np.float32),
        "exp_coeffs": np.zeros((frames, model.n_exp), np.float32),
        "scale": np.full(frames, 8, np.float32),
        "rotation": np.tile(AXIS_FLIP.astype(np.float32), (frames, 1, 1)),
        "translation": np.tile(np.array([16, 16, 0], np.float32), (frames, 1)),
        "fit_error": np.ones(frames, np.float32),
    }


MAKE = {"clips": clip, "keypoints": keypoints, "fit3dmm": fit}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three families of one recording, published as the engine publishes them."""
    at = Store(str(tmp_path_factory.mktemp("store")))
    for node, make in MAKE.items():
        with at.scratch_folder() as folder:
            records = write_shard(folder / "shard.tar", [shards.encode_sample(make(key)) for key in KEYS])
            at.put(folder / "shard.tar", locations.pack_path(node, "aa"))
        unit = UnitRecord(unit="rec1", key="k", status="ok", samples=tuple(records))
        at.write(locations.pack_record_path(node, "aa"), encode_pack_record([unit]))
        at.write(locations.manifest_path(node, "m"), encode_manifest([ManifestRow.of(unit, "aa")]))
    return at


@pytest.fixture
def shard(store):
    return store.fetch(locations.pack_path("clips", "aa"))
