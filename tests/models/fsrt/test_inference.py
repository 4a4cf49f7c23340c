"""Inference: what is encoded once, how motion is transferred (spec 9), and which checkpoints are refused."""

import copy
import json

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace
from safetensors.torch import save_file

from models.checkpoint import Checkpoint, read_checkpoint
from models.errors import InvalidFile, InvalidSettings
from models.fsrt.inference import FsrtReenactor, relative_keypoints
from models.fsrt.network import Fsrt
from models.fsrt.spec import SPEC
from models.loading import load_reenactor
from models.reenactor import ClipFrames, FaceFrames, MotionEdit, MotionTransfer

RELATIVE = MotionTransfer(motion="relative")
CLEAR = "\x1b[2J"  # what empties a terminal
NAMELESS = {"model": "fsrt", "architecture": {}, "provenance": {}}


def reenactor_from(tensors, metadata, name="it", precision="auto"):
    checkpoint = Checkpoint(tensors=tensors, metadata=metadata, name=name)
    return load_reenactor(SPEC, {"renderer": checkpoint}, "cpu", precision)


def pair(clip, sources, driving):
    """Frames of a clip to drive others of it."""
    return ClipFrames(clip, sources), ClipFrames(clip, driving)


def shown(frames):
    return FaceFrames(frames=frames, boxes=np.zeros((len(frames), 4), np.float32))


@pytest.fixture
def net(nano):
    """Initial weights, but that what it renders lies around grey and varies."""
    torch.manual_seed(0)
    net = Fsrt(replace(nano, initial="balanced"))
    with torch.no_grad():
        last = net.decoder.render_mlp[-1]
        last.bias.fill_(0.5)
        for layer in net.decoder.allocation_transformer.transformer.layers:
            layer[0].fn.to_out[0].weight *= 5  # else it hardly looks at the source
    return net


@pytest.fixture
def reenactor(net, nano):
    return FsrtReenactor(net, nano, {"kp_detector": "random"})


@pytest.fixture
def state(net):
    return net.state_dict()


@pytest.fixture
def about(nano):
    return {"model": "fsrt", "phase": "warmup", "architecture": to_builtins(nano), "provenance": {}}


# --- motion transfer ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("adapt_scale", [True, False])
def test_relative_keypoints_of_the_official_demo(golden, adapt_scale):
    source, driving, first = (golden.inp_u(shape, k, -0.8, 0.8) for shape, k in
                              (((10, 2), 30), ((1, 10, 2), 31), ((1, 10, 2), 32)))  # fmt: skip
    moved = relative_keypoints(source, driving, first[0], adapt_scale)
    figures = golden.figures["functions"]["relative_keypoints"]
    golden.check(moved, figures["result_scaled" if adapt_scale else "result_unscaled"])


def test_relative_motion_starts_at_the_sources_own_keypoints(reenactor, clip):
    scene, driving = (
        reenactor.encode_sources(shown(clip.images[:1])),
        reenactor.extract_motion(shown(clip.images[1:])),
    )
    first = {name: values[2:3] for name, values in driving.items()}
    moved = reenactor.transfer_motion(scene, driving, first, RELATIVE)
    torch.testing.assert_close(moved["keypoints"][2], scene.keypoints[0])
    assert not torch.equal(moved["keypoints"][3], driving["keypoints"][3])
    assert torch.equal(moved["expression"], driving["expression"])


def test_absolute_motion_is_the_drivings_own(reenactor, clip):
    scene, driving = (
        reenactor.encode_sources(shown(clip.images[:1])),
        reenactor.extract_motion(shown(clip.images[1:])),
    )
    assert reenactor.transfer_motion(scene, driving, driving, MotionTransfer()) is driving


def test_the_scale_is_that_of_the_source_face_over_the_first_driving_face():
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    moved = relative_keypoints(3 * square, 0.5 * square[None] + 0.1, 0.5 * square, adapt_scale=True)
    torch.testing.assert_close(moved[0], 3 * square + 6 * 0.1)


def test_a_first_frame_without_extent_has_no_scale():
    line = torch.arange(4.0)[:, None].repeat(1, 2)
    with pytest.raises(InvalidSettings, match="span no area"):
        relative_keypoints(line, line[None], line, adapt_scale=True)


