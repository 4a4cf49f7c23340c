"""A store says which version of its layout it has."""

import pytest

from storage import format, locations
from storage.errors import InvalidInput
from storage.files import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_a_store_is_marked_once_and_passes(store):
    format.check(store)  # there is nothing yet
    format.mark(store)
    assert store.read_json(locations.FORMAT) == {"format": format.FORMAT}
    format.check(store)


def test_an_older_store_is_marked_anew(store):
    store.write_json(locations.FORMAT, {"format": 1})
    format.check(store)
    format.mark(store)
    assert store.read_json(locations.FORMAT) == {"format": format.FORMAT}


@pytest.mark.parametrize("found", [{"format": format.FORMAT + 1}, {"format": "x"}, [], {}])
def test_a_store_of_another_format_is_refused_in_one_line(store, found):
    store.write_json(locations.FORMAT, found)
    with pytest.raises(InvalidInput, match="this reenact knows 2; update it, or give another store"):
        format.check(store)
