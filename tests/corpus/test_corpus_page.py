import re

from pipelines.corpus import corpus_page


def test_the_page_needs_nothing_from_outside(built):
    text = (built.out / "corpus.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in re.sub(r"data:[^\"']+", "", text)


def test_the_map_of_poses_counts_every_frame_once():
    sample_keys = corpus_page.pose_map_svg({"yaw": [0.0, 1.0, 200.0], "pitch": [0.0, 1.0, -200.0]})
    cells = [int(n) for n in re.findall(r": (\d+)</title>", sample_keys)]
    assert (sum(cells), max(cells)) == (3, 2)
    assert corpus_page.pose_map_svg({}) == ""
