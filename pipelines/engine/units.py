"""Which units a keyed node has, and which units of its inputs each of them reads.

A unit is a row of the table that the node names (`Node.units`): a recording, a pair of clips, a source frame.
A node has those rows that every input with the same units still has: what one rejected, the next does not
see. An input with other units is read by a column of the row (`Read.by`): a pair names the recordings of its
source and of its driving clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from pipelines.engine.keys import hash_json
from pipelines.engine.node import Node, Read


class UpstreamUnit(Struct, frozen=True):
    """A unit as the nodes that read it see it."""

    digest: str | None
    """Of its content; None = known only after a run."""
    pack: str = ""
    row: Mapping[str, Any] | None = None
    """Of a table."""


Units = Mapping[str, UpstreamUnit]


class UnitInputs:
    """units: those of every node that `node` reads, by node name; `node.units` among them."""

    def __init__(self, node: Node, units: Mapping[str, Units]):
        self.node, self._units = node, units

    def __iter__(self) -> Iterator[str]:
        """The node's units, in order of their ids."""
        own = [set(self._units[read.node]) for read in self.node.reads.values() if not read.by]
        table = self._units[self.node.units]
        by = [read for read in self.node.reads.values() if read.by]
        for unit in sorted(set.intersection(*own)) if own else ():
            row = table.get(unit)
            if self._wanted(row) and all(self._there(read, row) for read in by):
                yield unit

    def _wanted(self, row: UpstreamUnit | None) -> bool:
        values = row.row if row is not None and row.row is not None else {}
        return all(values.get(column) in some for column, some in self.node.rows.items())

    def _there(self, read: Read, row: UpstreamUnit | None) -> bool:
        """Whether the units that a row names are there, so far as that is known."""
        known = self._units[read.node]
        return row is not None and (not known or all(one in known for one in unit_ids_in_column(row, read)))

    def input_units(self, unit: str, read: Read) -> list[tuple[str, UpstreamUnit]]:
        """The units that a unit reads of one input: ids, and what is known of them."""
        known = self._units[read.node]
        if not read.by:
            return [(unit, known[unit])]
        row = self._units[self.node.units][unit]
        return [(one, known.get(one, UpstreamUnit(None))) for one in unit_ids_in_column(row, read)]

    def input_digests(self, unit: str) -> dict[str, Any] | None:
        """Role -> digest of what the unit reads there, as its key holds it; None if one is not known yet. Of
        a table row only the fields read count; of samples, their content."""
        found: dict[str, Any] = {}
        for role, read in self.node.reads.items():
            parts = [_digest(read, view) for _, view in self.input_units(unit, read)]
            if None in parts:
                return None
            found[role] = parts if read.by else parts[0]
        return found


def unit_ids_in_column(row: UpstreamUnit, read: Read) -> list[str]:
    """The units that a row of a table names in a column."""
    assert row.row is not None  # Graph: `units` is a table
    value = row.row[read.by]
    return [value] if isinstance(value, str) else list(value)


def _digest(read: Read, view: UpstreamUnit) -> str | None:
    if view.row is not None:
        return hash_json({field: view.row[field] for field in read.fields})
    return view.digest
