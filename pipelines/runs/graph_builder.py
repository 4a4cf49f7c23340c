"""What graph.py builds with: which instances a run needs, and nodes with all that their keys hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from models.api import Phase
from models.errors import InvalidSettings
from models.perception import NETS, net_on_backend
from models.spec import RECORDINGS_TABLE, FamilyFields, SeedTable, units_table_role
from pipelines.config import RunConfig
from pipelines.engine.node import Graph, Node, Read
from pipelines.errors import UserError
from pipelines.eval.pair_clips import SOUND_FAMILIES
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.eval.scored_frames import check_scored_view
from pipelines.nets import collect_net_requirements
from pipelines.preprocess.identity import NO_IDENTITY_NET
from pipelines.preprocess.recordings import LEAKS_REPORTED
from storage import shards
from storage.frame_codec import FrameCodec

STAGE_INSTANCE_SECTIONS = {"keypoints": "keypoints", "fit3dmm": "fits", "speech": "speech", "views": "views"}
"""Stage -> the section of its instances in a run, and the setting by which a model names the one it reads."""
NeededInstances = Mapping[str, Mapping[str, Sequence[str]]]
"""Corpus -> stage -> the instances of it that are computed."""


def find_needed_instances(config: RunConfig) -> NeededInstances:
    """What the models read, what that is made from, and what `also` asks for. Raises UserError for an
    instance that the run lacks."""
    found: dict[str, dict[str, dict[str, None]]] = {}

    def add(corpus: str, stage: str, name: str, asked_by: str) -> None:
        instances = getattr(config, STAGE_INSTANCE_SECTIONS[stage])
        check_name_in_section(STAGE_INSTANCE_SECTIONS[stage], name, instances, asked_by)
        if stage == "fit3dmm":
            add(corpus, "keypoints", instances[name].keypoints, f"fits.{name}.keypoints")
        if stage == "views" and instances[name].recipe == "ffhq256":
            add(corpus, "keypoints", instances[name].keypoints, f"views.{name}.keypoints")
        found[corpus].setdefault(stage, {})[name] = None

    def add_roles(corpus: str, model: str, roles: Iterable[str], asked_by: str) -> None:
        section = getattr(config, model)
        check_name_in_section("data", corpus, config.data, asked_by)
        found.setdefault(corpus, {})
        for role in config.model_spec(model).required_families(section, roles):
            stage, _, view = role.partition(".")
            if stage in STAGE_INSTANCE_SECTIONS:
                name = view or getattr(section, STAGE_INSTANCE_SECTIONS[stage])
                setting = "phases.*.frames_from" if view else STAGE_INSTANCE_SECTIONS[stage]
                add(corpus, stage, name, f"{model}.{setting}")

    for model in config.models:
        spec, section = config.model_spec(model), getattr(config, model)
        if section.weights:  # nothing is trained
            continue
        phases = [phase for phase in section.phases.values() if phase is not None]
        trained_on = (role for phase in phases for role in spec.reads(section, phase))
        add_roles(section.data, model, trained_on, f"{model}.data")
    for corpus, model, roles, setting in _driven_with(config):
        add_roles(corpus, model, roles, setting)
    for corpus, view, setting in _scored_views(config):
        add(corpus, "views", view, setting)
    if config.identity.keypoints and config.identity.net != NO_IDENTITY_NET:
        for corpus in found:
            add(corpus, "keypoints", config.identity.keypoints, "identity.keypoints")
    sections = {section: stage for stage, section in STAGE_INSTANCE_SECTIONS.items()}
    for text in config.also:
        section, _, name = text.partition(".")
        if section not in sections:
            raise UserError(
                f"also: {text!r}: expected one of {', '.join(sections)}, a dot and an instance's name"
            )
        for corpus in found:
            add(corpus, sections[section], name, "also")
    order = ("keypoints", "fit3dmm", "speech", "views")
    return {
        corpus: {stage: tuple(stages[stage]) for stage in order if stage in stages}
        for corpus, stages in found.items()
    }


def _driven_with(config: RunConfig) -> Iterator[tuple[str, str, Iterable[str], str]]:
    """Corpus, model, the families that the model reads of it where a protocol drives it, and the setting that
    names the corpus."""
    for model in config.models:
        driven_with = config.model_spec(model).driving_reads(getattr(config, model))
        for name, protocol in config.eval.active_protocols.items():
            if model not in protocol_models(config, protocol):
                continue
            for side, corpus in zip(("source", "driving"), protocol_corpora(config, protocol), strict=True):
                own = getattr(protocol, f"{side}_data")
                setting = f"eval.protocols.{name}.{side}_data" if own else "eval.data"
                sound_only = side == "driving" and protocol.has_other_sound
                yield corpus, model, SOUND_FAMILIES & set(driven_with) if sound_only else driven_with, setting


def _scored_views(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Corpus, view and setting of each protocol that takes frames from a view. Raises UserError for one that
    they cannot be taken from."""
    for name, protocol in config.eval.active_protocols.items():
        if view := config.eval.scored_view(protocol):
            setting = f"eval.protocols.{name}.frames_from" if protocol.frames_from else "eval.frames_from"
            check_name_in_section("views", view, config.views, setting)
            check_scored_view(view, config.views, setting)
            for corpus in protocol_corpora(config, protocol):
                yield corpus, view, setting


