import numpy as np
import pytest
import torch

from models.fsrt import augment


def test_crop_arithmetic_of_the_official_loader(golden):
    expected = golden.figures["out_of_frame_crop"]["result"]
    crop = augment.normalize_crop_margins((21, 33, 10, 7), 512)
    np.testing.assert_allclose(crop * 512, [expected[side] for side in ("left", "top", "right", "bottom")])
    scale, shift = augment.frame_to_crop_scale_shift(crop)
    np.testing.assert_allclose(scale, expected["scale"], rtol=1e-6)
    np.testing.assert_allclose(shift, expected["shift"], rtol=1e-6)


def test_a_point_lands_on_the_same_picture_content():
    frame = torch.zeros(1, 3, 64, 64)
    frame[:, :, 20, 40] = 1
    point = np.array([(40.5 / 64) * 2 - 1, (20.5 / 64) * 2 - 1])
    crop = np.array([0.25, 0.125, 0.125, 0.25], np.float32)
    seen = augment.crop_resize(frame, torch.from_numpy(crop)[None], 80)[0, 0]  # 40 columns and rows become 80
    scale, shift = augment.frame_to_crop_scale_shift(crop)
    x, y = ((point + shift) * scale + 1) / 2 * 80
    rows, columns = torch.nonzero(seen == seen.max(), as_tuple=True)
    assert abs(columns.double().mean() + 0.5 - x) < 0.51
    assert abs(rows.double().mean() + 0.5 - y) < 0.51


@pytest.mark.parametrize("seed", range(20))
def test_crops_keep_what_they_promise(seed):
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(70, 180, (1, 68, 2))
    unit = landmarks / 256 * 2 - 1

    def inside(crop: np.ndarray) -> bool:
        scale, shift = augment.frame_to_crop_scale_shift(crop)
        return bool(np.abs((unit + shift) * scale).max() <= 1)

    assert inside(augment.sample_expression_crop(rng, landmarks[0], 256))
    crop = augment.sample_out_of_frame_crop(rng, landmarks, 256)
    assert inside(crop)  # the source's landmarks stay; those of the driving frame may leave, up to 2
    scale, shift = augment.frame_to_crop_scale_shift(crop)
    assert np.abs((np.array([[-1.0], [1.0]]) + shift) * scale).max() <= 2


def test_landmarks_at_the_border_give_no_crop():
    rng = np.random.default_rng(0)
    everywhere = np.array([[0.0, 0.0], [255.0, 255.0]])
    assert not augment.sample_expression_crop(rng, everywhere, 256).any()
    assert not augment.sample_out_of_frame_crop(rng, everywhere[None], 256).any()


def test_mirroring_twice_changes_nothing(clip):
    frames, landmarks = clip.images[:2], clip.landmarks[:2]
    once = augment.flip_frames_and_landmarks(frames, landmarks)
    assert (once[0] == frames[:, :, ::-1]).all()
    twice = augment.flip_frames_and_landmarks(*once)
    assert (twice[0] == frames).all()
    np.testing.assert_allclose(twice[1], landmarks, atol=1e-4)


def test_a_mirrored_left_eye_is_a_right_eye():
    assert sorted(augment.MIRRORED_LANDMARKS[36:42]) == list(range(42, 48))
    assert augment.MIRRORED_LANDMARKS[8] == 8  # the chin
    assert augment.MIRRORED_LANDMARKS[48] == 54  # corners of the mouth


def test_neutral_colours_change_nothing():
    images = torch.rand(3, 2, 3, 8, 8)
    colours = torch.from_numpy(augment.neutral_color_jitter(3))
    torch.testing.assert_close(augment.apply_color_jitter(images, colours), images, rtol=0, atol=1e-6)


def test_a_third_of_a_turn_of_hue_rotates_the_channels():
    images = torch.rand(1, 1, 3, 8, 8)
    colours = torch.tensor([[1, 1, 1, 1 / 3, 3, 0, 1, 2]])
    turned = augment.apply_color_jitter(images, colours)
    torch.testing.assert_close(turned, images[:, :, [2, 0, 1]], rtol=0, atol=1e-5)


def test_saturation_zero_is_grey_and_contrast_zero_is_flat():
    images = torch.rand(1, 1, 3, 8, 8)
    grey = augment.apply_color_jitter(images, torch.tensor([[1, 1, 0.0, 0, 0, 1, 2, 3]]))
    assert (grey.amax(2) - grey.amin(2)).max() < 1e-6
    flat = augment.apply_color_jitter(images, torch.tensor([[1, 0.0, 1, 0, 0, 1, 2, 3]]))
    assert flat.std() < 1e-6


def test_one_set_of_colours_serves_all_frames_of_a_sample():
    image = torch.rand(1, 1, 3, 8, 8)
    colours = torch.from_numpy(augment.sample_color_jitter(np.random.default_rng(0), 1, 0.1, 0.1))
    both = augment.apply_color_jitter(image.expand(-1, 2, -1, -1, -1), colours)
    assert torch.equal(both[:, 0], both[:, 1])
