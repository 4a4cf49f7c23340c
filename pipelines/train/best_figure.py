"""The figure that chooses a phase's best weights: whether there can be one, and what it adds to the key."""

from __future__ import annotations

from models.api import Phase
from models.errors import InvalidSettings
from pipelines.train.validation_figures import (
    CROSS_FIGURES,
    CROSS_PREFIX,
    figure_feature_nets,
    find_figure,
)

SELF_FIGURES_FUNCTION = "pipelines.train.validation_figures:compute_self_figures"
CROSS_FIGURES_FUNCTION = "pipelines.train.cross_validation:validate_cross_reenactment"
"""Figures of validation that are for the eye alone, unless a phase chooses its best weights by one."""


def best_figure_needs(where: str, phase: Phase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The code and the nets of the figure that a phase chooses its best weights by, as far as its key does
    not hold them anyway. Raises InvalidSettings for a figure that there cannot be, or for the wrong end of
    one whose better end is known. where: the phase's path in the run."""
    best = phase.best
    if best is None:
        return (), ()
    figure, of_pairs = find_figure(best.figure), best.figure.startswith(CROSS_PREFIX)
    if of_pairs and (figure is None or not phase.validation_cross_samples):
        problem = (
            f"{where}.validation_cross_samples is 0; expected 1 or more"
            if figure
            else f"pairs have {', '.join(CROSS_PREFIX + name for name in CROSS_FIGURES)}"
        )
        raise InvalidSettings(f"{where}.best.figure {best.figure!r}: {problem}")
    if figure is None:
        return (), ()
    if best.highest != (figure.metric.better == "up"):
        end = "highest" if figure.metric.better == "up" else "lowest"
        raise InvalidSettings(
            f"{where}.best: figure {best.figure} with highest {str(best.highest).lower()}: the {end} is the "
            f"best; set {where}.best.highest to {str(not best.highest).lower()}"
        )
    if best.figure == "psnr":
        return (), ()
    nets = figure_feature_nets(figure.metric.feature) if figure.is_of_a_net else ()
    return (CROSS_FIGURES_FUNCTION if of_pairs else SELF_FIGURES_FUNCTION,), nets