def recordings_nodes_by_corpus(graph: Graph) -> dict[str, str]:
    """Corpus -> the node that lists its recordings."""
    paths = {node.name: node.config["data.source"] for node in graph if node.stage == "recordings"}
    return {path.split(".")[1]: name for name, path in paths.items()}


def protocol_corpora(config: RunConfig, protocol: EvaluationProtocol) -> tuple[str, str]:
    """The corpora whose test clips are a protocol's sources, and its drivings."""
    usual = config.eval.data or getattr(config, config.models[0]).data
    return protocol.source_data or usual, protocol.driving_data or usual


def protocol_models(config: RunConfig, protocol: EvaluationProtocol) -> tuple[str, ...]:
    """The models of the run that a protocol is of. Raises UserError for one that the run does not have."""
    if unknown := [name for name in protocol.models if name not in config.models]:
        raise UserError(
            f"a protocol's models name {', '.join(unknown)}, and the run has {', '.join(config.models)}"
        )
    return protocol.models or tuple(config.models)


def evaluated_corpora(config: RunConfig) -> tuple[str, ...]:
    """The corpora that protocols take sources or drivings from."""
    protocols = config.eval.active_protocols.values()
    return tuple(dict.fromkeys(corpus for one in protocols for corpus in protocol_corpora(config, one)))


def other_training_corpora(config: RunConfig, corpus: str) -> tuple[str, ...]:
    """The corpora besides this one that models of the run are trained on, if this one is evaluated: their
    people must not be in its test split either."""
    if corpus not in evaluated_corpora(config):
        return ()
    trained = (getattr(config, model) for model in config.models)
    names = dict.fromkeys(section.data for section in trained if not section.weights)
    return tuple(name for name in names if name != corpus)


def model_training_order(config: RunConfig) -> list[str]:
    """The models of the run, each after those whose checkpoints its phases read. Raises InvalidSettings where
    that is a circle."""
    order: list[str] = []

    def add(model: str, readers: Sequence[str]) -> None:
        if model in readers:
            circle = " reads ".join((*readers[readers.index(model) :], model))
            raise InvalidSettings(
                f"models cannot be trained one after the other: {circle}, by init or uses of their phases; "
                "let one of them do without"
            )
        if model not in order:
            for other in _models_read(config, model):
                add(other, (*readers, model))
            order.append(model)

    for model in config.models:
        add(model, ())
    return order


def _models_read(config: RunConfig, model: str) -> Sequence[str]:
    """Other models of the run whose checkpoints a model's phases read."""
    section = getattr(config, model)
    phases = [phase for phase in section.phases.values() if phase is not None and not section.weights]
    named = {source.model for phase in phases for source in phase.other_model_checkpoints.values()}
    return [name for name in config.models if name in named and name != model]


def training_loss_nets(config: RunConfig, model: str) -> tuple[str, ...]:
    """Names in models.perception.NETS, of nets with weights, that the losses of a model's phases look
    through or whose answers they take for the truth, and those of the models whose checkpoints they start
    from. Of released weights none is known."""
    spec, section = config.model_spec(model), getattr(config, model)
    if section.weights:
        return ()
    phases = [phase for phase in section.phases.values() if phase is not None]
    named = [net for phase in phases for net in spec.nets(section, phase)]
    if any("keypoints" in spec.targets(section, phase) for phase in phases):
        landmarker = config.keypoints[section.keypoints].landmarker
        named.append(net_on_backend(landmarker, config.perception.backend))
    own = [net for net in named if NETS[net].weights]
    others = [net for name in _models_read(config, model) for net in training_loss_nets(config, name)]
    return _once((*own, *others))


