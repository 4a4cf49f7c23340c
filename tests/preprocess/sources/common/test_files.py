import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.preprocess.sources.common.files import (
    MAX_ID_LENGTH,
    SAFE_ID_PATTERN,
    InvalidLine,
    check_id,
    safe_name,
    shorten_name,
)
from storage.shards import FIELD_EXTENSIONS

LATEST_TICK = 9_999_999


def test_a_long_name_keeps_its_begin_and_stays_apart_from_those_that_share_it():
    one, two = (safe_name(f"Lex-Fridman-Podcast-Clips-Interview-{n}") for n in (1, 2))
    assert one[:24] == two[:24] == "Lex-Fridman-Podcast-Cli-"
    assert one != two
    assert len(one) == len(two) == MAX_ID_LENGTH


def test_a_name_is_the_same_in_every_run():
    assert safe_name("Interview with Ann (part 1) [dQw4w9WgXcQ]") == "Interview-with-Ann-part-64247d02"


@given(st.text(min_size=1))
def test_every_text_becomes_a_safe_name_that_stays_as_it_is(text):
    assert SAFE_ID_PATTERN.fullmatch(safe_name(text))
    assert safe_name(safe_name(text)) == safe_name(text)


def test_a_safe_name_that_fits_is_kept_whole():
    assert shorten_name("-aB_c123456-id00017") == "-aB_c123456-id00017"


def test_the_longest_names_and_field_fit_into_a_name_of_tar():
    name = "x" * MAX_ID_LENGTH
    fields = [f"{field}.{extension}" for field, extension in FIELD_EXTENSIONS.items()]
    member = f"{name}#{name}#{LATEST_TICK:06d}#{LATEST_TICK:06d}.{max(fields, key=len)}"
    assert tarfile.TarInfo(member).tobuf(tarfile.USTAR_FORMAT)
    assert len(member) <= tarfile.LENGTH_NAME


def test_an_id_that_a_shard_cannot_hold_is_refused_with_the_limit():
    with pytest.raises(InvalidLine, match=r"expected 1 to 32 letters"):
        check_id("video_id", "x" * (MAX_ID_LENGTH + 1))
