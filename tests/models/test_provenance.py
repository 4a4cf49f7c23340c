"""What is said of weights that are not the published ones, from phase to phase."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from models import provenance
from models.fsrt.detector_task import DISTILLED_KEYPOINT_DETECTOR_PROVENANCE
from models.headgan.config import HeadModelName
from models.perception import NETS
from models.provenance import ProvenanceKind
from models.spec import load_model_spec

NONE, REAL, RANDOM, OTHER = (
    provenance.perceptual_net_provenance(net and SimpleNamespace(name=net))
    for net in (None, "vgg19", "vgg19_random", "efficientnet_lite0")
)


def through(*phases: dict[str, str]) -> dict[str, str]:
    """What people see after these phases, each of which starts from the checkpoint before it."""
    about = provenance.provenance_to_metadata(phases[0])
    for now in phases[1:]:
        about = provenance.provenance_to_metadata(
            provenance.combine_phase_provenance(provenance.provenance_from_metadata(about), now)
        )
    return about["provenance"]


@pytest.mark.parametrize(
    ("used", "told"),
    [
        ((RANDOM, NONE), "random vgg19"),
        ((RANDOM, REAL), "random vgg19"),
        ((REAL, RANDOM, NONE), "random vgg19"),
        ((NONE, RANDOM), "random vgg19"),
        ((NONE, OTHER, NONE), "efficientnet_lite0"),
        ((REAL, OTHER), "efficientnet_lite0"),
        ((NONE, NONE), "not used"),
        ((NONE, REAL), None),
        ((REAL, NONE), None),
        ((NONE, REAL, NONE), None),
    ],
)
def test_another_net_stays_and_not_used_goes_once_one_was_used(used, told):
    after = through({"kp_detector": "distilled"}, *used)
    assert after == {"kp_detector": "distilled"} | ({"perceptual_net": told} if told else {})


def test_parts_that_a_phase_does_not_name_keep_their_provenance():
    assert through({"kp_detector": "distilled"}, {}) == {"kp_detector": "distilled"}


def test_a_net_is_known_by_the_name_that_settings_give_it_too():
    for name in ("mesh468_iris", "mesh468_iris.torch", "mp_face", "dlib68"):
        assert provenance.provenance_kind(name) is ProvenanceKind.OTHER_NET


def test_the_later_of_two_states_is_told():
    assert through({"tokens": "none"}, {"tokens": "transcripts"}) == {"tokens": "transcripts"}


# --- released weights ---------------------------------------------------------------------------------------
FSRT, HEADGAN = (
    spec.parts(spec.config(), spec.phases["adversarial"])
    for spec in map(load_model_spec, ("fsrt", "headgan"))
)


def test_of_a_net_in_two_files_only_the_part_that_learns_is_fine_tuned():
    released = {"net": "from fsrt_vox", "kp_detector": "from fsrt_kp"}
    tuned = provenance.provenance_after_training(released, FSRT, ("decoder",))
    assert tuned == {"net": "fine-tuned from fsrt_vox", "kp_detector": "from fsrt_kp"}
    assert provenance.provenance_after_training(tuned, FSRT, ("encoder",)) == tuned
    detector = provenance.provenance_after_training(released, FSRT, ("kp_detector",))
    assert detector == {"net": "from fsrt_vox", "kp_detector": "fine-tuned from fsrt_kp"}


def test_a_generator_is_fine_tuned_with_its_discriminators():
    released = {"generator": "from headgan_vox", "image_discriminator": "from headgan_vox_d"}
    tuned = provenance.provenance_after_training(released, HEADGAN, HEADGAN)
    assert set(tuned.values()) == {"fine-tuned from headgan_vox", "fine-tuned from headgan_vox_d"}


def test_other_provenances_are_not_fine_tuned():
    assert provenance.provenance_after_training({"kp_detector": "distilled"}, FSRT, FSRT) == {
        "kp_detector": "distilled"
    }


def test_in_one_line():
    assert (
        provenance.describe_provenance({"perceptual_net": "efficientnet_lite0", "kp_detector": "distilled"})
        == "kp_detector distilled, perceptual_net efficientnet_lite0"
    )


# --- a closed set -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (REAL["perceptual_net"], ProvenanceKind.PUBLISHED),
        (NONE["perceptual_net"], ProvenanceKind.UNUSED),
        (OTHER["perceptual_net"], ProvenanceKind.OTHER_NET),
        (RANDOM["perceptual_net"], ProvenanceKind.RANDOM),
        (DISTILLED_KEYPOINT_DETECTOR_PROVENANCE["kp_detector"], ProvenanceKind.DISTILLED),
        ("from fsrt_vox", ProvenanceKind.RELEASED),
        ("fine-tuned from headgan_vox_d", ProvenanceKind.FINE_TUNED),
        ("none", ProvenanceKind.TOKENS),
        ("transcripts", ProvenanceKind.TOKENS),
        (provenance.head_provenance("lsfm"), ProvenanceKind.PUBLISHED),
        (provenance.head_provenance("analytic_head"), ProvenanceKind.OTHER_HEAD),
        (provenance.MESH_POINTS, ProvenanceKind.OTHER_POINTS),
        (provenance.LANDMARK_POINTS, ProvenanceKind.OTHER_POINTS),
        ("deca", ProvenanceKind.OTHER_NET),
    ],
)
def test_what_is_said_of_weights_is_of_one_kind(what, kind):
    assert provenance.provenance_kind(what) is kind


def test_heads_are_those_that_headgan_can_draw():
    assert {*provenance.OTHER_HEADS, provenance.PAPER_HEAD} == set(get_args(HeadModelName)) <= set(NETS)


@pytest.mark.parametrize(
    "what",
    ["trained", "random", "random weights", "vgg19_random", "from", "from nowhere", "fine-tuned fsrt_vox"],
)
def test_what_is_of_no_kind_gets_into_no_checkpoint(what):
    with pytest.raises(ValueError, match=f"provenance '{what}': expected 'not used', 'distilled'"):
        provenance.provenance_to_metadata({"perceptual_net": what})