def test_a_model_without_keypoints_refuses_relative_motion_and_says_why(nano, clip):
    net = replace(nano, keypoint_octaves=0)
    reenactor = FsrtReenactor(Fsrt(net), net, {})
    with pytest.raises(InvalidSettings, match=r"renders without keypoints.*latent expression"):
        reenactor.check_transfer(RELATIVE)
    reenactor.check_transfer(MotionTransfer())
    assert reenactor.drive(*pair(clip, [0], [1, 2])).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("wrong", [{"motion": "both"}, {"motion": "absolute", "adapt_scale": True}])
def test_a_transfer_that_means_nothing_is_refused(wrong):
    with pytest.raises(InvalidSettings, match=r"expected absolute or relative|relative motion"):
        MotionTransfer(**wrong)


# --- rendering ----------------------------------------------------------------------------------------------
def test_scene_motion_and_render_are_drive_taken_apart(reenactor, clip):
    scene = reenactor.encode_sources(shown(clip.images[:2]))
    parts = [
        reenactor.render(scene, reenactor.extract_motion(shown(clip.images[at : at + 3]))) for at in (2, 5)
    ]
    whole = reenactor.drive(*pair(clip, [0, 1], range(2, 8)))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_any_clip_drives_any_other(reenactor, clip):
    other = copy.copy(clip)
    other.key, other.images = "bob#v2#000000#000009", clip.images[::-1]
    mine, theirs = ClipFrames(clip, [0]), ClipFrames(other, [3, 4])
    np.testing.assert_array_equal(reenactor.drive(mine, theirs), reenactor.drive(*pair(clip, [0], [5, 4])))
    moved = reenactor.drive(mine, theirs, RELATIVE)
    assert np.abs(moved - reenactor.drive(mine, theirs)).max() > 1e-4
    scene, motion = (
        reenactor.encode_sources(shown(clip.images[:1])),
        reenactor.extract_motion(shown(other.images[3:5])),
    )
    first = {name: values[:1] for name, values in motion.items()}
    wanted = reenactor.render(scene, reenactor.transfer_motion(scene, motion, first, RELATIVE))
    np.testing.assert_allclose(moved, wanted, atol=1e-6)


def test_a_second_source_changes_the_picture(reenactor, clip):
    one = reenactor.drive(*pair(clip, [0], [3]))
    two = reenactor.drive(*pair(clip, [0, 1], [3]))
    assert np.abs(one - two).max() > 1e-3


def test_bf16_renders_nearly_the_same(nano, state, about, clip, monkeypatch):
    monkeypatch.setattr("models.precision.supports_bf16", lambda device: True)  # emulated, where it is not so
    full, half = (reenactor_from(state, about, precision=precision) for precision in ("fp32", "bf16"))
    one, other = (net.drive(*pair(clip, [0], [1, 2])) for net in (full, half))
    assert one.dtype == other.dtype == np.float32
    assert 0 < np.abs(one - other).max() < 0.05


# --- checkpoints --------------------------------------------------------------------------------------------
def test_the_discriminator_of_an_adversarial_phase_stays_behind(state, about):
    with_discriminator = state | {"discriminator.conv.weight": torch.ones(3)}
    assert isinstance(reenactor_from(with_discriminator, about), FsrtReenactor)


def test_a_checkpoint_of_another_size_is_told_by_its_tensors(state, about, nano):
    described = about | {"architecture": to_builtins(replace(nano, expression_size=12))}
    with pytest.raises(InvalidFile, match=r"it\.safetensors does not fit fsrt.*of another shape: .*\(8,"):
        reenactor_from(state, described, name="it.safetensors")


def test_unknown_and_missing_tensors_are_named(state, about):
    state = {name.replace("encoder.per_patch_linear", "encoder.patches"): t for name, t in state.items()}
    with pytest.raises(InvalidFile, match=r"missing: encoder\.per_patch_linear.*unknown: encoder\.patches"):
        reenactor_from(state, about)


def test_a_checkpoint_of_another_model_is_told(state, about):
    with pytest.raises(InvalidFile, match="holds headgan, not fsrt"):
        reenactor_from(state, about | {"model": "headgan"})


