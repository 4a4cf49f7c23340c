"""Keeping a store: pin; accept is in accept.py, gc in garbage.py, verify in verify.py."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipelines.engine.node_plan import NodePlan
from pipelines.errors import UserError
from storage import locations
from storage.files import Store


def pin_recording_lists(
    store: Store, plans: Mapping[str, NodePlan], lists: Mapping[str, str], name: str
) -> str:
    """Freeze the lists of recordings as they were last published; run files use them with `data.CORPUS.pin:
    NAME`. lists: corpus -> the node that lists it."""
    artifacts: dict[str, str] = {}
    for corpus, node in lists.items():
        if (artifact := plans[node].artifact) is None:
            raise UserError(f"{node} is not up to date; run `reenact run RUN.yaml --only {node}` first")
        artifacts[corpus] = artifact.key
    count = sum(len(plans[node].units) for node in lists.values())
    store.write_json(
        locations.pin_path(name),
        {"stage": "recordings", "artifacts": artifacts, "time": time.time(), "recordings": count},
    )
    keys = ", ".join(f"{corpus} {key[:12]}" for corpus, key in artifacts.items())
    return f"pinned {count:,} recordings ({keys}) as {name}"
