"""HeadGAN as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from models.api import Phase, ReleasedWeightsInit
from models.errors import InvalidSettings
from models.headgan.config import HeadGanConfig, HeadModelName
from models.headgan.phases import DISCRIMINATOR_PARTS, GENERATOR_PARTS, PHASES
from models.spec import FamilyFields, ModelSpec, PreprocessingNet, TaskSpec

HEADGAN_FIT_FIELDS = ("id_coeffs", "exp_coeffs", "scale", "rotation", "translation", "fit_valid")
TASK_SPEC = TaskSpec(
    task="models.headgan.task:HeadGanTask",
    settings=(
        "net", "discriminators", "terms", "head", "hearing", "identity", "shading", "recompute", "seed",
        "precision",
    ),
    figures=("l1_warped", "flow"),
)  # fmt: skip
_READER = "models.headgan.released:read_released_weights"
RELEASED_WEIGHTS_INITS = {
    "headgan_vox": ReleasedWeightsInit(_READER, ("headgan_vox",), GENERATOR_PARTS),
    "headgan_vox_discriminators": ReleasedWeightsInit(
        _READER, ("headgan_vox", "headgan_vox_d", "headgan_vox_dm"), (*GENERATOR_PARTS, *DISCRIMINATOR_PARTS)
    ),
}
"""The generator alone, whose discriminators then begin anew, or with its discriminators."""


def phase_net_parts(config: HeadGanConfig, phase: Phase) -> tuple[str, ...]:
    """The same in all phases."""
    generator = GENERATOR_PARTS if config.net.flow else ("frames_encoder", "rendering_network")
    return (*generator, *(DISCRIMINATOR_PARTS if config.discriminators.mouth else DISCRIMINATOR_PARTS[:1]))


def phase_family_fields(config: HeadGanConfig, phase: Phase) -> FamilyFields:
    return driving_family_fields(config)


def driving_family_fields(config: HeadGanConfig) -> FamilyFields:
    """Frames and fits; of a net that hears, speech and whether a clip has sound."""
    fits = (*HEADGAN_FIT_FIELDS, "id_frames") if config.identity == "frame" else HEADGAN_FIT_FIELDS
    if not config.net.audio:
        return {"clips": ("frames",), "fit3dmm": fits}
    return {"clips": ("frames", "clip"), "fit3dmm": fits, "speech": ("speech",)}


def phase_loss_nets(config: HeadGanConfig, phase: Phase) -> tuple[str, ...]:
    """The head that is drawn; the perceptual losses' net, where the phase weighs one."""
    if not (phase.loss_weights.get("perceptual") or phase.loss_weights.get("perceptual_warped")):
        return (config.head,)
    return (config.head, config.perceptual_net)


RECORDED_STAGES = ("fit3dmm", "keypoints")


def extra_sections(config: HeadGanConfig) -> tuple[str, ...]:
    """How the faces were fitted, and how the sound that the net hears was encoded."""
    return (*RECORDED_STAGES, "speech") if config.net.audio else RECORDED_STAGES


def checkpoint_record(stages: Mapping[str, Any]) -> dict[str, Any]:
    """How faces were fitted, as a checkpoint says it."""
    from models.headgan.fitter import fits_record

    return fits_record(stages)


def check_fit_and_speech_settings(config: HeadGanConfig, stages: Mapping[str, Any]) -> None:
    """Raises InvalidSettings where fits or speech are not of the kind that the net learns from."""
    fit, speech = stages["fit3dmm"], stages["speech"]
    if config.head != fit.model:
        raise InvalidSettings(
            f"headgan.head {config.head} with fits.NAME.model {fit.model}: coefficients of one model mean "
            "nothing to another; set both alike"
        )
    if config.identity == "frame" and fit.identity != "frame":
        raise InvalidSettings(
            f"headgan.identity frame with fits.NAME.identity {fit.identity}: expected fits.NAME.identity "
            "frame, or headgan.identity clip_mean"
        )
    if config.net.audio not in (0, speech.size):
        raise InvalidSettings(
            f"headgan.net.audio {config.net.audio}: speech.NAME.encoder {speech.encoder} gives vectors of "
            f"{speech.size}; expected that, or 0 for a net that hears nothing, or another encoder "
            "(headgan gives 300)"
        )


SPEC = ModelSpec(
    name="headgan",
    config=HeadGanConfig,
    phases=PHASES,
    tasks=dict.fromkeys(PHASES, TASK_SPEC),
    parts=phase_net_parts,
    reads=phase_family_fields,
    nets=phase_loss_nets,
    preprocessing_nets={
        "crops": PreprocessingNet(
            setting="clips.detector", published="mtcnn", only_where=("clips.rules", "headgan")
        )
    },
    net_settings=("perceptual_net",),
    extra_sections=extra_sections,
    recorded_stages=RECORDED_STAGES,
    checkpoint_record=checkpoint_record,
    checkpoint_choices={"head": get_args(HeadModelName)},
    released=RELEASED_WEIGHTS_INITS,
    inference="models.headgan.inference:HeadGanReenactor",
    inference_nets=lambda config: (config.head,),
    driving_reads=driving_family_fields,
    driven_by=lambda config: ("frames", "sound") if config.net.audio else ("frames",),
    max_sources=1,
    check=check_fit_and_speech_settings,
)
