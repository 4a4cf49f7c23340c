import numpy as np
import pytest

from models.errors import InvalidFile
from models.perception.faces.dlib_file import FILE_SIZE, LEVELS, read_dlib_resnet, residual_block_shapes
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file


@pytest.fixture(scope="module")
def data():
    return find_packaged_file(find_third_party_weights("dlib_resnet")).read_bytes()


@pytest.fixture
def write(tmp_path):
    def write_file(data):
        (tmp_path / "net.dat").write_bytes(data)
        return tmp_path / "net.dat"

    return write_file


def test_the_registry_knows_the_files_size():
    assert find_third_party_weights("dlib_resnet").size == FILE_SIZE


def test_every_number_of_the_net_is_read(data, write):
    found = read_dlib_resnet(write(data))
    assert found.mean == pytest.approx((122.782, 117.001, 104.298), abs=1e-3)
    assert len(found.convolutions) == 29
    assert found.projection.shape == (256, 128)
    sizes = [one.weight.size + one.bias.size for one in found.convolutions]
    assert (sizes[0], sizes[-1]) == (32 * 147 + 32, 256 * 256 * 9 + 256)
    numbers = sum(sizes) + found.projection.size
    assert numbers == 5_607_488
    assert all(np.isfinite(array).all() for one in found.convolutions for array in one)


def test_the_first_block_of_a_smaller_level_pads_nothing():
    firsts = [first for first, _ in residual_block_shapes()]
    assert [(one.channels, one.stride, one.padding) for one in firsts if one.stride == 2] == [
        (level.channels, 2, 0) for level in LEVELS[1:]
    ]
    assert len(firsts) == 14


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (0, "0 bytes with 0 convolutions"),
        (1_000_000, "1,000,000 bytes with 1[0-9] convolutions, 1[0-9] affine and 0 linear"),
        (FILE_SIZE - 100_000, "22,366,066 bytes with 29 convolutions"),
        (FILE_SIZE - 1, "22,466,065 bytes with 29 convolutions, 29 affine and 1 linear"),
    ],
)
def test_a_file_cut_short_is_refused(data, write, kept, told):
    with pytest.raises(InvalidFile, match=f"net.dat: {told}.*expected 22,466,066 bytes.*whole and unchanged"):
        read_dlib_resnet(write(data[:kept]))


def test_another_net_of_dlibs_is_refused():
    other = find_packaged_file(find_third_party_weights("dlib_sp5"))
    with pytest.raises(
        InvalidFile, match=r"9,150,489 bytes with 0 convolutions.*dlib_face_recognition_resnet"
    ):
        read_dlib_resnet(other)


CONVOLUTION = b"\x01\x05con_4"


@pytest.mark.parametrize(
    ("after", "byte", "told"),
    [
        (CONVOLUTION, 0x70, "0x70 at byte 341 begins no integer"),
        (CONVOLUTION + b"\x01", 3, r"version of the tensor at byte 341: \(3,\), expected \(2,\)"),
        (CONVOLUTION + b"\x01\x02\x02\x80", 0x13, r"tensor at byte 341 has shape \(4992, 1, 1, 1\)"),
        (CONVOLUTION + bytes.fromhex("0102028012010101010101"), 0, None),
        (b"input_rgb_image_sized\x03\x62\x90\xf5\x81", 99, "exponent -99"),
    ],
)
def test_a_changed_byte_in_what_describes_the_numbers_is_refused(data, write, after, byte, told):
    at = data.index(after) + len(after)
    path = write(data[:at] + bytes([byte]) + data[at + 1 :])
    if told is None:  # a weight: the digest, not the structure, tells
        read_dlib_resnet(path)
    else:
        with pytest.raises(InvalidFile, match=told):
            read_dlib_resnet(path)


def test_numbers_that_are_not_finite_are_refused(data, write):
    at = data.index(CONVOLUTION) + len(CONVOLUTION) + 11
    with pytest.raises(InvalidFile, match="tensor at byte 341 holds numbers that are not finite"):
        read_dlib_resnet(write(data[:at] + np.float32(np.nan).tobytes() * 2 + data[at + 8 :]))
