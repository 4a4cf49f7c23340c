import numpy as np
import pytest
import torch
from scipy.ndimage import laplace
from skimage.color import hsv2rgb, rgb2hsv
from torch.nn import functional as F

from models.fsrt import augment


def test_crop_arithmetic_of_the_official_loader(golden):
    expected = golden.figures["out_of_frame_crop"]["result"]
    crop = augment.normalize_crop_margins((21, 33, 10, 7), 512)
    np.testing.assert_allclose(crop * 512, [expected[side] for side in ("left", "top", "right", "bottom")])
    scale, shift = augment.frame_to_crop_scale_shift(crop)
    np.testing.assert_allclose(scale, expected["scale"], rtol=1e-6)
    np.testing.assert_allclose(shift, expected["shift"], rtol=1e-6)


@pytest.mark.parametrize(("side", "size"), [(90, 80), (64, 80), (160, 80), (200, 64)])
def test_a_crop_is_cut_to_whole_pixels_and_resized_once(side, size):
    frames = [np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(2)]
    crop = augment.normalize_crop_margins((30, 0, 17, 60), side)
    left, top, right, bottom = (round(px * side / 256) for px in (30, 0, 17, 60))
    for frame, seen in zip(frames, augment.crop_and_resize(frames, crop, size), strict=True):
        cut = torch.from_numpy(frame[top : side - bottom, left : side - right]).permute(2, 0, 1)[None]
        expected = F.interpolate(cut.double(), (size, size), mode="bilinear", align_corners=False)[0]
        np.testing.assert_allclose(
            seen, expected.permute(1, 2, 0), atol=1
        )  # 8 bits, and OpenCV's fixed point


def test_frames_of_several_sides_become_one_array():
    frames = [np.full((side, side, 3), side, np.uint8) for side in (40, 64, 90)]
    seen = augment.crop_and_resize(frames, np.array([0.1, 0.2, 0.3, 0.0]), 64)
    assert (seen == np.array([40, 64, 90])[:, None, None, None]).all()


def test_a_point_lands_on_the_same_picture_content():
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[20, 40] = 255
    point = np.array([(40.5 / 64) * 2 - 1, (20.5 / 64) * 2 - 1])
    crop = np.array([0.25, 0.125, 0.125, 0.25], np.float32)
    seen = augment.crop_and_resize([frame], crop, 80)[0, ..., 0]  # 40 columns and rows become 80
    scale, shift = augment.frame_to_crop_scale_shift(crop)
    x, y = ((point + shift) * scale + 1) / 2 * 80
    rows, columns = np.nonzero(seen == seen.max())
    assert abs(columns.mean() + 0.5 - x) < 0.51
    assert abs(rows.mean() + 0.5 - y) < 0.51


def sharpness(picture: np.ndarray) -> float:
    """Variance of the Laplacian of the grey values."""
    return laplace(picture.astype(float).mean(-1)).var()


@pytest.mark.parametrize("cut", [(26, 20, 25, 31), (60, 50, 43, 53), (64, 30, 64, 98)])
def test_crops_keep_the_detail_of_the_stored_frame(cut):
    """Stripes of 3 to 6 px, which a frame of half the side cannot show: cut first, resized once, they are as
    sharp as in floats; reduced to 256 px before they are cut, they would not be."""
    y, x = np.mgrid[:512, :512] / 512
    wave = np.sin(512 * (x + x**2 / 2)) + np.sin(512 * (y + x * y / 2))
    frame = np.rint(127.5 + 60 * wave)[..., None].repeat(3, -1).astype(np.uint8)
    left, top, right, bottom = (2 * pixels for pixels in cut)
    box = (slice(top, 512 - bottom), slice(left, 512 - right))

    def resized(picture: np.ndarray, side: int) -> np.ndarray:
        rows = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
        return F.interpolate(rows, (side, side), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)

    crop = augment.normalize_crop_margins(cut, 512)
    seen = augment.crop_and_resize([frame], crop, 256)[0]
    published = sharpness(resized(frame[box], 256).numpy())
    assert sharpness(seen) == pytest.approx(published, rel=0.03)
    reduced = resized(frame, 256).numpy()
    too_early = resized(reduced[cut[1] : 256 - cut[3], cut[0] : 256 - cut[2]], 256).numpy()
    assert sharpness(too_early) < 0.7 * published


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
    landmarks = clip.landmarks[:2]
    once = augment.mirror_landmarks(landmarks, 64)
    assert (once[:, 36, 0] == 64 - landmarks[:, 45, 0]).all()  # the eyes' outer corners
    np.testing.assert_allclose(augment.mirror_landmarks(once, 64), landmarks, atol=1e-4)


