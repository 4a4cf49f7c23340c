"""The figure that chooses a phase's best weights: whether there can be one, and what it adds to the key."""

from __future__ import annotations

from models.api import Phase
from models.errors import InvalidSettings
from models.spec import TaskSpec
from pipelines.train.validation_figures import (
    CROSS_FIGURES,
    CROSS_PREFIX,
    SELF_FIGURES,
    figure_feature_nets,
    find_figure,
)

SELF_FIGURES_FUNCTION = "pipelines.train.validation_figures:compute_self_figures"
CROSS_FIGURES_FUNCTION = "pipelines.train.cross_validation:validate_cross_reenactment"
"""Figures of validation that are for the eye alone, unless a phase chooses its best weights by one."""


def check_figure_name(where: str, phase: Phase, task: TaskSpec) -> None:
    """InvalidSettings where validation of a task will not have the figure that the phase's best weights are
    to be chosen by."""
    assert phase.best is not None
    name, problem = phase.best.figure, ""
    if name.startswith(CROSS_PREFIX):
        if find_figure(name) is None:
            problem = f"pairs have {', '.join(CROSS_PREFIX + one for one in CROSS_FIGURES)}"
        elif not phase.validation_cross_samples:
            problem = f"{where}.validation_cross_samples is 0; expected 1 or more"
    elif task.figures is not None:
        known = (*task.figures, *(SELF_FIGURES if task.renders else ()))
        if name not in known:
            problem = f"validation of this phase has {', '.join(known)}"
    if problem:
        raise InvalidSettings(f"{where}.best.figure {name!r}: {problem}")


def best_figure_needs(where: str, phase: Phase, task: TaskSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The code and the nets of the figure that a phase chooses its best weights by, as far as its key does
    not hold them anyway. Raises InvalidSettings for a figure that there cannot be, or for the wrong end of
    one whose better end is known. where: the phase's path in the run. task: what validates it."""
    best = phase.best
    if best is None:
        return (), ()
    check_figure_name(where, phase, task)
    figure, of_pairs = find_figure(best.figure), best.figure.startswith(CROSS_PREFIX)
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
