"""Whether a phase can start as its settings say, checked before anything runs: the graph asks when it is
built.

Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile

from msgspec import Struct, field

from models.api import EMA_SUFFIX, RELEASED_PREFIX, Phase, ReleasedWeightsInit, WeightsSource
from models.errors import InvalidSettings


class PhaseSources(Struct, frozen=True):
    """All that phases of a model can start from."""

    model: str
    phases: Mapping[str, Phase | None]
    """Of the run, in order; null = dropped."""
    parts: Mapping[str, Sequence[str]]
    """Of the net of each phase, and so what it brings to a later one."""
    released: Mapping[str, ReleasedWeightsInit]
    others: Mapping[str, Mapping[str, Collection[str]]] = field(default_factory=dict)
    """The other models of the run -> their phases -> the parts that its checkpoint holds."""

    def parts_in_weights_source(self, source: WeightsSource) -> set[str]:
        """Parts that a source holds, running means among them."""
        if source.released is not None:
            return set(self.released[source.released].parts)
        if source.model is not None:
            return set(self.others[source.model][source.phase or ""])
        phase = self.phases[source.phase or ""]
        means = {f"{part}{EMA_SUFFIX}" for part in phase.ema_parts} if phase else set()
        return means.union(self.parts[source.phase or ""])

    def has_source(self, source: WeightsSource, phase: Phase) -> bool:
        """Whether the source is there for a phase: released, or trained before it."""
        if source.released is not None:
            return source.released in self.released
        if source.model is not None:
            return source.phase in self.others.get(source.model, {})
        return source.phase in self.trained_phases_before(phase)

    @property
    def checkpoint_parts_by_phase(self) -> dict[str, set[str]]:
        """The phases that are trained -> the parts that their checkpoints hold."""
        names = [name for name, phase in self.phases.items() if phase is not None]
        return {name: self.parts_in_weights_source(WeightsSource(name, None, None)) for name in names}

    def trained_phases_before(self, phase: Phase) -> dict[str, Phase]:
        names = takewhile(lambda name: name != phase.name, self.phases)
        return {name: found for name in names if (found := self.phases[name])}


def check_phase_sources(phase: Phase, starts: PhaseSources) -> None:
    """Raises InvalidSettings, which says what to change and what to run, where a source is not there, a part
    of the net does not exist, or neither learns nor is brought, or an optimizer is to go on for parts that
    have not learnt."""
    node, path = f"train.{starts.model}.{phase.name}", f"{starts.model}.phases.{phase.name}"
    own = starts.parts[phase.name]
    for reads, sources in (("starts from", phase.init_sources), ("uses", phase.used_checkpoints)):
        for source in sources.values():
            if not starts.has_source(source, phase):
                why = _absent_model(source, starts) if source.model else _absent(source.name, phase, starts)
                raise InvalidSettings(f"{node} {reads} {source.setting_text!r}, {why}")
    if unknown := sorted(set(phase.trainable_parts) - set(own)):
        raise InvalidSettings(f"{node} trains {unknown}, but the parts of its net are {sorted(own)}")
    available: set[str] = set()
    for part, source in phase.init_sources.items():
        there = starts.parts_in_weights_source(source)
        if not part:
            available |= there
        elif part not in (*own, *(f"{one}{EMA_SUFFIX}" for one in phase.ema_parts)):
            raise InvalidSettings(f"{path}.init names {part}, but the parts of its net are {sorted(own)}")
        elif (wanted := source.part or part) not in there:
            raise InvalidSettings(
                f"{path}.init takes {part} from {source.name}, which has no part {wanted}; it has "
                f"{sorted(there)}"
            )
        else:
            available.add(part)
    if missing := set(own) - set(phase.trainable_parts) - available:
        _refuse_missing(phase, starts, missing)
    for source in phase.init_sources.values():
        if source.phase and not source.model and phase.resume_optimizers:
            _check_resumed(phase, starts, source.phase)


def _absent(text: str, phase: Phase, starts: PhaseSources) -> str:
    there = _listed(starts.model, starts.trained_phases_before(phase), starts.released) or "nothing"
    if starts.phases.get(text):
        return f"which is not trained before it; before it there is {there}"
    if text in starts.others and text not in starts.phases:
        example = f"{text}.{next(iter(starts.others[text]), 'PHASE')}.PART"
        return (
            f"which is a model of this run, not a phase of {starts.model}; name its phase too, as {example}"
        )
    dropped = f" while {starts.model}.phases.{text} is null (else {_made(starts.model, text)})"
    off = dropped if text in starts.phases else ""
    return f"which this run does not have{off}; it has {there}"


def _absent_model(source: WeightsSource, starts: PhaseSources) -> str:
    model = source.model or ""
    if model == starts.model:
        return f"its own model's; write {source.setting_text.removeprefix(f'{model}.')}"
    if model in starts.others:
        trained = ", ".join(starts.others[model]) or "none"
        return f"but {model} trains no phase {source.phase}; its phases are {trained}"
    known = ", ".join((starts.model, *starts.others))
    part = (
        f", or write init: {{{source.phase}: {source.setting_text}}} for a part"
        if model in starts.phases
        else ""
    )
    return f"but the models of this run are {known}; add {model} to models{part}"


def _refuse_missing(phase: Phase, starts: PhaseSources, missing: set[str]) -> None:
    model, path = starts.model, f"{starts.model}.phases.{phase.name}"
    phases = [one for one in starts.trained_phases_before(phase) if missing <= set(starts.parts[one])]
    these = [one for one, file in starts.released.items() if missing <= set(file.parts)]
    names = ", ".join(dict.fromkeys(source.name for source in phase.init_sources.values()))
    origin = f"{names}, which does not bring it" if names else "nothing"
    there = _listed(model, phases, these)
    update = next(iter(phase.active_updates))
    raise InvalidSettings(
        f"train.{model}.{phase.name} does not train {', '.join(sorted(missing))} and starts from {origin}; "
        + (f"set {path}.init to one of {there}" if there else f"name it in {path}.updates.{update}.parts")
    )


def _check_resumed(phase: Phase, starts: PhaseSources, start: str) -> None:
    """The parts of the first update have learnt in the phase before; other sides may be new."""
    model, path, before = starts.model, f"{starts.model}.phases.{phase.name}", starts.phases[start]
    sourced = set(phase.init_sources) if "" not in phase.init_sources else set(phase.trainable_parts)
    first = set(next(iter(phase.active_updates.values())).learning_rate_scales) & sourced
    if before is None or not (anew := first - set(before.trainable_parts)):
        return
    learnt = [
        one for one, it in starts.trained_phases_before(phase).items() if first <= set(it.trainable_parts)
    ]
    there = _listed(model, learnt, ())
    raise InvalidSettings(
        f"train.{model}.{phase.name} resumes the optimizers of train.{model}.{start}, which does not train "
        f"{', '.join(sorted(anew))}; set {path}.resume_optimizers to false"
        + (f", or {path}.init to one of {there}" if there else "")
    )


def _listed(model: str, phases: Iterable[str], released: Iterable[str]) -> str:
    trained = [f"{phase} ({_made(model, phase)})" for phase in phases]
    return ", ".join([*trained, *(f"{RELEASED_PREFIX}{one}" for one in released)])


def _made(model: str, phase: str) -> str:
    return f"`reenact run RUN.yaml --only train.{model}.{phase}` trains it"
