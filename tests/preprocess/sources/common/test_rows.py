import json

from pipelines.preprocess.sources.common.rows import make_reject_row


def test_a_name_that_is_not_utf8_can_be_written_down():
    row = make_reject_row("a", "/videos/Jos\udce9.mp4", 0, "malformed_name", "Jos\udce9.mp4 is not UTF-8")
    assert (row["file"], row["sentence"]) == ("/videos/Jos?.mp4", "Jos?.mp4 is not UTF-8")
    json.dumps(row).encode()
