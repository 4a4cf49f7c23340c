"""Keeping a store: pin; accept is in accept.py, gc in garbage.py, verify in verify.py."""

from __future__ import annotations

import time

from pipelines.engine.plan import NodePlan
from pipelines.errors import UserError
from storage import locations
from storage.files import Store


def pin(store: Store, plans: dict[str, NodePlan], name: str) -> str:
    """Freeze the list of recordings as it was last published; run files use it with `data.pin: NAME`."""
    plan = plans["recordings"]
    if plan.artifact is None:
        raise UserError("recordings is not up to date; run `reenact run RUN.yaml --only recordings` first")
    artifacts = {"recordings": plan.artifact.key}
    record = {"artifacts": artifacts, "time": time.time(), "recordings": len(plan.units)}
    store.write_json(locations.ref(name), record)
    return f"pinned {len(plan.units):,} recordings ({plan.artifact.key[:12]}) as {name}"