def test_a_phase_that_renders_nothing_is_told(state, about):
    with pytest.raises(InvalidFile, match="phase keypoints, which cannot render images"):
        reenactor_from(state, {"model": "fsrt", "phase": "keypoints"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provenance": None}, "provenance None: expected an object"),
        ({"provenance": [1]}, r"provenance \[1\]: expected an object"),
        ({"provenance": {"net": 1}}, "provenance: found 1, expected printable texts"),
        ({"provenance": {"net": CLEAR}}, r"provenance: found '\\x1b\[2J', expected printable texts"),
        ({"architecture": [2]}, r"architecture: found \[2\], expected an object of settings"),
    ],
)
def test_metadata_of_another_form_is_told(state, about, change, message):
    with pytest.raises(InvalidFile, match=rf"describes no net that is known here \({message}"):
        reenactor_from(state, about | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_depth": 2.0}, "encoder_depth 2.0: expected a whole number"),
        ({"encoder_depth": True}, "encoder_depth True: expected a whole number"),
        ({"encoder_depth": 30_000}, "encoder_depth 30000: expected 64 or less"),
        ({"image_size": 2**20}, "image_size 1048576: expected 2048 or less"),
        ({"encoder_attention": "xyz"}, "encoder_attention 'xyz': expected one of joint, per_image"),
        ({"render": 16}, "render 16: expected a list"),
        ({"detector": {"temperature": float("nan")}}, "detector.temperature nan: expected a finite number"),
        ({f"depth{CLEAR}": 2}, r"architecture: unknown 'depth\\x1b\[2J'; known: detector, image_size"),
    ],
)
def test_an_architecture_that_cannot_be_is_told_by_its_setting(state, about, change, message):
    with pytest.raises(InvalidFile, match=rf"describes no net that is known here \(.*{message}"):
        reenactor_from(state, about | {"architecture": about["architecture"] | change})


@pytest.mark.parametrize("about", [{"model": CLEAR}, {"model": "fsrt", "phase": CLEAR}, NAMELESS])
def test_no_text_of_a_checkpoint_steers_the_terminal(about):
    with pytest.raises(InvalidFile, match=r"\\x1b\[2J") as told:
        reenactor_from({CLEAR: torch.ones(1)}, about)
    assert CLEAR not in str(told.value)


def test_files_of_another_kind_are_told(tmp_path, state):
    plain, cut = tmp_path / "plain.safetensors", tmp_path / "cut.safetensors"
    save_file(state, plain)
    with pytest.raises(InvalidFile, match="no checkpoint of a training phase"):
        read_checkpoint(plain)
    cut.write_bytes(plain.read_bytes()[:999])
    with pytest.raises(InvalidFile, match="not a whole safetensors file"):
        read_checkpoint(cut)


def test_a_saved_checkpoint_renders_as_the_net_did(tmp_path, reenactor, about, clip):
    path = tmp_path / "model.safetensors"
    save_file(reenactor.net.state_dict(), path, metadata={"reenact": json.dumps(about)})
    again = load_reenactor(SPEC, {"renderer": read_checkpoint(path)}).drive(*pair(clip, [0], [1]))
    np.testing.assert_array_equal(again, reenactor.drive(*pair(clip, [0], [1])))


# --- what it cannot do --------------------------------------------------------------------------------------
def test_edits_are_refused_with_what_was_asked(reenactor):
    edit = MotionEdit(frontal=True, turn={"yaw": 20.0}, expression={"jaw_open": 1.0})
    with pytest.raises(InvalidSettings, match=r"frontal, yaw \+20 degrees, expression jaw_open \+1 sigmas:"):
        reenactor.check_transfer(MotionTransfer(edit=edit))
    with pytest.raises(
        InvalidSettings, match=r"identity 0 \+2 sigmas: it has no coefficients of .* identity"
    ):
        reenactor.check_transfer(MotionTransfer(edit=MotionEdit(identity={"0": 2.0})))


def test_numbers_cannot_drive_it(reenactor):
    with pytest.raises(InvalidSettings, match="driven by a video or a picture"):
        reenactor.motion_from_arrays({"scale": np.ones(3)})
