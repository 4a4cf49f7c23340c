"""What a training worker is given: one value, made of the run's settings and pickled to every worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from models.api import Phase
from models.provenance import AS_PUBLISHED_PROVENANCE
from models.spec import PreprocessingNet, load_model_spec
from models.task import Task
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.nets import load_nets
from pipelines.train.validation_nets import ValidationNets

if TYPE_CHECKING:
    from pipelines.dataset.sampler import SplitClips
    from pipelines.engine.node import NodeContext
    from pipelines.train.validation_figures import PictureFeatures


class TrainJobSpec(Struct, frozen=True, kw_only=True):
    """All a worker needs; pickled to it."""

    node: str
    phase: Phase
    build: Callable[[], Task]
    nets: Callable[[], dict[str, Any]]
    """Loads the perception nets that the phase's losses look through."""
    features: PictureFeatures | None
    """What frozen nets say of validation's pictures; None = no figures of them."""
    train: Mapping[str, SplitClips]
    """The tables that samples are read from, by name (`TaskSpec.tables`); none of a task that reads nothing.
    """
    held_out: Mapping[str, SplitClips] | None
    """The same of identities that are not trained on, or None if a table has none."""
    seed: int
    precision: str
    preprocessing_nets: Mapping[str, str] = {}
    """Part of the provenance -> the net in the place of the authors' in preprocessing; "" = theirs."""
    scratch: str
    log_every: int
    checkpoint_every: int
    threads: int
    compile: bool = False
    readers: int = 2
    """Threads that read and decode ahead."""
    prefetch: int = 4
    """Chunks that they are ahead."""


def make_train_job(
    ctx: NodeContext,
    model: str,
    name: str,
    train: Mapping[str, SplitClips],
    held_out: Mapping[str, SplitClips] | None,
) -> TrainJobSpec:
    """The phase `name` of a model, on these tables."""
    spec = load_model_spec(model)
    section, runtime = getattr(ctx.config, model), ctx.runtime
    phase: Phase = section.phases[name]
    settings = {path.rsplit(".", 1)[-1]: _setting(section, path) for path in spec.tasks[name].settings}
    seed, precision = settings.pop("seed"), settings.pop("precision")
    seed = seed if phase.seed is None else phase.seed
    settings |= {name: getattr(ctx.config, name) for name in spec.extra_sections(section)}
    return TrainJobSpec(
        node=ctx.node,
        phase=phase,
        build=partial(resolve_entry_point(spec.tasks[name].task), **settings),
        nets=partial(load_nets, spec.nets(section, phase), ctx.store),
        features=ValidationNets(ctx.store),
        train=train,
        held_out=held_out,
        seed=seed,
        precision=precision,
        preprocessing_nets=describe_preprocessing_nets(spec.preprocessing_nets, ctx.config),
        scratch=ctx.scratch,
        log_every=runtime.log_every,
        checkpoint_every=runtime.checkpoint_every,
        threads=runtime.train_cpus,
        compile=runtime.train_compile,
        readers=runtime.train_readers,
        prefetch=runtime.train_prefetch,
    )


def describe_preprocessing_nets(nets: Mapping[str, PreprocessingNet], config: Any) -> dict[str, str]:
    """Part of the provenance -> the net that stands in the place of the authors', "" where it is theirs."""
    found = {}
    for part, net in nets.items():
        if net.only_where is None or _setting(config, net.only_where[0]) == net.only_where[1]:
            used = _setting(config, net.setting)
            found[part] = AS_PUBLISHED_PROVENANCE if used == net.published else used
    return found


def _setting(section: Any, path: str) -> Any:
    for part in path.split("."):
        section = getattr(section, part)
    return section
