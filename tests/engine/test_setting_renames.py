import pytest

from pipelines.engine.setting_renames import SettingRenames

RENAMES = SettingRenames(
    {"*.speed": "rate", "first.*.limit": "most", "*.net": "vgg"}, {"*.net": {"vgg19": "imagenet"}}
)


@pytest.mark.parametrize(
    ("today", "before"),
    [
        ("first.speed", "first.rate"),
        ("first.speed.limit", "first.rate.most"),
        ("first.parts.speed", "first.parts.speed"),
        ("second.parts.limit", "second.parts.limit"),
        ("speed", "speed"),
    ],
)
def test_a_star_stands_for_one_part_of_a_path(today, before):
    assert RENAMES.former(today, 1) == (before, 1)
    assert RENAMES.current(before, 1) == (today, 1)


@pytest.mark.parametrize(
    ("today", "before"),
    [
        (("first.net", "vgg19"), ("first.vgg", "imagenet")),
        (("first.net", "other"), ("first.vgg", "other")),
        (("first.net", None), ("first.vgg", None)),
        (("first.net.name", "vgg19"), ("first.vgg.name", "vgg19")),
        (("first.other", "vgg19"), ("first.other", "vgg19")),
    ],
)
def test_values_are_those_of_the_setting_itself(today, before):
    assert RENAMES.former(*today) == before
    assert RENAMES.current(*before) == today


def test_without_tables_all_stays_as_it_is():
    assert SettingRenames().former("a.b", "c") == SettingRenames().current("a.b", "c") == ("a.b", "c")