@pytest.mark.parametrize("size", [64, 40])
def test_a_crop_of_mirrored_frames_is_that_of_frames_that_were_mirrored_before(clip, size):
    """To within the rounding of OpenCV's fixed point; exactly, where nothing is resized."""
    frames, crop = clip.images[:2], np.array([0.25, 0.125, 0.0, 0.125], np.float32)
    seen = augment.crop_and_resize(frames, crop, size, mirrored=True)
    expected = augment.crop_and_resize(np.ascontiguousarray(frames[:, :, ::-1]), crop, size)
    np.testing.assert_allclose(seen.astype(int), expected.astype(int), atol=1)
    whole = augment.crop_and_resize(frames, np.zeros(4), 64, mirrored=True)
    assert (whole == frames[:, :, ::-1]).all()


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


def jitter_whole_frame(frame: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """frame (S,S,3) in [0,1] -> the same, changed by numpy and scikit-image as the authors' transforms do."""
    grey = np.array([0.299, 0.587, 0.114])
    for number in colours[4:].astype(int):
        factor = float(colours[number])
        if number == 0:
            frame = frame * factor
        elif number == 1:
            frame = factor * frame + (1 - factor) * (frame @ grey).mean()
        elif number == 2:
            frame = factor * frame + (1 - factor) * (frame @ grey)[..., None]
        else:
            hsv = rgb2hsv(frame)
            frame = hsv2rgb(np.stack([(hsv[..., 0] + factor) % 1, hsv[..., 1], hsv[..., 2]], -1))
        frame = frame.clip(0, 1)
    return frame


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_changes_colour_as_if_cut_out_of_the_changed_frame(seed):
    """Contrast turns about the mean of the whole frame, of which the crop shows the bright half."""
    rng, side, size = np.random.default_rng(seed), 192, 96
    y, x = np.mgrid[:side, :side] / side
    wave = np.stack([np.sin(3 * x + 2 * y), np.cos(4 * y - x), np.sin(2 * x * y + 1)], -1)
    frame = np.rint((0.35 + 0.15 * wave + 0.3 * (x > 0.5)[..., None]) * 255).astype(np.uint8)
    crop = np.array([0.5, 0.125, 0.0, 0.25], np.float32)
    colours = augment.sample_color_jitter(rng, 1, 0.4, 0.2)
    changed = jitter_whole_frame(frame / 255, colours[0])
    cut = torch.from_numpy(changed[24:144, 96:192]).permute(2, 0, 1)[None]
    expected = F.interpolate(cut, (size, size), mode="bilinear", align_corners=False)[0]
    whole, cropped = (
        augment.frames_to_images(torch.from_numpy(augment.crop_and_resize([frame], one, size))[None])
        for one in (np.zeros(4), crop)
    )
    seen = augment.apply_color_jitter(cropped, torch.from_numpy(colours), whole)[0, 0]
    apart = (seen - expected).abs()
    assert apart.max() < 3 / 255
    assert apart.mean() < 0.6 / 255
    alone = augment.apply_color_jitter(cropped, torch.from_numpy(colours))[0, 0]
    if abs(colours[0, 1] - 1) > 0.1:
        assert (alone - expected).abs().mean() > 2 * apart.mean()


def test_colours_of_the_whole_frame_are_not_changed_in_place():
    whole = torch.rand(1, 1, 3, 8, 8)
    before = whole.clone()
    colours = torch.from_numpy(augment.sample_color_jitter(np.random.default_rng(0), 1, 0.4, 0.2))
    augment.apply_color_jitter(whole[..., 2:6], colours, whole)
    assert torch.equal(whole, before)
