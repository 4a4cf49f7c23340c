"""Two drivers at one keyed node: each builds packs that nobody holds, and waits at the end for the others'.

A pack is claimed while it is built (storage.leases), so that a second driver takes what is left. Claims save
work; what is published is the same without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from pipelines.engine.packs import PackExecutor, PackJob, PackResult, StageCall, find_published_pack
from storage import leases
from storage.errors import StoreUnreachable
from storage.files import Store


def build_or_await_packs(
    executor: PackExecutor, call: StageCall, jobs: Sequence[PackJob], store: Store, *,
    terms: leases.LeaseTimings, waiting: Callable[[str], None], cancelled: Callable[[], bool],
) -> Iterator[PackResult]:  # fmt: skip
    """Results in order of completion. Packs that another driver holds come when it has published them, or are
    built here once it has given them up or is dead."""
    watch = leases.ClaimWatcher(store, call.node.stage, terms)
    held: dict[str, PackJob] = {}
    todo = list(jobs)
    while todo:
        by_key = {job.key: job for job in todo}
        for result in executor.build_packs(call, todo, store):
            if result.held:
                held[result.key] = by_key[result.key]
            else:
                yield result
        todo = []
        while held and not todo and not cancelled():
            holders = _holders(watch, held)
            for key in [key for key in held if key not in holders]:
                job = held.pop(key)
                if (result := find_published_pack(job, store)) is not None:
                    yield result
                else:
                    todo.append(job)
            if held and not todo:
                names = ", ".join(sorted({holders[key] for key in held}))
                waiting(f"waiting for {names}: {len(held)} packs")
                time.sleep(terms.poll)


def _holders(watch: leases.ClaimWatcher, held: dict[str, PackJob]) -> dict[str, str]:
    """Pack -> who is building it."""
    try:
        return {claim.key: claim.holder for claim in watch.live_claims()}
    except StoreUnreachable:
        return dict.fromkeys(held, "a store that does not answer")
