"""Where everything lives in a store. The only place that joins paths.

    packs/<node>/<key>.tar, .parquet     a keyed node's pack: WebDataset shard, then its record
    manifests/<node>/<key>.parquet       a keyed node's artifact: every unit, ok or rejected (written last)
    whole/<node>/<key>[-<steps>]/        a whole node's files; record.json is written last
    keys/<node>/<node key>.json          what a node key was made of, with the source text (for `why`)
    accepts/<node>/<node key>.json       code changes declared harmless
    refs/<name>.json                     pins
    runs/<run>/                          the ledger: what ran, when, why
    runs/dropped.json                    run names whose past runs no longer keep anything
    reuses/<digest>.json                 artifacts that a run with nothing to do found in place
    leases/<node>/<key>@<claim>.json     claims with a heartbeat
    work/<node>/<key>/                   state to resume from; not an output
    attempts/<node>/<unit key>@<run>     units being worked on right now: how a crash is noticed
    weights/<id>.safetensors, .json      imported third-party weights
    format.json                          the version of this layout (storage/format.py)

A root is a folder or any URI pyarrow.fs understands (s3://bucket/prefix, gs://bucket/prefix).
"""

from __future__ import annotations

import re

from storage.errors import InvalidInput

FORMAT = "format.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")


def safe(name: str) -> str:
    """A path part from a validated id; anything else is refused rather than repaired."""
    if not _NAME.fullmatch(name) or ".." in name or len(name) > 200:
        raise InvalidInput(f"{name!r} cannot be part of a path: expected letters, digits and any of _-.@+")
    return name


def pack(node: str, key: str) -> str:
    return f"packs/{safe(node)}/{safe(key)}.tar"


def pack_record(node: str, key: str) -> str:
    return f"packs/{safe(node)}/{safe(key)}.parquet"


def packs(node: str) -> str:
    return f"packs/{safe(node)}"


def manifest(node: str, key: str) -> str:
    return f"manifests/{safe(node)}/{safe(key)}.parquet"


def manifests(node: str) -> str:
    return f"manifests/{safe(node)}"


def whole(node: str, key: str, steps: int | None = None) -> str:
    return f"whole/{safe(node)}/{safe(key)}" + ("" if steps is None else f"-{steps:09d}")


def wholes(node: str) -> str:
    return f"whole/{safe(node)}"


def node_key(node: str, key: str) -> str:
    return f"keys/{safe(node)}/{safe(key)}.json"


def node_keys(node: str) -> str:
    return f"keys/{safe(node)}"


def accept(node: str, key: str) -> str:
    return f"accepts/{safe(node)}/{safe(key)}.json"


def ref(name: str) -> str:
    return f"refs/{safe(name)}.json"


def run(run_id: str) -> str:
    return f"runs/{safe(run_id)}"


REUSES = "reuses"
DROPPED = "runs/dropped.json"


def reuse(digest: str) -> str:
    return f"{REUSES}/{safe(digest)}.json"


def leases(node: str) -> str:
    return f"leases/{safe(node)}"


def work(node: str, key: str) -> str:
    return f"work/{safe(node)}/{safe(key)}"


def attempt(node: str, unit_key: str, run_id: str) -> str:
    return f"attempts/{safe(node)}/{safe(f'{unit_key}@{run_id}')}"


def weights(weights_id: str, extension: str) -> str:
    return f"weights/{safe(weights_id)}.{safe(extension)}"
