"""A corpus of people in numbers: embeddings about a place of their own, landmarks that move."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.corpus.identity_check import check_identities
from pipelines.preprocess.identity import IdentityConfig
from tests.corpus.test_near_duplicates import moving_face
from tests.eval.conftest import Folder, KeptContext, MemoryFamily, Shards

SIZE = 24
RECORDINGS, FRAMES = 3, 6


class People:
    """`train` training people and `test` test people of three recordings with a clip each; the methods make
    the mistakes that are to be found."""

    def __init__(self, train=12, test=4, seed=0):
        self.rng = np.random.default_rng(seed)
        self.embeddings: dict[str, np.ndarray] = {}
        self.landmarks: dict[str, np.ndarray] = {}
        self.rows: dict[str, dict[str, str]] = {}
        self.place: dict[str, np.ndarray] = {}
        for number in range(train + test):
            name = f"p{number:02d}"
            for recording in range(RECORDINGS):
                self.add(name, f"{name}r{recording}", "test" if number >= train else "train")

    def add(self, name, recording, split, face=None):
        """A clip of a person that is called so; face: of whom it is."""
        place = self.place.setdefault(face or name, self.rng.normal(0, 4, SIZE))
        middle = place + self.rng.normal(0, 0.5, SIZE)
        key = f"{name}#{recording}#000000#000060"
        self.embeddings[key] = (middle + self.rng.normal(0, 1, (FRAMES, SIZE))).astype(np.float32)
        self.landmarks[key] = moving_face(self.rng)
        self.rows[recording] = {"id": recording, "identity": name, "split": split, "source": "folder"}
        return key

    def inputs(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        rows = [self.rows[name] for name in sorted(self.rows)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "recordings.parquet")
        clips = dict.fromkeys(self.embeddings, np.zeros((60, 8, 8, 3), np.uint8))
        identity = {key: {"embeddings": value} for key, value in self.embeddings.items()}
        points = {key: {"landmarks": value} for key, value in self.landmarks.items()}
        return {
            "recordings": Folder(folder),
            "identity": Shards(MemoryFamily(clips, fields=identity)),
            "keypoints": Shards(MemoryFamily(clips, fields=points)),
        }

    def check(self, folder, others=None):
        """-> the node's artifact, and its context."""
        inputs = self.inputs(folder / "recordings") | (others or {})
        out = folder / "identity_check"
        out.mkdir()
        context = KeptContext("identity_check", SimpleNamespace(identity=IdentityConfig()), inputs, out)
        check_identities(context)
        return Folder(out), context
