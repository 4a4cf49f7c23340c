"""What is planned of one node: its state and why, what it publishes, and the jobs that make it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from pipelines.engine.fingerprint import MISSING_WEIGHTS, Fingerprint
from pipelines.engine.keys import hash_json
from pipelines.engine.node import Node
from pipelines.engine.packs import PackJob
from pipelines.engine.units import UpstreamUnit
from storage.families import Artifact, decode_parquet


class NodePlan(Struct):
    node: Node
    state: str
    reasons: list[str] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    key: str = ""
    """The artifact's key, when every input is known."""
    node_key: str = ""
    artifact: Artifact | None = None
    units: dict[str, UpstreamUnit] = field(default_factory=dict)
    """keyed nodes and tables: what the nodes that read it see"""
    buckets: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    jobs: list[PackJob] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    """keyed: every pack of the artifact, in order"""
    restore_jobs: dict[str, PackJob] = field(default_factory=dict)
    """keyed: of its packs those whose shard was dropped on purpose -> the job that makes it again"""
    to_restore: set[str] = field(default_factory=set)
    """Those of them that nodes behind it read when they run (engine/dropped_shards.py)"""
    inputs: dict[str, str] = field(default_factory=dict)
    """Role -> content digest; of a file that is used, its sha256"""
    steps: int | None = None
    previous: Artifact | None = None
    """of a resumable budget: the artifact with the most steps below those asked for"""

    @property
    def has_artifact(self) -> bool:
        """Whether its content is known."""
        return self.artifact is not None

    def artifact_as_read(self, plans: Mapping[str, NodePlan]) -> Artifact | None:
        """With the digests of the weights that it, and what it was computed from, was computed with: those in
        the keys of its node and of the nodes before it, but for the missing ones."""
        if self.artifact is None:
            return None
        used: dict[str, str] = {}
        nodes, at = [self.node.name], 0
        while at < len(nodes):  # the nearest first
            plan = self if at == 0 else plans[nodes[at]]
            at += 1
            for name, sha in plan.fingerprint.weights.items() if plan.fingerprint else ():
                if sha != MISSING_WEIGHTS:
                    used.setdefault(name, sha)
            read = dict.fromkeys(one.node for one in plan.node.reads.values())
            nodes += [name for name in read if name not in nodes]
        return replace(self.artifact, weights=used)

    @property
    def has_work(self) -> bool:
        """Whether there is work to do."""
        return not self.has_artifact or bool(self.to_restore)

    def read_unit_table(self, data: bytes) -> None:
        """Units of a whole node that publishes a table of them (`<stage>.parquet` with columns id and
        bucket)."""
        rows = decode_parquet(data).to_pylist()
        self.units = {row["id"]: UpstreamUnit(hash_json(row), row=row) for row in rows}
        self.buckets = {row["id"]: row["bucket"] for row in rows}
