"""Frames as the net takes them, and back as bytes."""

import torch

from models.headgan.visualize import conditions_to_uint8, flow_to_colours, frames_to_images, images_to_uint8


def test_bytes_survive_the_way_to_the_net_and_back():
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).expand(-1, -1, -1, -1, 3)
    assert (images_to_uint8(frames_to_images(frames, 16)) == frames.numpy()).all()


def test_values_outside_the_range_are_clamped():
    assert conditions_to_uint8(torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1)).tolist() == [[[0, 128, 255]]]


def test_no_flow_is_white_and_a_full_flow_from_the_right_is_red():
    flow = torch.zeros(1, 2, 8, 8)
    assert (flow_to_colours(flow) == 255).all()
    flow[:, 0] = 1  # an eighth of the side
    red, green, blue = flow_to_colours(flow)[0, 0, 0].tolist()
    assert red == 255
    assert max(green, blue) < 70
