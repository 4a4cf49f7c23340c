"""The version of a store's layout: an older reenact must not misread a newer store, nor write into it."""

from __future__ import annotations

from storage import locations
from storage.errors import InvalidInput
from storage.files import Store
from storage.uris import public_uri

STORE_FORMAT_VERSION = 2
"""1: without a version; its keys are made in another way, so a run computes anew and `gc` frees the old."""


def check_store_format_version(store: Store) -> None:
    """Raises InvalidInput for a store that a newer version has written."""
    if not store.exists(locations.FORMAT_FILE):
        return
    found = store.read_json(locations.FORMAT_FILE)
    version = found.get("format") if isinstance(found, dict) else None
    if not isinstance(version, int) or version > STORE_FORMAT_VERSION:
        raise InvalidInput(
            f"store {public_uri(store.uri)} has format {version!r}, "
            f"this reenact knows {STORE_FORMAT_VERSION}; update it, "
            "or give another store (runtime.store or REENACT_STORE)"
        )


def write_format_version(store: Store) -> None:
    """Say in the store which version writes into it."""
    if (
        not store.exists(locations.FORMAT_FILE)
        or store.read_json(locations.FORMAT_FILE)["format"] < STORE_FORMAT_VERSION
    ):
        store.write_json(locations.FORMAT_FILE, {"format": STORE_FORMAT_VERSION})
