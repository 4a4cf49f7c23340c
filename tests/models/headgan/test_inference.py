"""Inference: a checkpoint's net, driven by landmarks, by numbers, by a stored clip."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace
from safetensors.torch import save_file

from models.checkpoint import Checkpoint, read_checkpoint
from models.errors import InvalidFile, InvalidSettings
from models.headgan.config import Architecture, AudioFeatureConfig
from models.headgan.inference import CheckpointModelSettings, HeadGanReenactor
from models.headgan.network import Generator
from models.headgan.spec import SPEC
from models.loading import load_reenactor
from models.perception.head.default_head import get_analytic_head
from models.perception.head.pose import project
from models.reenactor import ClipFrames, FaceFrames, MotionEdit, MotionTransfer
from pipelines.animate.driving import select_face_frames
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from tests.video_files import RUNTIME

HEADS = {"analytic_head": get_analytic_head()}
NET = Architecture(image_size=32, width=4, hidden=8, audio=5)


def reenactor_from(tensors, metadata, name="it"):
    checkpoint = Checkpoint(tensors=tensors, metadata=metadata, name=name)
    return load_reenactor(SPEC, {"renderer": checkpoint})


def pair(clip, sources, driving):
    """Frames of a clip to drive others of it."""
    return ClipFrames(clip, sources), ClipFrames(clip, driving)


def lively(net):
    """A generator whose flow, modulation and pictures are not close to what they begin with."""
    torch.manual_seed(1)
    made = Generator(net)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        made.train()
        for _ in range(3):  # spectral norms find their vectors
            made(*(torch.rand(1, c, 32, 32) for c in (net.window_channels, 3, 3)),
                 torch.rand(1, net.audio) if net.audio else None)  # fmt: skip
    return made


@pytest.fixture(scope="module")
def net():
    return lively(NET)


@pytest.fixture(scope="module")
def about():
    return {
        "model": "headgan", "phase": "adversarial", "provenance": {"tokens": "none"},
        "architecture": to_builtins(NET), "head": "analytic_head", "identity": "clip_mean",
        "shading": "smooth",
        "hearing": to_builtins(AudioFeatureConfig()),
        "speech": {"encoder": "headgan", "audio_align": "centred"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def reenactor(net, about):
    made = HeadGanReenactor(lively(NET), CheckpointModelSettings.from_metadata(about), about["provenance"])
    made.set_frozen_nets(HEADS)
    return made


@pytest.fixture(scope="module")
def shown(turning):
    """Frames first to last, as `animate` hands them over."""

    def some(first=0, last=12):
        at = slice(first, last)
        boxes = np.zeros((last - first, 4), np.float32)
        clip = turning.clip
        return FaceFrames(
            frames=clip.pictures[at],
            boxes=boxes,
            landmarks=turning.landmarks[at],
            audio_features=clip.fields["speech"][at],
        )

    return some


@pytest.fixture
def clip(turning):
    return turning.clip


def muted(clip):
    mute = copy.copy(clip)
    mute.fields = clip.fields | {"clip": {"has_sound": False}}
    return mute


def animated(reenactor, shown, how=None, source=None):
    scene = reenactor.encode_sources(source or shown(0, 1))
    driving = reenactor.extract_motion(shown())
    return scene, reenactor.transfer_motion(scene, driving, driving, how or MotionTransfer())


# --- rendering ----------------------------------------------------------------------------------------------
def test_folded_spectral_norms_render_the_same(net, reenactor, clip):
    assert any("parametrizations" in name for name in net.state_dict())
    assert not any("parametrizations" in name for name in reenactor.net.state_dict())
    raw = copy.copy(reenactor)
    raw.net = lively(NET).eval()
    there, here = (one.drive(*pair(clip, [0], range(1, 12))) for one in (raw, reenactor))
    np.testing.assert_allclose(here, there, atol=1e-5)
    assert here.std() > 0.01


def test_the_batch_does_not_matter(reenactor, clip):
    other = copy.copy(reenactor)
    other.batch = 4
    one, whole = (made.drive(*pair(clip, [0], range(1, 12))) for made in (other, reenactor))
    assert whole.shape == (11, 32, 32, 3)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(one, whole, atol=1e-5)


def test_stored_fits_and_fitted_landmarks_drive_alike(reenactor, shown, clip, turning):
    _, motion = animated(reenactor, shown)
    assert motion["packed"].shape == (12, 3, get_analytic_head().n_id + get_analytic_head().n_exp + 13)
    marks = reenactor._faces.project_landmarks(motion["packed"][:, -1]).numpy()
    assert np.abs(marks - turning.landmarks / 2).mean() < 0.2
    stored = reenactor.prepare_drive(*pair(clip, [0], range(12)))[1]
    fitted, wanted = (reenactor._faces.render_nmfc(one["packed"][:, -1]) for one in (motion, stored))
    assert (fitted - wanted).abs().mean() < 0.02


def test_the_window_repeats_the_first_frame(reenactor, clip, shown):
    for packed in (
        reenactor.prepare_drive(*pair(clip, [5], [0, 1, 4]))[1]["packed"],
        animated(reenactor, shown)[1]["packed"],
    ):
        assert torch.equal(packed[0, 0], packed[0, 2])
        assert torch.equal(packed[1, 0], packed[1, 1])
        assert not torch.equal(packed[1, 1], packed[1, 2])
    windows = reenactor.prepare_drive(*pair(clip, [5], range(12)))[1]["packed"]
    assert torch.equal(windows[4, 0], windows[2, 2])


# --- any pair -----------------------------------------------------------------------------------------------
@pytest.fixture
def other(clip):
    """Another person with the same motion, in frames of half the side, twice as close."""
    made = copy.copy(clip)
    made.key, made.pictures = "id1#other#000000#000012", clip.pictures[:, ::2, ::2]
    wide = clip.fields["id_coeffs"] + 1
    made.fields = clip.fields | {"id_coeffs": wide, "id_frames": np.tile(wide, (12, 1))}
    return made


def parts_of(motion):
    """Identity, expression, camera of the frames themselves."""
    n_id, n_exp = get_analytic_head().n_id, get_analytic_head().n_exp
    return motion["packed"][:, -1].split([n_id, n_exp, 13], dim=1)


def test_a_copy_of_the_clip_drives_as_the_clip_itself(reenactor, clip):
    twin = copy.copy(clip)
    twin.key = "id0#twin#000000#000012"
    own, others = (
        reenactor.drive(ClipFrames(clip, [0]), ClipFrames(one, range(1, 6))) for one in (clip, twin)
    )
    np.testing.assert_array_equal(own, others)


def test_another_clip_lends_its_expression_and_camera_and_not_its_face(reenactor, clip, other):
    _, motion = reenactor.prepare_drive(ClipFrames(clip, [0]), ClipFrames(other, [3, 4]))
    _, own = reenactor.prepare_drive(*pair(clip, [0], [3, 4]))
    identity, expression, camera = parts_of(motion)
    assert torch.equal(identity, parts_of(own)[0])
    assert torch.equal(expression, parts_of(own)[1])
    assert torch.equal(camera[:, 0], 2 * parts_of(own)[2][:, 0])  # its frames are half as large


def test_relative_motion_of_another_clip_has_the_sources_size(reenactor, clip, other):
    mine, theirs = ClipFrames(clip, [0]), ClipFrames(other, range(12))
    scene, motion = reenactor.prepare_drive(mine, theirs, MotionTransfer(motion="relative"))
    assert parts_of(motion)[2][:, 0].mean() == pytest.approx(scene.head.scale[0], rel=0.02)


def test_each_frames_own_face_is_drawn_of_a_clip_that_drives_itself_alone(about, clip, other):
    made = HeadGanReenactor(
        lively(NET), CheckpointModelSettings.from_metadata(about | {"identity": "frame"}), {}
    )
    made.set_frozen_nets(HEADS)
    own = parts_of(made.prepare_drive(*pair(clip, [2], [3, 4]))[1])[0].numpy()
    np.testing.assert_array_equal(own, clip.fields["id_frames"][[3, 4]])
    of_pair = parts_of(made.prepare_drive(ClipFrames(clip, [2]), ClipFrames(other, [3, 4]))[1])[0].numpy()
    np.testing.assert_array_equal(of_pair, clip.fields["id_frames"][[2, 2]])


# --- cost and precision -------------------------------------------------------------------------------------
def test_the_source_is_encoded_once_for_all_frames(reenactor, clip, monkeypatch):
    calls = []
    encode = reenactor.net.encode_reference
    monkeypatch.setattr(reenactor.net, "encode_reference", lambda *given: calls.append(1) or encode(*given))
    reenactor.drive(*pair(clip, [0], range(1, 12)))
    assert len(calls) == 1


def test_bf16_renders_nearly_the_same_and_keeps_the_flow_in_fp32(net, about, reenactor, clip, monkeypatch):
    monkeypatch.setattr("models.precision.supports_bf16", lambda device: True)  # emulated, where it is not so
    half = HeadGanReenactor(lively(NET), CheckpointModelSettings.from_metadata(about), {}, "bf16")
    half.set_frozen_nets(HEADS)
    made, _ = half.run_generator(*half.prepare_drive(*pair(clip, [0], [3])))
    assert made.flow.dtype == torch.float32
    gap = np.abs(half.drive(*pair(clip, [0], [3])) - reenactor.drive(*pair(clip, [0], [3])))
    assert 0 < gap.mean() < 0.02


def test_a_deaf_net_without_flow_drawn_as_a_sketch_renders(about, clip, shown):
    net = replace(NET, audio=0, flow=False, condition="sketch")
    deaf = HeadGanReenactor(
        lively(net), CheckpointModelSettings.from_metadata(about | {"architecture": to_builtins(net)}), {}
    )
    deaf.set_frozen_nets(HEADS)
    assert deaf.reads == ("landmarks",)
    assert deaf.render(*animated(deaf, shown)).shape == (12, 32, 32, 3)
    assert list(deaf.visualize(*pair(clip, [0], [3]))) == ["sketch"]


# --- motion -------------------------------------------------------------------------------------------------
def test_relative_motion_keeps_the_sources_size(reenactor, shown):
    small = shown(0, 1)
    small = dataclasses.replace(small, landmarks=(small.landmarks - 32) * 0.7 + 32)
    scales = {}
    for motion in ("absolute", "relative"):
        scene, moved = animated(reenactor, shown, MotionTransfer(motion=motion), small)
        at = get_analytic_head().n_id + get_analytic_head().n_exp
        scales[motion] = moved["packed"][:, -1, at].mean() / scene.head.scale[0]
    assert scales["relative"] == pytest.approx(1, abs=0.02)
    assert scales["absolute"] == pytest.approx(1 / 0.7, abs=0.1)


def test_edits_reach_the_picture(reenactor, shown):
    scene, plain = animated(reenactor, shown)
    _, turned = animated(reenactor, shown, MotionTransfer(edit=MotionEdit(turn={"yaw": 20.0})))
    assert np.abs(reenactor.render(scene, turned) - reenactor.render(scene, plain)).max() > 1e-3


def test_the_expression_of_another_picture_is_taken(reenactor, shown):
    lent = reenactor.extract_motion(shown(2, 3))
    _, moved = animated(reenactor, shown, MotionTransfer(edit=MotionEdit(expression_of=lent)))
    expression = moved["packed"][:, -1, get_analytic_head().n_id :][:, : get_analytic_head().n_exp]
    assert (expression == expression[0]).all()
    assert expression[0].abs().max() > 0.1


def test_adapt_scale_is_refused_for_it_is_always_done(reenactor):
    with pytest.raises(InvalidSettings, match="always takes the source's size"):
        reenactor.check_transfer(MotionTransfer(motion="relative", adapt_scale=True))


@pytest.mark.parametrize("kind", ["expression", "identity"])
def test_a_component_that_the_head_does_not_have_is_refused_before_any_work(reenactor, kind):
    with pytest.raises(InvalidSettings, match=f"{kind} smirk: analytic has components 0 to"):
        reenactor.check_transfer(MotionTransfer(edit=MotionEdit(**{kind: {"smirk": 1.0}})))


def test_an_identity_moves_the_driven_nmfc_and_not_the_sources(reenactor, shown):
    scene, plain = animated(reenactor, shown)
    edit = MotionEdit(identity={"head_width": 2.0})
    other, wider = animated(reenactor, shown, MotionTransfer(edit=edit))
    n_id = get_analytic_head().n_id
    gained = (wider["packed"] - plain["packed"])[..., :n_id]
    assert gained[..., get_analytic_head().id_names.index("head_width")].numpy() == pytest.approx(2.0)
    assert torch.equal(wider["packed"][..., n_id:], plain["packed"][..., n_id:])  # expression and camera
    assert torch.equal(other.condition, scene.condition)
    columns = [
        reenactor._faces.render_nmfc(one["packed"][:, -1]).any(1).any(1).sum(1) for one in (wider, plain)
    ]
    assert (columns[0] > columns[1]).all()
    assert np.abs(reenactor.render(scene, wider) - reenactor.render(scene, plain)).max() > 1e-3


def test_one_source_alone(reenactor, shown, clip):
    with pytest.raises(InvalidSettings, match="one source picture, found 2"):
        reenactor.encode_sources(shown(0, 2))
    with pytest.raises(InvalidSettings, match="set the protocol's sources to 1"):
        reenactor.drive(*pair(clip, [0, 11], [3]))


# --- sound --------------------------------------------------------------------------------------------------
def test_silence_is_zeros_as_in_training(reenactor, clip, shown):
    assert not reenactor.prepare_drive(*pair(muted(clip), [0], [3]))[1]["audio"].any()
    assert not reenactor.extract_motion(dataclasses.replace(shown(), audio_features=None))["speech"].any()


def test_what_is_heard_changes_the_picture(reenactor, clip):
    assert (
        np.abs(reenactor.drive(*pair(clip, [0], [3])) - reenactor.drive(*pair(muted(clip), [0], [3]))).max()
        > 1e-3
    )


def test_features_of_another_encoder_are_told(reenactor):
    with pytest.raises(InvalidSettings, match="features of 320 numbers, but this headgan learned with 5"):
        reenactor.audio_features_from_speech(np.zeros((4, 320), np.float32))


# --- explicit parameters ------------------------------------------------------------------------------------
@pytest.fixture
def numbers(turning):
    motion = turning.motion
    return {
        "scale": motion.scale, "translation": motion.translation, "exp_coeffs": motion.expression,
        "angles": motion.angles, "size": np.array(64),
    }  # fmt: skip


def test_stated_numbers_drive_as_the_landmarks_made_from_them(reenactor, numbers, shown):
    scene, fitted = animated(reenactor, shown)
    given = reenactor.motion_from_arrays(numbers)
    made = reenactor.transfer_motion(scene, given, given, MotionTransfer())
    marks = [reenactor._faces.project_landmarks(one["packed"][:, -1]) for one in (made, fitted)]
    assert (marks[0] - marks[1]).abs().mean() < 0.3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": np.ones(3)}, r"translation: found shape \(12, 3\), expected \(3, 3\)"),
        ({"size": np.array("64")}, "size: found"),
        ({"size": np.array(-1)}, "size: found"),
        ({"speech": np.zeros((12, 4))}, r"speech: found shape \(12, 4\), expected \(12, 5\)"),
        ({"yaw": np.zeros(12)}, "unknown yaw in a head's motion"),
    ],
)
def test_wrong_numbers_are_told_by_their_field(reenactor, numbers, change, told):
    with pytest.raises(InvalidFile, match=told):
        reenactor.motion_from_arrays(numbers | change)


# --- checkpoints --------------------------------------------------------------------------------------------
def test_a_saved_checkpoint_with_discriminators_renders_as_the_net_did(net, about, reenactor, clip, tmp_path):
    path = tmp_path / "model.safetensors"
    discriminators = {"image_discriminator.x": torch.ones(2), "mouth_discriminator.x": torch.ones(2)}
    save_file(net.state_dict() | discriminators, path, metadata={"reenact": json.dumps(about)})
    again = load_reenactor(SPEC, {"renderer": read_checkpoint(path)})
    again.set_frozen_nets(HEADS)
    assert isinstance(again, HeadGanReenactor)
    assert again.described == reenactor.described
    np.testing.assert_allclose(
        again.drive(*pair(clip, [0], [3])), reenactor.drive(*pair(clip, [0], [3])), atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "fsrt"}, "holds fsrt, not headgan"),
        ({"architecture": to_builtins(NET) | {"width": 6}}, r"it does not fit headgan.*of another shape"),
        ({"architecture": {"colour": 3}}, "describes no net that is known here"),
        ({"architecture": to_builtins(NET) | {"base": 3}}, "describes no net .*base 3"),
        ({"architecture": to_builtins(NET) | {"width": "wide"}}, "describes no net that is known here"),
        ({"architecture": to_builtins(NET) | {"levels": 10**9}}, "levels 1000000000: expected 8 or fewer"),
        ({"provenance": None}, "describes no net that is known here"),
        ({"provenance": {"net": "\x1b[2Jgone"}}, r"provenance: found .*x1b.*expected printable"),
        ({"head": "../../head.npz"}, "head '../../head.npz': expected one of analytic_head"),
        ({"hearing": {"window": 3, "align": "centred", "normalise": False}}, "hearing.window 3"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_says_is_told(net, about, change, told):
    with pytest.raises(InvalidFile, match=told):
        reenactor_from(net.state_dict(), about | change)


def test_unknown_and_missing_tensors_are_named(net, about):
    state = {name.replace("conv_img", "picture"): tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(InvalidFile, match=r"missing: rendering_network\.conv_img.*unknown: .*picture"):
        reenactor_from(state, about)


def test_metadata_of_a_net_that_hears_nothing_has_no_speech(about):
    assert CheckpointModelSettings.from_metadata(about | {"speech": None}).speech == {}


def test_a_head_must_be_given_before_anything_else(net, about, shown):
    bare = HeadGanReenactor(lively(NET), CheckpointModelSettings.from_metadata(about), {})
    with pytest.raises(ValueError, match="call `set_frozen_nets` first"):
        bare.encode_sources(shown(0, 1))


def test_what_it_shows_of_a_frame_is_what_it_was_rendered_from(reenactor, clip):
    shown = reenactor.visualize(*pair(clip, [0], [7]))
    assert list(shown) == ["NMFC", "flow", "warped source"]
    assert {(one.shape, one.dtype) for one in shown.values()} == {((32, 32, 3), np.dtype(np.uint8))}
    _, condition = reenactor.run_generator(*reenactor.prepare_drive(*pair(clip, [0], [7])))
    np.testing.assert_array_equal(shown["NMFC"] > 0, condition[0].permute(1, 2, 0).numpy() * 255 >= 0.5)
    assert shown["flow"].min() < 255  # something moves


def test_a_net_without_flow_shows_neither_flow_nor_warped_source(about, clip):
    net = replace(NET, flow=False)
    made = HeadGanReenactor(
        Generator(net), CheckpointModelSettings.from_metadata(about | {"architecture": to_builtins(net)}), {}
    )
    made.set_frozen_nets(HEADS)
    assert list(made.visualize(*pair(clip, [0], [3]))) == ["NMFC"]


# --- the fitter on record -----------------------------------------------------------------------------------
DENSE_FITS = {"backend": "algorithm1", "points": "dense", "alignments": 5, "camera_target": "fitted"}


@pytest.fixture(scope="module")
def meshed(about):
    """Of a checkpoint that learned from Algorithm 1 on the mesh's points."""
    recorded = about | {"fit3dmm": DENSE_FITS, "keypoints": {"landmarker": "mesh468_iris"}}
    made = HeadGanReenactor(lively(NET), CheckpointModelSettings.from_metadata(recorded), {"tokens": "none"})
    made.set_frozen_nets(HEADS)
    return made