def instance_read_by(config: RunConfig, model: str, stage: str) -> str:
    """The instance of a stage that a model's section names; of keypoints, where it names none, that of its
    fits."""
    section, named = getattr(config, model), STAGE_INSTANCE_SECTIONS[stage]
    if stage == "keypoints" and not hasattr(section, named):
        return config.fits[section.fits].keypoints
    return getattr(section, named)


def check_name_in_section(section: str, name: str, known: Mapping[str, object], asked_by: str) -> None:
    if name not in known:
        raise UserError(
            f"{asked_by} names {name!r}, but {section} has {', '.join(known) or 'none'}; "
            f"add {section}.{name} to the run file"
        )


class GraphBuilder(Struct, frozen=True):
    """A graph in the making."""

    config: RunConfig
    graph: Graph
    needed: NeededInstances

    def corpus_node_name(self, name: str, corpus: str) -> str:
        """The name of a corpus' node."""
        return name if len(self.needed) == 1 else f"{name}@{corpus}"

    def needed_instances(self, stage: str, corpus: str) -> Sequence[str]:
        return self.needed[corpus].get(stage, ())

    def splits_node(self, corpus: str) -> str:
        """The node that says in which split each recording is: where the run does more about leaks than
        report them, not the source's word counts, but what became of it."""
        leaks = self.config.data[corpus].leaks
        return self.corpus_node_name("recordings" if leaks == LEAKS_REPORTED else "splits", corpus)

    def identity_keypoints_node(self, corpus: str) -> str:
        """The node whose landmarks place the faces that are compared; empty where none are."""
        identity, instances = self.config.identity, self.needed_instances("keypoints", corpus)
        name = identity.keypoints or next(iter(instances), "")
        if not name or identity.net == NO_IDENTITY_NET:
            return ""
        return self.corpus_node_name(f"keypoints.{name}", corpus)

    def resolve_model_reads(self, model: str, roles: FamilyFields, corpus: str) -> dict[str, Read]:
        """Families by the roles in which a model reads them: the instances that its section names, and nodes
        of its own."""
        section, found = getattr(self.config, model), {}
        spec = self.config.model_spec(model)
        own = {*spec.nodes(section), *spec.unit_tables}
        for role, fields in roles.items():
            if role in own:
                node = self.model_node_name(model, role, corpus)
            else:
                named = STAGE_INSTANCE_SECTIONS.get(role)
                node = self.corpus_node_name(f"{role}.{getattr(section, named)}" if named else role, corpus)
            found[role] = Read(node, tuple(fields))
        return found

    def model_node_name(self, model: str, role: str, corpus: str) -> str:
        """The name of a model's own node, or of a table of units: one of a corpus unless it is of seeds."""
        if role == RECORDINGS_TABLE:
            return self.corpus_node_name(role, corpus)
        spec, name = self.config.model_spec(model), f"{role}.{model}"
        units = spec.unit_tables.get(spec.family_unit_table_name(getattr(self.config, model), role))
        return name if isinstance(units, SeedTable) else self.corpus_node_name(name, corpus)

    def unit_table_reads(self, model: str, phase: Phase, corpus: str) -> dict[str, Read]:
        """The tables of units that say which rows a phase trains on."""
        section, found = getattr(self.config, model), {}
        for table, units in self.config.model_spec(model).units_of_phase_tables(section, phase).items():
            role = RECORDINGS_TABLE if units == RECORDINGS_TABLE else units_table_role(table)
            node = (
                self.splits_node(corpus)
                if units == RECORDINGS_TABLE
                else self.model_node_name(model, units, corpus)
            )
            found[role] = Read(node, ("id", "split", "identity"))
        return found

    def stage_config_paths(self, model: str, stages: Sequence[str]) -> dict[str, str]:
        """Settings of the stages that a model reads, by the stage's name."""
        return {
            stage: f"{STAGE_INSTANCE_SECTIONS[stage]}.{instance_read_by(self.config, model, stage)}"
            for stage in stages
        }

    def preprocessing_net_paths(self, model: str) -> dict[str, str]:
        """The settings that name a model's nets of preprocessing, under the stage's name."""
        nets = self.config.model_spec(model).preprocessing_nets.values()
        named = [
            path for net in nets for path in (net.setting, *(net.only_where[:1] if net.only_where else ()))
        ]
        found = {}
        for path in named:
            stage, _, setting = path.partition(".")
            of_instance = self.stage_config_paths(model, (stage,)) if stage in STAGE_INSTANCE_SECTIONS else {}
            found[path] = f"{of_instance.get(stage, stage)}.{setting}"
        return found

    def add_stage(
        self,
        stage: str,
        corpus: str,
        run: str,
        *,
        instance: str = "",
        kind: str = "",
        config: Mapping[str, str] | Sequence[str] = (),
        section: str | None = None,
        **more: Any,
    ) -> None:
        """A stage of preprocessing over the recordings of a corpus. kind: of a stage with several. section:
        of its settings, if not that of its stage."""
        settings = {stage: f"{STAGE_INSTANCE_SECTIONS[stage]}.{instance}"} if instance else config
        self.add_keyed(
            self.corpus_node_name(f"{stage}.{instance}" if instance else stage, corpus),
            f"pipelines.preprocess.{run}",
            stage=f"{stage}.{kind}" if kind else stage, units=self.corpus_node_name("recordings", corpus),
            config=settings, section=stage if section is None else section, **more,
        )  # fmt: skip

    def add_keyed(
        self,
        name: str,
        run: str,
        *,
        writes: Sequence[str],
        config: Mapping[str, str] | Sequence[str] = (),
        code: Sequence[str] = (),
        nets: Sequence[str] = (),
        packages: Sequence[str] = (),
        cpu: float = 1,
        gpu: float | None = None,
        codec: FrameCodec | None = None,
        **more: Any,
    ) -> None:
        """run: "module:function". cpu, gpu: of each worker; gpu as its nets need it by default. codec: of
        the frames that it writes, if not that of the clips. UserError for nets in LiteRT beside nets on a
        GPU."""
        on_backend = [net_on_backend(name, self.config.perception.backend) for name in nets]
        if on_backend != list(nets):
            own = config if isinstance(config, Mapping) else map_paths_to_themselves(*config)
            nets, config = on_backend, {**own, **map_paths_to_themselves("perception.backend")}
        needs = collect_net_requirements(nets)
        shared = self.config.runtime.gpu_share if needs.gpu else 0
        if shared and (on_cpu := [net for net in nets if net.endswith(".litert")]):
            raise UserError(
                f"{name}: {', '.join(on_cpu)} cannot run beside nets on a GPU, which runtime.gpu_share gives "
                "it; --set perception.backend=torch, or --set runtime.gpu_share=0"
            )
        written = shards.codec_packages(writes, codec or self.config.clips.frames.codec)
        self._add(
            name, run, kind="keyed", writes=writes, nets=nets, config=config,
            code=(*code, *shards.encoder_function_names(writes), *needs.code), weights=needs.weights,
            packages=(*packages, *written, *needs.packages),
            resources={"cpu": cpu, "gpu": shared if gpu is None else gpu}, **more,
        )  # fmt: skip

    def add_whole(
        self,
        name: str,
        run: str,
        *,
        code: Sequence[str] = (),
        nets: Sequence[str] = (),
        weights: Sequence[str] = (),
        packages: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """run: in pipelines. nets: those that it loads itself."""
        needs = collect_net_requirements(nets)
        self._add(
            name, f"pipelines.{run}", kind="whole", code=(*code, *needs.code),
            weights=(*weights, *needs.weights), packages=(*packages, *needs.packages), **more,
        )  # fmt: skip

    def _add(
        self,
        name: str,
        run: str,
        *,
        config: Mapping[str, str] | Sequence[str] = (),
        reads: Mapping[str, Read] | None = None,
        code: Sequence[str],
        weights: Sequence[str],
        packages: Sequence[str],
        reads_codec: FrameCodec | None = None,
        **more: Any,
    ) -> None:
        """With what decodes the fields that it reads. reads_codec: of frames, if not that of the clips."""
        read = [field for one in (reads or {}).values() for field in one.fields]
        decoding = shards.codec_packages(read, reads_codec or self.config.clips.frames.codec)
        self.graph.add(Node(
            name=name, run=run, reads=reads or {}, weights=_once(weights),
            config=config if isinstance(config, Mapping) else map_paths_to_themselves(*config),
            code=_once((*code, *shards.decoder_function_names(read))), packages=_once((*packages, *decoding)),
            **more,
        ))  # fmt: skip


def find_shared_keypoints(run: GraphBuilder, corpora: Iterable[str]) -> str:
    """The first instance of keypoints that the run computes for all of these corpora; "" = none."""
    computed = [run.needed_instances("keypoints", corpus) for corpus in corpora]
    return next((name for name in computed[0] if all(name in one for one in computed)), "")


def map_paths_to_themselves(*paths: str) -> dict[str, str]:
    """Settings that a node reads under the paths that they have in the run."""
    return {path: path for path in paths}


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
