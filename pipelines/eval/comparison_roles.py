"""Roles of the report's inputs: `<protocol>/pairs`, `<protocol>/<method>/score`,
`<protocol>/<model>/samples`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

PAIRS, SAMPLES, SCORE = "pairs", "samples", "score"


def pairs(protocol: str) -> str:
    return f"{protocol}/{PAIRS}"


def samples(protocol: str, method: str) -> str:
    return f"{protocol}/{method}/{SAMPLES}"


def score(protocol: str, method: str) -> str:
    return f"{protocol}/{method}/{SCORE}"


def protocols(inputs: Mapping[str, object]) -> list[str]:
    """In the order in which the graph lists them."""
    return list(dict.fromkeys(role.split("/")[0] for role in inputs))


def of_protocol(inputs: Mapping[str, T], protocol: str, kind: str) -> dict[str, T]:
    """Method -> its input of one kind, SAMPLES or SCORE."""
    found = {}
    for role, one in inputs.items():
        match role.split("/"):
            case [of, method, last] if of == protocol and last == kind:
                found[method] = one
    return found
