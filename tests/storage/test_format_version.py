"""A store says which version of its layout it has."""

import pytest

from storage import format_version, locations
from storage.errors import InvalidInput
from storage.files import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_a_store_is_marked_once_and_passes(store):
    format_version.check_store_format_version(store)  # there is nothing yet
    format_version.write_format_version(store)
    assert store.read_json(locations.FORMAT_FILE) == {"format": format_version.STORE_FORMAT_VERSION}
    format_version.check_store_format_version(store)


def test_an_older_store_is_marked_anew(store):
    store.write_json(locations.FORMAT_FILE, {"format": 1})
    format_version.check_store_format_version(store)
    format_version.write_format_version(store)
    assert store.read_json(locations.FORMAT_FILE) == {"format": format_version.STORE_FORMAT_VERSION}


@pytest.mark.parametrize(
    "found", [{"format": format_version.STORE_FORMAT_VERSION + 1}, {"format": "x"}, [], {}]
)
def test_a_store_of_another_format_is_refused_in_one_line(store, found):
    store.write_json(locations.FORMAT_FILE, found)
    with pytest.raises(InvalidInput, match="this reenact knows 2; update it, or give another store"):
        format_version.check_store_format_version(store)
