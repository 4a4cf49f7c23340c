"""Settings of former names: what a run file that still has them is told, and what keys go on to hold."""

from __future__ import annotations

import re

FORMER_SETTING_NAMES: dict[str, str] = {
    "*.discriminators": "judges",
    "*.images.loss_input": "judged",
    "*.perceptual_net": "vgg19",
    "*.terms.perceptual_layers": "vgg_layers",
}
"""Settings that got another name: today's path, in which `*` stands for any one part -> the last part of the
old one, which keys go on to hold, so that renaming a setting makes nothing stale."""
FORMER_SETTING_VALUES: dict[str, dict[str, str]] = {
    "*.perceptual_net": {"vgg19": "imagenet", "vgg19_random": "random"}
}
"""Settings whose values are called otherwise today: today's path -> today's value -> the one that keys go on
to hold."""
_OF_PHASES = {
    "start_from": "init",
    "carry": "resume_optimizers",
    "train": "updates.generator.parts, as in {decoder: 1}",
    "optim": "optimizers.g; fall, hold, start are schedule.linear_decay_steps, constant_steps, step_offset",
    "losses": "updates.generator.losses, as in {pixel: {weight: 1}}",
    "adversary": "updates.discriminator, optimizers.d; fools are updates.generator.losses, alone their start",
}
REMOVED_SETTINGS = {
    "fit3dmm": "fits.NAME, as in fits.main.backend",
    "*.vgg19": "MODEL.perceptual_net: vgg19 is what imagenet was, vgg19_random what random was",
    "views.also": "also, as in also=[views.ffhq256]",
    "runtime.preview_every": "MODEL.phases.NAME.validate_every, as in fsrt.phases.warmup.validate_every=500",
    **{f"*.phases.*.{name}": f"MODEL.phases.NAME.{now}" for name, now in _OF_PHASES.items()},
    "eval.protocol": "eval.protocols.NAME, as in eval.protocols.self.sources=2",
    **{
        f"eval.{name}": f"eval.protocols.NAME.{name}, as in eval.protocols.self.{name}=2"
        for name in ("sources", "frame_stride", "max_frames")
    },
    "eval.max_clips": "eval.protocols.NAME.max_pairs, as in eval.protocols.self.max_pairs=20",
    "eval.grid_clips": "report.grid_pairs",
    **{f"eval.{name}": f"report.{name}" for name in ("videos", "resamples", "seed")},
}
"""Settings that were replaced by others of another meaning or form -> those; `*` stands for any one part."""


def find_setting_replacement(dotted: str) -> str | None:
    """What to write in place of a setting that is gone, or None."""
    found = _RETIRED.fullmatch(dotted)
    return list(REMOVED_SETTINGS.values())[(found.lastindex or 0) - 1] if found else None


def _pattern(path: str) -> str:
    """Of a path in which `*` stands for any one part."""
    return re.escape(path).replace(r"\*", r"[^.]+")


_RETIRED = re.compile("|".join(f"({_pattern(path)})" for path in REMOVED_SETTINGS))


def current_name_of(prefix: str, key: str) -> str | None:
    """The name that a setting has today, or None."""
    names = ((*now.rpartition(".")[::2], before) for now, before in FORMER_SETTING_NAMES.items())
    found = (
        last
        for section, last, before in names
        if re.fullmatch(_pattern(f"{section}.{before}"), f"{prefix}{key}")
    )
    return next((f"{prefix}{last}" for last in found), None)
