"""Still pictures: turned, flat, of 8 bits; what is none is named."""

import importlib.util
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import UserError
from pipelines.media.still_image import read_picture, read_picture_or_probe


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    path, image = tmp_path / "turned.jpg", Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 8, 20))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    image.save(path, exif=exif)
    pixels = read_picture(path).pixels
    assert pixels.shape == (40, 20, 3)
    assert pixels[3, 10, 0] > 200 > pixels[36, 10, 0]


def test_transparent_parts_become_white_and_are_said(tmp_path):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 4, 8))
    image.save(tmp_path / "alpha.png")
    pixels, notes = read_picture(tmp_path / "alpha.png")
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[0, 7].tolist() == [255] * 3
    assert notes == ["has transparent parts, shown over white"]


def test_an_alpha_channel_that_hides_nothing_is_not_worth_a_word(tmp_path):
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / "opaque.png")
    assert read_picture(tmp_path / "opaque.png").notes == []


def test_sixteen_bits_are_scaled_and_said(tmp_path):
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    pixels, notes = read_picture(tmp_path / "deep.png")
    np.testing.assert_allclose(pixels[..., 0], ramp / 257, atol=1)
    assert notes == ["16 bits a channel, scaled to 8"]


def test_sixteen_bits_of_colour_are_told_too(tmp_path):
    frame = av.VideoFrame.from_ndarray(np.full((8, 8, 3), 40_000, np.uint16), format="rgb48le")
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = 8, 8, "rgb48be"
    context.time_base = Fraction(1, 25)
    packets = [*context.encode(frame.reformat(format="rgb48be")), *context.encode(None)]
    (tmp_path / "colour.png").write_bytes(b"".join(bytes(packet) for packet in packets))
    pixels, notes = read_picture(tmp_path / "colour.png")
    assert pixels[0, 0].tolist() == pytest.approx([156] * 3, abs=1)
    assert notes == ["16 bits a channel, scaled to 8"]


def test_grey_and_palette_become_rgb(tmp_path):
    for mode in ("L", "P", "CMYK", "1"):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(tmp_path / f"{mode}.{suffix}")
        pixels = read_picture(tmp_path / f"{mode}.{suffix}").pixels
        assert pixels.shape == (6, 8, 3)
        assert pixels.min() > 250


@pytest.mark.parametrize(("side", "found"), [(13_000, "13,000 x 13,000"), (60_000, "3,600,000,000")])
def test_a_picture_larger_than_any_camera_makes_is_refused_undecoded(tmp_path, png_head, side, found):
    (tmp_path / "bomb.png").write_bytes(png_head(side, side))
    with pytest.raises(UserError, match=rf"bomb\.png has {found} pixels, more than 64,000,000"):
        read_picture(tmp_path / "bomb.png")


def test_a_picture_that_another_program_would_have_to_draw_is_refused(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "drawn.eps")
    with pytest.raises(UserError, match=r"drawn\.eps is not a picture that can be read"):
        read_picture(tmp_path / "drawn.eps")


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_told_by_its_name(tmp_path, data):
    (tmp_path / "odd.png").write_bytes(data)
    with pytest.raises(UserError, match=r"odd\.png"):
        read_picture(tmp_path / "odd.png")


def test_a_video_as_a_portrait_is_one_sentence(tmp_path, helpers):
    helpers.write_video(tmp_path / "talk.mp4", np.zeros((5, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match=r"talk\.mp4 is a video of 5 frames, expected a picture; take one"):
        read_picture(tmp_path / "talk.mp4")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"is a HEIC picture, .*pip install pillow-heif"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL picture, which cannot be read here"),
        (b"\xff\x0a\x10\x20", "is a JPEG XL picture, which cannot be read here"),
        (b"", "holds 0 bytes"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_read_here_are_named_with_what_to_do(tmp_path, data, message):
    if b"heic" in data and importlib.util.find_spec("pillow_heif"):
        pytest.skip("pillow-heif is installed")
    (tmp_path / "phone.jpg").write_bytes(data)
    for read in (read_picture, read_picture_or_probe):
        with pytest.raises(UserError, match=rf"phone\.jpg {message}"):
            read(tmp_path / "phone.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF"])
def test_a_picture_that_is_cut_short_is_one_line(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole", kind)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole").read_bytes()[:-900])
    with pytest.raises(UserError, match=r"cut\.jpg") as caught:
        read_picture_or_probe(tmp_path / "cut.jpg")
    assert "\n" not in str(caught.value)


def test_an_avif_that_holds_no_picture_is_one_line(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "whole", "AVIF")
    path = tmp_path / "a.avif"
    path.write_bytes((tmp_path / "whole").read_bytes().replace(b"pitm", b"free"))
    with pytest.raises(UserError, match=r"a\.avif cannot be decoded: .*image item"):
        read_picture(path)
