"""Where everything lives in a store. The only place that joins paths.

    packs/<node>/<key>.tar, .parquet     a keyed node's pack: WebDataset shard, then its record
    packs/<node>/<key>.dropped           where the shard is not there: it was dropped on purpose
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
    format.json                          the version of this layout (storage/format_version.py)

A root is a folder or any URI pyarrow.fs understands (s3://bucket/prefix, gs://bucket/prefix).
"""

from __future__ import annotations

import re

from storage.errors import InvalidInput

FORMAT_FILE = "format.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")


def check_path_part(name: str) -> str:
    """A path part from a validated id; anything else is refused rather than repaired."""
    if not _NAME.fullmatch(name) or ".." in name or len(name) > 200:
        raise InvalidInput(f"{name!r} cannot be part of a path: expected letters, digits and any of _-.@+")
    return name


def pack_path(node: str, key: str) -> str:
    return f"packs/{check_path_part(node)}/{check_path_part(key)}.tar"


def pack_record_path(node: str, key: str) -> str:
    return f"packs/{check_path_part(node)}/{check_path_part(key)}.parquet"


def drop_mark_path(node: str, key: str) -> str:
    return f"packs/{check_path_part(node)}/{check_path_part(key)}.dropped"


def packs_folder(node: str) -> str:
    return f"packs/{check_path_part(node)}"


def manifest_path(node: str, key: str) -> str:
    return f"manifests/{check_path_part(node)}/{check_path_part(key)}.parquet"


def manifests_folder(node: str) -> str:
    return f"manifests/{check_path_part(node)}"


def artifact_path(node: str, key: str, steps: int | None = None) -> str:
    return f"whole/{check_path_part(node)}/{check_path_part(key)}" + (
        "" if steps is None else f"-{steps:09d}"
    )


def artifacts_folder(node: str) -> str:
    return f"whole/{check_path_part(node)}"


def node_key_path(node: str, key: str) -> str:
    return f"keys/{check_path_part(node)}/{check_path_part(key)}.json"


def node_keys_folder(node: str) -> str:
    return f"keys/{check_path_part(node)}"


def accepted_key_path(node: str, key: str) -> str:
    return f"accepts/{check_path_part(node)}/{check_path_part(key)}.json"


def pin_path(name: str) -> str:
    return f"refs/{check_path_part(name)}.json"


def run_folder(run_id: str) -> str:
    return f"runs/{check_path_part(run_id)}"


REUSES_FOLDER = "reuses"
DROPPED_RUNS_FILE = "runs/dropped.json"


def reuse_path(digest: str) -> str:
    return f"{REUSES_FOLDER}/{check_path_part(digest)}.json"


def leases_folder(node: str) -> str:
    return f"leases/{check_path_part(node)}"


def node_work_folder(node: str, key: str) -> str:
    return f"work/{check_path_part(node)}/{check_path_part(key)}"


def attempt_folder(node: str, unit_key: str, run_id: str) -> str:
    return f"attempts/{check_path_part(node)}/{check_path_part(f'{unit_key}@{run_id}')}"


def weights_path(weights_id: str, extension: str) -> str:
    return f"weights/{check_path_part(weights_id)}.{check_path_part(extension)}"
