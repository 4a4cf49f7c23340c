"""Settings and values of settings that got new names: keys hold the old ones, so that a renaming stales
nothing, and people read today's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field


class SettingRenames(Struct, frozen=True):
    """Paths are dotted; in those of the tables `*` stands for any one part."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Today's path -> the last part of the one that it had when it first was in a key."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Today's path of a setting -> today's value -> the one that said the same."""

    def former(self, path: str, value: Any) -> tuple[str, Any]:
        """Path and value as keys hold them, of today's."""
        before = path.split(".")
        parts = list(before)
        for now, name in self.names.items():
            pattern = now.split(".")
            if _begins(parts, pattern):
                before[len(pattern) - 1] = name
        return ".".join(before), self._values(parts).get(value, value) if isinstance(value, str) else value

    def current(self, path: str, value: Any) -> tuple[str, Any]:
        """Path and value as run files have them today, of those in a key."""
        parts = path.split(".")
        for now, name in self.names.items():
            *above, last = now.split(".")
            if _begins(parts, [*above, name]):
                parts[len(above)] = last
        todays = {before: now for now, before in self._values(parts).items()}
        return ".".join(parts), todays.get(value, value) if isinstance(value, str) else value

    def _values(self, parts: Sequence[str]) -> Mapping[str, str]:
        for path, values in self.values.items():
            pattern = path.split(".")
            if len(pattern) == len(parts) and _begins(parts, pattern):
                return values
        return {}


def _begins(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) >= len(pattern) and all(
        p in ("*", part) for p, part in zip(pattern, parts, strict=False)
    )
