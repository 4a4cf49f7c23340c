"""Third-party weights of a store and of a run: which are here, under what licence, for whom; and the notice
that goes with what was made by them.

A licence asks for its text to go along with what was made by the weights, or forbids uses: both are only kept
where the list of them is at hand. `reenact weights list` shows it, `export-notice` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models import MODELS
from models.perception import NETS
from models.spec import load_model_spec
from models.weights import THIRD_PARTY_WEIGHTS, WeightsFile
from storage import weight_files
from storage.files import Store
from storage.weight_licences import describe_licence, is_licence_accepted, needs_acceptance

WeightsState = Literal["in wheel", "imported", "missing"]
LISTED_USERS = 3
"""Names of each kind that a line of the list has room for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsStatus:
    """One file of the table, as it is found."""

    weights: WeightsFile
    state: WeightsState
    size: int
    """In bytes; 0 where nobody knows it."""
    record: Mapping[str, Any]
    """Of its import; {} of others."""

    @property
    def licence(self) -> str:
        """Its class, and whether it was accepted where an import asks for that."""
        return describe_licence(self.weights, self.record, self.state == "imported")

    @property
    def origin(self) -> str:
        """Where it comes from, or would."""
        return self.weights.wheel if self.state == "in wheel" else self.weights.publisher


def weights_status(store: Store, weights: WeightsFile) -> WeightsStatus:
    """Reads the import's record, and no weights."""
    if (path := weight_files.find_packaged_file(weights)) is not None:
        return WeightsStatus(weights=weights, state="in wheel", size=path.stat().st_size, record={})
    record = weight_files.read_import_record(store, weights)
    here = bool(record) and weight_files.are_weights_here(store, weights)
    return WeightsStatus(
        weights=weights,
        state="imported" if here else "missing",
        size=record.get("size", 0) or weights.size,
        record=record,
    )


def weights_users() -> dict[str, dict[str, list[str]]]:
    """Weights id -> who is computed with them: {"nets" | "models" | "metrics": names}."""
    from pipelines.eval.metrics import METRICS
    from pipelines.eval.records import metric_weights_ids

    found: dict[str, dict[str, list[str]]] = {name: {} for name in THIRD_PARTY_WEIGHTS}
    users = [
        *(("nets", name.partition(".")[0], net.weights) for name, net in NETS.items()),
        *(
            ("models", name, released.files)
            for name in MODELS
            for released in load_model_spec(name).released.values()
        ),
        *(("metrics", name, metric_weights_ids(metric)) for name, metric in METRICS.items()),
    ]
    for kind, name, ids in users:
        for one in ids:
            names = found[one].setdefault(kind, [])
            if name not in names:
                names.append(name)
    return found


def weights_table(store: Store) -> Iterator[str]:
    """Two lines for each file: id, class, state, size, where from, used by; below, what it is and its
    licence."""
    users = weights_users()
    head = ("id", "class", "state", "size", "where from", "used by")
    rows = [
        (
            one.id,
            status.licence,
            status.state,
            format_size(status.size),
            status.origin,
            describe_users(users[one.id], LISTED_USERS),
        )
        for one in THIRD_PARTY_WEIGHTS.values()
        for status in [weights_status(store, one)]
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row, one in zip([head, *rows], [None, *THIRD_PARTY_WEIGHTS.values()], strict=True):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        if one is not None:
            how = f"; {weight_files.install_command(one)}" if one.package and "missing" in row else ""
            yield f"{'':<{widths[0] + 2}}{one.purpose}; {one.publisher}: {one.file}; {one.licence}{how}"


def describe_users(users: Mapping[str, list[str]], most: int) -> str:
    """`nets fan2d, fan25d; metrics akd_fan2d and 4 more`: of each kind `most` names."""
    texts = []
    for kind, names in users.items():
        more = f" and {len(names) - most} more" if names[most:] else ""
        texts.append(f"{kind if names[1:] else kind[:-1]} {', '.join(names[:most])}{more}")
    return "; ".join(texts)


def format_size(size: int) -> str:
    if size < 100_000:
        return f"{size / 1e3:,.0f} kB" if size else "?"
    return f"{size / 1e6:,.1f} MB"


def format_weights_notice(store: Store, title: str, wanted: Iterable[WeightsFile]) -> str:
    """A text for what is passed on: of each file that is here the publisher, sha256, licence and acceptance.
    The same store gives the same text."""
    here = [
        status
        for one in sorted(wanted, key=lambda one: one.id)
        if (status := weights_status(store, one)).state != "missing"
    ]
    parts = [f"Third-party weights: {title}\n{len(here)} files\n"]
    parts += ["\n".join(_notice_lines(store, status)) + "\n" for status in here]
    return "\n".join(parts)


def _notice_lines(store: Store, status: WeightsStatus) -> Iterator[str]:
    weights, record = status.weights, status.record
    yield f"{weights.id}: {weights.purpose}"
    yield f"  publisher   {weights.publisher}"
    yield f"  file        {weights.file}" + (f" in {weights.wheel}" if status.state == "in wheel" else "")
    if source := record.get("source_sha256"):
        yield f"  sha256      {source} (the publisher's file)"
    sha256 = weight_files.pinned_sha256(store, weights)
    if sha256 != source:
        yield f"  sha256      {sha256}" + (" (its tensors, as imported)" if source else "")
    yield f"  licence     {weights.licence}"
    yield f"  class       {weights.licence_class}"
    yield f"  acceptance  {_describe_acceptance(status)}"


def _describe_acceptance(status: WeightsStatus) -> str:
    if not needs_acceptance(status.weights):
        return "not needed"
    if status.state == "in wheel":
        return "asked by nobody: pip installed it; whoever uses it keeps to its licence"
    if is_licence_accepted(status.weights, status.record):
        return f"accepted {status.record['accepted'].get('time', '')}"
    return "none: imported before it was asked for, or under other terms"
