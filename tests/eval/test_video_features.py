"""Windows of videos: which frames are in them, and what of clips that are shorter."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.eval.video_features import compute_i3d_logits

RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)


class MeanNet:
    """In I3D's place: it knows the mean of every frame, and what size it is."""

    device = torch.device("cpu")

    def configure_inference(self, how):
        self.how = how

    def logits(self, clips):
        out = torch.zeros(len(clips), 400)
        out[:, :16] = clips.mean((2, 3, 4))
        out[:, 16], out[:, 17] = clips.shape[-1], clips.shape[-2]
        return out


def logits(unit_samples, frames, nets=None):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames}])}
    (sample,) = compute_i3d_logits(inputs, None, {"i3d_k400": MeanNet()} if nets is None else nets, RUNTIME)
    return sample


def frames(count, side=32):
    return np.broadcast_to(np.arange(count)[:, None, None, None], (count, side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize(("count", "rows"), [(16, 1), (31, 1), (32, 2), (50, 3)])
def test_windows_follow_each_other_and_what_is_left_is_left_out(unit_samples, count, rows):
    found = logits(unit_samples, frames(count))["logits"]
    assert found.shape == (rows, 400)
    np.testing.assert_allclose(found[:, :16].ravel(), np.arange(16 * rows) / 255, atol=1e-6)
    assert (found[:, 16:18] == 224).all()


def test_a_clip_shorter_than_a_window_is_one_row_of_nan(unit_samples):
    found = logits(unit_samples, frames(15))["logits"]
    assert found.shape == (1, 400)
    assert np.isnan(found).all()


def test_a_single_picture_is_a_still_clip(unit_samples):
    found = logits(unit_samples, frames(2)[1:])["logits"]
    np.testing.assert_allclose(found[:, :16], 1 / 255, atol=1e-6)


def test_without_the_net_its_weights_are_named(unit_samples):
    assert logits(unit_samples, frames(16), nets={})["needs"] == {"weights": "i3d_k400"}
