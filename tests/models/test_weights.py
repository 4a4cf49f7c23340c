"""The table of third-party weights."""

from __future__ import annotations

from typing import get_args

import pytest

from models import MODELS
from models.errors import InvalidSettings
from models.perception import NETS
from models.spec import load_model_spec
from models.weights import THIRD_PARTY_WEIGHTS, LicenceClass, find_third_party_weights


def test_unknown_ids_name_the_known():
    with pytest.raises(InvalidSettings, match="no weights 'nope'; known: dlib_sp68"):
        find_third_party_weights("nope")


def test_the_table_has_the_weights_of_every_net_and_every_model():
    nets = {one for net in NETS.values() for one in net.weights}
    models = {
        one
        for name in MODELS
        for released in load_model_spec(name).released.values()
        for one in released.files
    }
    assert nets | models <= set(THIRD_PARTY_WEIGHTS)


def test_what_lies_in_a_wheel_is_known_by_size_and_digest():
    for one in THIRD_PARTY_WEIGHTS.values():
        assert bool(one.package) == bool(one.size and one.sha256)


def test_every_licence_has_one_of_four_classes_and_says_in_words_which_it_is():
    for one in THIRD_PARTY_WEIGHTS.values():
        assert one.licence_class in get_args(LicenceClass), one.id
        assert one.licence, one.id


def test_terms_that_forbid_commercial_use_are_never_called_permissive():
    forbidding = ("commercial", "CC BY-NC", "registration", "research")
    for one in THIRD_PARTY_WEIGHTS.values():
        if any(word in one.licence for word in forbidding):
            assert one.licence_class in ("noncommercial", "registration"), one.id
