"""`reenact animate` with HeadGAN: a video, a picture, arrays or the source itself drives, and edits."""

import av
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from models.perception.head.default_head import get_analytic_head
from models.reenactor import MotionEdit, MotionTransfer
from pipelines import media
from pipelines.animate.driving import (
    VideoDriver,
    track_driving_face,
)
from pipelines.animate.render import AnimateOptions, write_animation
from pipelines.errors import UserError
from pipelines.media.encoding import read_timeline
from tests.animate.stand_ins import (
    SAMPLED,
    packed,
)


def film_of(path, headgan, nets):
    probed = media.probe_file(path)
    times = read_timeline(path, probed["start"])
    track, lost = track_driving_face(path, probed, times, SAMPLED, nets.detector, lambda text: None, True)
    return VideoDriver(path, probed, times, track, 128, headgan, nets.landmarker), lost


def test_a_video_drives_with_the_sources_size_and_place(make_headgan, talks, rendered, headgan):
    out, result = make_headgan(talks["silent"])
    assert (result.frames, result.size) == (8, (32, 32))
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == 8
    scales = packed(rendered)[:, get_analytic_head().n_id + get_analytic_head().n_exp]
    assert len(scales) == 8
    assert scales.std() < 0.05 * scales.mean()


def test_frames_without_a_face_are_bridged_and_still_heard(talks, headgan, nets):
    film, lost = film_of(talks["gap"], headgan, nets)
    (motion,) = film.motions()
    assert lost == film.has_face.count(False) == 3
    missing = torch.isnan(motion["landmarks"]).all(2).all(1)
    assert missing.tolist() == [not there for there in film.has_face]
    assert len(motion["speech"]) == 16


def test_what_stands_for_frames_without_a_face_is_said(headgan, bust, talks, nets, messages, tmp_path):
    options = AnimateOptions(clips=SAMPLED, transfer=MotionTransfer(motion="relative"))
    write_animation(headgan, [bust], talks["gap"], tmp_path / "o.mp4", options, nets, {}, messages.append)
    assert f"{talks['gap']}: no face in 3 of 16 frames" in messages
    assert "driving frames 6 to 8: no face; bridged from both sides" in messages


def test_the_source_drives_itself_into_a_picture(make_headgan, rendered):
    edit = MotionEdit(frontal=True, turn={"yaw": 20.0})
    out, _ = make_headgan(None, "out.png", MotionTransfer(motion="relative", edit=edit))
    assert np.asarray(Image.open(out)).shape == (32, 32, 3)
    at = get_analytic_head().n_id + get_analytic_head().n_exp + 1
    turn = np.diag([1, -1, -1]) @ packed(rendered)[0, at : at + 9].reshape(3, 3)
    assert np.degrees(np.arctan2(-turn[2, 0], turn[0, 0])) == pytest.approx(20, abs=0.1)


def test_a_picture_lends_its_expression(make_headgan, bust, rendered):
    make_headgan(bust, "a.png")
    make_headgan(bust, "b.png", expression_of=bust)
    one, other = (packed([motion])[0] for motion in rendered)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_numbers_drive_at_their_own_rate(make_headgan, tmp_path, rendered):
    frames, n_exp = 6, get_analytic_head().n_exp
    angles = np.zeros((frames, 3))
    angles[:, 1] = np.linspace(-10, 10, frames)
    path = tmp_path / "motion.npz"
    np.savez(path, scale=np.full(frames, 30.0), translation=np.tile([64.0, 64.0, 0.0], (frames, 1)),
             exp_coeffs=np.zeros((frames, n_exp)), angles=angles, size=128, fps=30)  # fmt: skip
    _, result = make_headgan(path, transfer=MotionTransfer())
    assert (result.frames, result.rate, result.seconds) == (6, "30 frames/s", pytest.approx(0.2))
    np.testing.assert_allclose(
        packed(rendered)[:, get_analytic_head().n_id + n_exp], 30.0 * 32 / 128, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"angles": np.zeros((2, 2))}, r"motion\.npz: angles: found shape \(2, 2\), expected \(2, 3\)"),
        ({"fps": np.array(0)}, "fps: found .* expected one number from 1 to 240"),
        ({"extra": np.zeros(2)}, "unknown extra in a head's motion"),
        ({"scale": np.array([object(), 1])}, r"motion\.npz is no file of arrays: scale: Object arrays"),
        ({"scale": np.full(2, 1e300)}, r"motion\.npz: scale, frame 0: found 1e\+300, expected numbers from"),
        ({"size": np.array("64")}, r"motion\.npz: size: found <U2, expected numbers"),
    ],
)
def test_wrong_numbers_are_told_with_their_file(make_headgan, tmp_path, change, told):
    fields = {"scale": np.ones(2), "translation": np.zeros((2, 3)), "angles": np.zeros((2, 3)),
              "exp_coeffs": np.zeros((2, get_analytic_head().n_exp))} | change  # fmt: skip
    path = tmp_path / "motion.npz"
    np.savez(path, **fields)
    with pytest.raises(UserError, match=told):
        make_headgan(path)


def test_a_face_that_does_not_fit_is_an_error_that_names_the_file(make_headgan, talks, monkeypatch, nets):
    predict = nets.landmarker.predict

    def predict_in_wrong_order(*arguments):
        found = predict(*arguments)
        wrong = found.landmarks[:, ::-1].copy()
        return replace(found, landmarks=wrong, previous_pass=wrong)

    monkeypatch.setattr(nets.landmarker, "predict", predict_in_wrong_order)
    with pytest.raises(UserError, match=r"portrait\.png: source frame 0: the 3D face does not fit"):
        make_headgan(talks["silent"])


def test_best_frame_means_nothing_to_it(make_headgan, talks):
    with pytest.raises(UserError, match="from the mean of the whole driving video"):
        make_headgan(talks["silent"], best_frame=True)
