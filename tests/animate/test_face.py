"""The largest face of a picture or a video, in the square of the training clips."""

import numpy as np

from pipelines import media
from pipelines.animate.driving import (
    VideoDriver,
    track_driving_face,
)
from pipelines.animate.face import cut_portrait, plan_padded_crop
from pipelines.media.encoding import read_timeline
from tests.animate.stand_ins import (
    CLIPS,
    Mirror,
    encode,
)


def test_the_square_of_a_portrait_is_that_of_training(face, nets):
    found = cut_portrait(face[:300, 80:400], CLIPS, nets.detector)
    boxes = nets.detector.detect(face[None, :300, 80:400])[0][0]
    side = (boxes[2] - boxes[0]) * (1 + 2 * CLIPS.margin)
    centre = (boxes[:2] + boxes[2:4]) / 2 - [0, CLIPS.lift * (boxes[2] - boxes[0])]
    wanted = np.concatenate([centre - side / 2, centre + side / 2])
    np.testing.assert_allclose(found.square, wanted, atol=2.01)  # even edges
    assert found.crop.shape == (64, 64, 3)
    np.testing.assert_allclose(found.box[2] - found.box[0], 64 / (1 + 2 * CLIPS.margin), rtol=0.03)


def test_a_small_face_in_a_large_picture_is_found(face, nets):
    wide = np.full((1600, 2000, 3), 128, np.uint8)
    wide[900:1412, 1200:1712] = face
    assert cut_portrait(wide, CLIPS, nets.detector).square[0] > 1200


def test_a_face_that_moves_far_keeps_one_square_and_is_told_of(face, tmp_path, nets, messages):
    frames = np.full((30, 260, 640, 3), 128, np.uint8)
    for t in range(30):
        frames[t, :, 13 * t : 13 * t + 240] = face[:260, 110:350]
    path = encode(tmp_path / "far.mp4", frames)
    probed = media.probe_file(path)
    track, lost = track_driving_face(
        path, probed, read_timeline(path, 0.0), CLIPS, nets.detector, messages.append
    )
    assert lost == 0
    assert track.square[2] - track.square[0] > 400  # higher than the frame, but the face stays inside
    assert (track.square[:2] < track.boxes[:, :2].min(0)).all()
    assert (track.square[2:] > track.boxes[:, 2:].max(0)).all()
    assert "moves far" in messages[-1]
    (crop,) = [
        s.frames
        for s in VideoDriver(path, probed, read_timeline(path, 0.0), track, 64, Mirror(batch=99)).faces()
    ]
    assert crop.shape == (30, 64, 64, 3)
    top = plan_padded_crop(track.square, 640, 260, 64).margins[0][0]
    np.testing.assert_array_equal(crop[9, :top], crop[9, top : 2 * top][::-1])