@pytest.fixture(scope="module")
def shown_with_mesh(shown, turning):
    """The frames with the mesh's points, exactly where the clip's head has them."""
    head, motion = get_analytic_head(), turning.motion
    shapes = head.shape(motion.identity, motion.expression)[:, head.dense_index]
    dense = project(
        np.einsum("nk,tnkc->tnc", head.dense_weight, shapes),
        motion.scale,
        motion.rotation,
        motion.translation,
    )
    return dataclasses.replace(shown(), dense=dense.astype(np.float32))


def test_what_drives_is_fitted_as_the_checkpoint_says(meshed, shown_with_mesh):
    assert meshed.reads == ("landmarks", "dense", "audio_features")
    driving = meshed.extract_motion(shown_with_mesh)
    scene = meshed.encode_sources(select_face_frames(shown_with_mesh, np.arange(12) == 0))
    packed = meshed.transfer_motion(scene, driving, driving, MotionTransfer())["packed"][:, -1]
    points = {"landmarks": shown_with_mesh.landmarks / 2, "dense": shown_with_mesh.dense / 2}  # 64 px to 32
    (stored,) = fit_clips(
        {"keypoints": [{"__key__": "k"} | points]}, Fit3dmmConfig(**DENSE_FITS), HEADS, RUNTIME
    )
    n_id, n_exp = get_analytic_head().n_id, get_analytic_head().n_exp
    np.testing.assert_array_equal(packed[:, n_id : n_id + n_exp], stored["exp_coeffs"])
    np.testing.assert_array_equal(packed[:, n_id + n_exp], stored["scale"])


