"""Whether a phase can start as its settings say, told before anything runs: the graph asks when it is built.

Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from models.api import RELEASED, Phase, Released
from models.errors import InvalidSettings


def check(
    model: str,
    phase: Phase,
    phases: Mapping[str, Phase | None],
    parts: Mapping[str, Sequence[str]],
    released: Mapping[str, Released],
) -> None:
    """Raises InvalidSettings, which says what to change and what to run, where the start is not there, a
    part of the net neither learns nor is brought, or Adam is to go on for parts that have not learnt.

    parts: of the net of each phase, and so what it brings to a later one.
    """
    node, path = f"train.{model}.{phase.name}", f"{model}.phases.{phase.name}"
    start, own = phase.start_from, parts[phase.name]
    before, files = phases.get(start or ""), released.get(phase.released or "")
    earlier = {one: it for one in takewhile(lambda one: one != phase.name, phases) if (it := phases[one])}
    if start and not before and not files:
        off = f" while {model}.phases.{start} is null (else {_made(model, start)})" if start in phases else ""
        there = _listed(model, earlier, released)
        raise InvalidSettings(
            f"{node} starts from {start!r}, which this run does not have{off}; it has {there}"
        )
    if unknown := sorted(set(phase.learning) - set(own)):
        raise InvalidSettings(f"{node} trains {unknown}, but the parts of its net are {sorted(own)}")
    brought = parts[before.name] if before else files.parts if files else ()
    if lacking := set(own) - set(phase.learning) - set(brought):
        bring = [one for one in earlier if lacking <= set(parts[one])]
        these = [one for one, file in released.items() if lacking <= set(file.parts)]
        origin = f"{start}, which does not bring it" if start else "nothing"
        there = _listed(model, bring, these)
        raise InvalidSettings(
            f"{node} does not train {', '.join(sorted(lacking))} and starts from {origin}; "
            + (f"set {path}.start_from to one of {there}" if there else f"name it in {path}.train")
        )
    if before and phase.carry and (anew := set(phase.train) - set(before.train)):
        learnt = [one for one, it in earlier.items() if set(phase.train) <= set(it.train)]
        there = _listed(model, learnt, ())
        raise InvalidSettings(
            f"{node} goes on with the Adam moments of train.{model}.{start}, which does not train "
            f"{', '.join(sorted(anew))}; set {path}.carry to false"
            + (f", or {path}.start_from to one of {there}" if there else "")
        )


def _listed(model: str, phases: Iterable[str], released: Iterable[str]) -> str:
    trained = [f"{phase} ({_made(model, phase)})" for phase in phases]
    return ", ".join([*trained, *(f"{RELEASED}{one}" for one in released)])


def _made(model: str, phase: str) -> str:
    return f"`reenact run RUN.yaml --only train.{model}.{phase}` trains it"
