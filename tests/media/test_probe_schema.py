"""The keys of a probe."""

from typing import NotRequired, get_origin, get_type_hints

from pipelines import media
from pipelines.media.probe_schema import Probe


def test_a_probe_has_every_field_that_is_required_and_no_other(flash):
    hints = get_type_hints(Probe, include_extras=True)
    required = {name for name, kind in hints.items() if get_origin(kind) is not NotRequired}
    found = set(media.probe_file(flash))
    assert required <= found <= set(hints)