def test_frames_without_the_points_on_record_are_refused(meshed, shown):
    with pytest.raises(ValueError, match="headgan reads dense; these frames come without"):
        meshed.extract_motion(shown())


def test_the_label_names_the_head_and_the_points(reenactor, meshed):
    assert meshed.provenance == {"tokens": "none", "head": "analytic_head", "face_points": "mesh468"}
    assert reenactor.provenance["face_points"] == "landmarks68"


def test_a_head_of_other_components_than_the_net_learned_with_is_refused(about):
    head = get_analytic_head()
    mine = about | {"head_components": [head.n_id, head.n_exp]}
    HeadGanReenactor(lively(NET), CheckpointModelSettings.from_metadata(mine), {}).set_frozen_nets(HEADS)
    made = HeadGanReenactor(
        lively(NET), CheckpointModelSettings.from_metadata(about | {"head_components": [157, 28]}), {}
    )
    found = rf"has {head.n_id} identity and {head.n_exp} .* learned with one of 157 and 28: draw the head"
    with pytest.raises(InvalidSettings, match=found):
        made.set_frozen_nets(HEADS)
    with pytest.raises(InvalidFile, match=r"head_components \[0, 28\]: expected two whole numbers"):
        CheckpointModelSettings.from_metadata(about | {"head_components": [0, 28]})


def test_a_clip_fitted_with_another_head_is_refused(reenactor, clip):
    other = copy.copy(clip)
    other.fields = clip.fields | {"exp_coeffs": np.zeros((12, 3), np.float32)}
    with pytest.raises(
        InvalidSettings, match=rf"clip {clip.key}: fits of .* and 3 expression .*fits.NAME.model"
    ):
        reenactor.drive(*pair(other, [0], [1]))
