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


def test_frames_whose_landmarks_slip_are_shown(built, clips):
    text = (built.out / "corpus.html").read_text()
    section = text[text.index("Landmarks are found twice") :]
    assert f"In 2 of {sum(len(frames) - 1 for frames in clips.values())} frames" in section
    assert "this is frame 3" in section
