"""Roles of the report's inputs: `<protocol>/pairs`, `<protocol>/<method>/score`,
`<protocol>/<model>/samples`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

PAIRS_INPUT, SAMPLES_INPUT, SCORE_INPUT = "pairs", "samples", "score"


def report_pairs_input_role(protocol: str) -> str:
    return f"{protocol}/{PAIRS_INPUT}"


def report_samples_input_role(protocol: str, method: str) -> str:
    return f"{protocol}/{method}/{SAMPLES_INPUT}"


def score_input_role(protocol: str, method: str) -> str:
    return f"{protocol}/{method}/{SCORE_INPUT}"


def list_input_protocols(inputs: Mapping[str, object]) -> list[str]:
    """In the order in which the graph lists them."""
    return list(dict.fromkeys(role.split("/")[0] for role in inputs))


def inputs_by_method(inputs: Mapping[str, T], protocol: str, kind: str) -> dict[str, T]:
    """Method -> its input of one kind, SAMPLES_INPUT or SCORE."""
    found = {}
    for role, one in inputs.items():
        match role.split("/"):
            case [of, method, last] if of == protocol and last == kind:
                found[method] = one
    return found
