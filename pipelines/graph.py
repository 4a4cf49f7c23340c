"""THE DAG, readable top to bottom. A node says what it runs, reads, writes, and which settings its key holds.

  recordings ─ download ─ clips ─┬─ keypoints.<name> ─ fit3dmm.<name> ─┐
                                 ├─ speech.<name> ─────────────────────┼─ train.<model>.<phase> ... ┬─ generate ─ score ─ report
                                 │                                     ├─ pairs.<protocol> ─────────┘
                                 ├─ views.<name> ──────────────────────┤
                                 └─ identity ─ identity_check ─────────┴─ corpus (a page about the data)

Evaluation, from pairs to the report, is in pipelines/eval/nodes.py; who is who, and the page about the data, in
pipelines/corpus/nodes.py.

Code is named as text: building the graph imports no stage, no network, no torch and no ray. To add a stage: a
file in pipelines/preprocess and one `keyed(...)` here. A model appears through the spec in its folder, its
phases as `train.<model>.<phase>`, keyed nodes of its own as `<node>.<model>`, with tables of units other than
recordings (blocks of seeds, pairs of clips) as `<table>.<model>`; a model of released weights has one node,
`release.<model>`, in place of its phases.

Where a corpus asks for more than a report on leaks, `splits` stands behind `identity_check`, and training and
pairs read the split of its recordings there.

A run with several corpora has the nodes of each under `<node>@<corpus>`. Of the instances of a stage only
those are there that a model reads, or that `also` asks for.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from models.errors import InvalidSettings
from models.model_config import ModelConfig
from models.phase_checks import PhaseSources
from models.phase_checks import check_phase_sources as check_start
from models.spec import FamilyFields, ModelSpec, SeedTable, unit_table_setting_paths
from pipelines.config import RunConfig
from pipelines.corpus.nodes import add_corpus_page, add_identity_check
from pipelines.dataset import clip_pairs, seed_blocks
from pipelines.engine.keys import lookup_setting
from pipelines.engine.node import Graph, Read, UsedCheckpoints
from pipelines.errors import UserError
from pipelines.eval.nodes import add_evaluation_nodes
from pipelines.preprocess.fit3dmm import check_points_are_given
from pipelines.preprocess.keypoints import KeypointsConfig
from pipelines.preprocess.recordings import DataConfig
from pipelines.preprocess.sources import DATA_SOURCE_NETS, SOURCES
from pipelines.runs.graph_builder import (
    STAGE_INSTANCE_SECTIONS,
    GraphBuilder,
    evaluated_corpora,
    find_needed_instances,
    map_paths_to_themselves,
    model_training_order,
)
from pipelines.train.best_figure import best_figure_needs
from storage.checkpoints import MODEL_FILE

RECORDING_FIELDS_FOR_CLIPS = ("identity", "tracks")
RECORDING_SOURCE_FIELDS = ("source", "uri", "sha256", "seed", "spec")
FINGERPRINTED_TRAINING_FUNCTIONS = tuple(
    f"pipelines.train.{entry}"
    for entry in (
        "tables:split_rows",
        "job:make_train_job",
        "initial_weights:copy_weights_to_scratch",
        "loop:begin_training",
        "loop:run_steps",
        "loop:validate_and_keep_best",
        "state:write_state_and_weights_files",
    )
)
"""What a phase computes, beside what runs and reports it."""
RESERVED_NODE_NAMES = (
    "recordings", "download", "clips", "identity", "identity_check", "splits", "corpus", "train", "release",
    "pairs", "generate", "samples", "features", "score", "report",
)  # fmt: skip
"""Stages, after which no node of a model may be called."""


def build_graph(config: RunConfig) -> Graph:
    """The graph of a run: the data of each corpus, then the phases of each model, then evaluation."""
    run = GraphBuilder(config, Graph(), find_needed_instances(config))
    for corpus in run.needed:
        add_corpus_nodes(run, corpus)
    for corpus in run.needed:  # which may be compared with the people of another one
        add_identity_check(run, corpus)
        add_corpus_page(run, corpus)
    for model in config.models:
        check_model_config(config.model_spec(model), model, config)
    trained: dict[str, dict[str, str]] = {}
    for model in model_training_order(config):
        only_released = getattr(config, model).weights
        trained[model] = (
            add_released_weights(run, model) if only_released else add_training(run, model, trained)
        )
    add_evaluation_nodes(
        run, {model: checkpoint_nodes_by_role(run, model, phases) for model, phases in trained.items()}
    )
    return run.graph


def add_corpus_nodes(run: GraphBuilder, corpus: str) -> None:
    """What every model shares: recordings, clips, and the families aligned with them."""
    config, settings = run.config, run.config.data[corpus]
    recordings, download = (
        run.corpus_node_name("recordings", corpus),
        run.corpus_node_name("download", corpus),
    )
    # fmt: off
    run.add_whole(recordings, "preprocess.recordings:make_recordings_table", stage="recordings",
              run_at_plan_time=True, table=True, resources={},
              writes=("id", "split", "span", *RECORDING_FIELDS_FOR_CLIPS, *RECORDING_SOURCE_FIELDS),
              config=data_source_settings(settings, corpus), section="data", code=(SOURCES[settings.source],),
              inputs="pipelines.preprocess.recordings:digest_external_files")

    # What only fetches files must not depend on the renderer. Nor on a version of yt-dlp, ffmpeg or av: a
    # corpus is not fetched again for them, and a video that was fetched once stays what it was.
    rendered, cut = settings.source == "synthetic", config.download.sections == "exact"
    pictures = settings.source == "pictures"
    encodes = rendered or cut or pictures or settings.source == "celebv"
    other = "convert_picture_to_video" if pictures else "download_video"
    function = "download_or_render" if rendered else other
    run.add_stage("download", corpus, f"download:{function}", pack="unit",
              reads={"recordings": Read(recordings, (*RECORDING_SOURCE_FIELDS, *("span",) * cut))},
              writes=("video", "probe", "truth"),
              config={"sound": f"data.{corpus}.sound",
                      **map_paths_to_themselves(*download_key_settings(config))},
              section="",
              nets=DATA_SOURCE_NETS.get(settings.source, ()),
              cpu=1 if rendered else 0.25,  # fetching is waiting: runtime.pools may ask for more than cores
              packages=("av", *("scipy",) * rendered, *("pillow",) * pictures) if encodes else (),
              tools=("ffmpeg",) if encodes else ())

    run.add_stage("clips", corpus, "clips:cut_clips",
              reads={"recordings": Read(recordings, (*RECORDING_FIELDS_FOR_CLIPS, "span")),
                     "download": Read(download, ("video", "probe"))},
              writes=("frames", "sound", "boxes", "crop", "clip"),
              config=("clips",), nets=config.clips.nets, packages=("av", "pillow"), tools=("ffmpeg",))

    # fmt: on
    add_stages_after_clips(run, corpus)


def add_stages_after_clips(run: GraphBuilder, corpus: str) -> None:
    """What is computed from the clips of a corpus: of each stage the instances that are read."""
    config = run.config
    download, clips = run.corpus_node_name("download", corpus), run.corpus_node_name("clips", corpus)
    # fmt: off
    for name in run.needed_instances("keypoints", corpus):
        keypoints: KeypointsConfig = config.keypoints[name]
        run.add_stage("keypoints", corpus, "keypoints:find_keypoints", instance=name,
                  reads={"clips": Read(clips, keypoints.reads)}, writes=keypoints.writes,
                  nets=keypoints.nets, packages=("scipy",))

    for name in run.needed_instances("fit3dmm", corpus):
        fit = config.fits[name]
        check_points_are_given(name, fit, config.keypoints[fit.keypoints])
        points = run.corpus_node_name(f"keypoints.{fit.keypoints}", corpus)
        run.add_stage("fit3dmm", corpus, "fit3dmm:fit_clips", instance=name,
                  reads={role: Read(points if role == "keypoints" else clips, tuple(fields))
                         for role, fields in fit.reads.items()},
                  writes=fit.writes, nets=fit.nets)

    if keypoints_node := run.identity_keypoints_node(corpus):
        run.add_stage("identity", corpus, "identity:embed_identity",
                  reads={"clips": Read(clips, ("frames",)),
                         "keypoints": Read(keypoints_node, ("landmarks",))},
                  writes=("embeddings",), config=("identity.net", "identity.frames"),
                  nets=config.identity.nets)

    for name in run.needed_instances("speech", corpus):
        net = config.speech[name].net
        run.add_stage("speech", corpus, "speech:encode_speech", instance=name,
                  reads={"clips": Read(clips, ("sound", "clip"))}, writes=("speech",),
                  nets=(net,) if net else (), packages=() if net else ("scipy",),
                  inputs="pipelines.preprocess.speech:digest_external_files")

    for name in run.needed_instances("views", corpus):
        view = config.views[name]
        detected = run.corpus_node_name(f"keypoints.{view.keypoints}", corpus)
        landmarks = {"keypoints": Read(detected, ("landmarks",))}
        run.add_stage("views", corpus, f"views:cut_{view.recipe}", instance=name, kind=view.recipe,
                  reads={"download": Read(download, ("video", "probe")),
                         "clips": Read(clips, ("crop", "clip")),
                         **(landmarks if view.recipe == "ffhq256" else {})},
                  writes=("frames", "affine", "frame_at"), codec=view.frames.codec,
                  rows={"split": view.splits} if view.splits else {},
                  packages=("pillow", "scipy", "av"), tools=("ffmpeg",))

    # fmt: on


def add_training(run: GraphBuilder, model: str, others: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """One node a phase, each starting from the checkpoint of an earlier one, or of another model's; returns
    phase -> its node. others: model -> phase -> the node of its checkpoint."""
    config, spec, section = run.config, run.config.model_spec(model), getattr(run.config, model)
    resources = {"cpu": config.runtime.train_cpus, "gpu": int(config.runtime.use_gpu)}
    kept = {phase: settings for phase, settings in section.phases.items() if settings is not None}
    trained: dict[str, str] = {}
    starts = collect_phase_weights_sources(config, model)
    for phase, settings in kept.items():
        task, reads = spec.tasks[phase], spec.reads(section, settings)
        check_frame_family(
            model, phase, spec.phase_sample_tables(section, settings).get("clips", {}), settings.frames_from
        )
        check_start(settings, starts)
        add_model_nodes(run, model, reads, section.data, trained)
        released = [spec.released[name] for name in settings.required_weights]
        before = {f"train.{spec.name}.{one}": Read(f"train.{model}.{one}", ("checkpoint",))
                  for one in settings.required_phases}  # fmt: skip
        foreign = settings.other_model_checkpoints
        before |= {role: Read(others[source.model or ""][source.phase or ""], ("checkpoint",))
                   for role, source in foreign.items()}  # fmt: skip
        key_values = {
            text: f"{config.model_of[source.model or '']}.{text.partition('.')[2]}"
            for source in foreign.values() for text in [source.setting_text]
        }  # fmt: skip
        nets = spec.nets(section, settings)
        paths = (*task.settings, *(spec.net_settings if nets else ()), f"phases.{phase}")
        figure_code, figure_nets = best_figure_needs(f"{model}.phases.{phase}", settings, task)
        code = (task.task, *(one.reader for one in released), *figure_code)
        # fmt: off
        run.add_whole(f"train.{model}.{phase}", "train.launch:train_phase",
                  stage=f"train.{spec.name}.{phase}",
                  exclusive=True, stops=True, resources=resources,
                  arguments={"model": spec.name, "phase": phase},
                  check="pipelines.train.checks:check_phase_runtime",
                  reads=run.unit_table_reads(model, settings, section.data)
                  | run.resolve_model_reads(model, reads, section.data) | before,
                  writes=("checkpoint",), logs=("metrics.jsonl", "samples.png", "cross.png"),
                  config={f"{spec.name}.{path}": f"{model}.{path}" for path in paths}
                  | run.stage_config_paths(model, spec.extra_sections(section))
                  | run.preprocessing_net_paths(model),
                  key_values=key_values, resumable_budget=f"{spec.name}.phases.{phase}.steps",
                  code=(*FINGERPRINTED_TRAINING_FUNCTIONS, *code), nets=(*nets, *figure_nets),
                  packages=task.packages,
                  weights=tuple(dict.fromkeys(file for one in released for file in one.files)))
        # fmt: on
        trained[phase] = f"train.{model}.{phase}"
    for corpus in evaluated_corpora(config):
        add_model_nodes(run, model, spec.driving_reads(section), corpus, trained)
    return trained


def collect_phase_weights_sources(config: RunConfig, model: str) -> PhaseSources:
    """All that phases of a model can start from."""

    def own(name: str) -> PhaseSources:
        spec, section = config.model_spec(name), getattr(config, name)
        kept = {phase: settings for phase, settings in section.phases.items() if settings is not None}
        parts = {phase: spec.parts(section, settings) for phase, settings in kept.items()}
        return PhaseSources(name, section.phases, parts, spec.released)

    def checkpoints(name: str) -> Mapping[str, Collection[str]]:
        spec, weights = config.model_spec(name), getattr(config, name).weights
        return (
            dict.fromkeys(spec.phases, spec.released[weights].parts)
            if weights
            else own(name).checkpoint_parts_by_phase
        )

    return replace(own(model), others={name: checkpoints(name) for name in config.models if name != model})


def checkpoint_nodes_by_role(run: GraphBuilder, model: str, phases: Mapping[str, str]) -> dict[str, str]:
    """Role of a checkpoint in inference -> its node. phases: phase -> the node of its checkpoint."""
    spec, section = run.config.model_spec(model), getattr(run.config, model)
    if section.weights:
        return dict.fromkeys(spec.checkpoints, next(iter(phases.values())))
    return {role: phases[phase] for role, phase in spec.phases_by_checkpoint_role(section).items()}


def add_released_weights(run: GraphBuilder, model: str) -> dict[str, str]:
    """One node that makes a checkpoint of released weights, in place of training; returns as `add_training`
    does."""
    spec, section = run.config.model_spec(model), getattr(run.config, model)
    starts, name = spec.released[section.weights], f"release.{model}"
    recordings = run.corpus_node_name(
        "recordings", next(iter(run.needed))
    )  # those of any corpus: they lie in the store
    # fmt: off
    run.add_whole(name, "eval.evaluated_models:publish_released_weights", stage=f"release.{spec.name}",
    resources={},
              arguments={"model": spec.name, "weights": section.weights},
              reads={"recordings": Read(recordings, ("id",))}, writes=("checkpoint",),
              config={"section": model} | run.stage_config_paths(model, spec.recorded_stages),
              code=(f"{starts.reader.partition(':')[0]}:load_released",),
              weights=starts.files, packages=("torch",))
    # fmt: on
    made = dict.fromkeys(spec.phases, name)
    for corpus in evaluated_corpora(run.config):
        add_model_nodes(run, model, spec.driving_reads(section), corpus, made)
    return made


def add_model_nodes(
    run: GraphBuilder, model: str, reads: Iterable[str], corpus: str, checkpoints: Mapping[str, str]
) -> None:
    """The keyed nodes of a model's own that are read of a corpus, and those that they read, unless they are
    there already. checkpoints: phase -> the node that publishes what it has learnt."""
    config, spec, section = run.config, run.config.model_spec(model), getattr(run.config, model)
    wanted = spec.required_families(section, reads)
    for name in spec.unit_tables:
        if name in wanted:
            add_unit_table(run, model, name, corpus, checkpoints)
    for role, node in spec.nodes(section).items():
        name = run.model_node_name(model, role, corpus)
        if role not in wanted or name in run.graph.nodes:
            continue
        uses = {}
        for net, use in node.uses.items():
            if missing := sorted(set(use.phases.values()) - set(checkpoints)):
                raise InvalidSettings(
                    f"{name} uses the checkpoint of {model}.phases.{missing[0]}, which is not trained before "
                    f"it is read; trained by then: {', '.join(checkpoints) or 'none'}"
                )
            files = {key: (checkpoints[phase], MODEL_FILE) for key, phase in use.phases.items()}
            uses[net] = UsedCheckpoints(use.loader, files)
        found = run.resolve_model_reads(model, node.reads, corpus)
        by = {family: "" if spec.family_unit_table_name(section, family) == node.units else "recordings"
              for family in found}  # fmt: skip
        # fmt: off
        run.add_keyed(name, node.run, stage=f"{role}.{spec.name}",
                      units=run.model_node_name(model, node.units, corpus),
                      reads={family: replace(read, by=by[family]) for family, read in found.items()},
                      writes=node.writes, uses=uses, pack=node.pack,
                      rows={"split": node.splits} if node.splits else {},
                      config={f"{spec.name}.{path}": f"{model}.{path}" for path in node.settings},
                      section=spec.name if node.settings else "", nets=node.nets, packages=node.packages,
                      cpu=config.runtime.eval_cpus, gpu=int(config.runtime.use_gpu))
        # fmt: on


def add_unit_table(
    run: GraphBuilder, model: str, name: str, corpus: str, checkpoints: Mapping[str, str]
) -> None:
    """A model's table of units other than recordings, unless it is there already."""
    spec = run.config.model_spec(model)
    table, node = spec.unit_tables[name], run.model_node_name(model, name, corpus)
    if node in run.graph.nodes:
        return
    settings = {
        f"units.{setting}": f"{model}.{path}" for setting, path in unit_table_setting_paths(table).items()
    }
    # fmt: off
    if isinstance(table, SeedTable):
        run.add_whole(node, "dataset.seed_blocks:list_seed_blocks", stage=seed_blocks.SEEDS_STAGE, table=True,
                  run_at_plan_time=True, resources={}, writes=seed_blocks.SEED_BLOCK_COLUMNS, config=settings,
                  section="units")
    else:
        add_model_nodes(run, model, table.families, corpus, checkpoints)
        families = run.resolve_model_reads(model, dict.fromkeys(("clips", *table.families), ()), corpus)
        recordings = Read(run.splits_node(corpus), ("id", "split", "identity"))
        run.add_whole(node, "dataset.clip_pairs:list_clip_pairs", stage=clip_pairs.CLIP_PAIRS_STAGE,
                  table=True, resources={}, reads={"recordings": recordings, **families},
                  writes=clip_pairs.CLIP_PAIR_COLUMNS,
                  config=settings, section="units")
    # fmt: on


def check_unit_tables(spec: ModelSpec, model: str, section: ModelConfig) -> None:
    """Raises InvalidSettings where the settings of a table of units make none."""
    spec.check_node_units(section)
    for name, table in spec.unit_tables.items():
        for setting, path in unit_table_setting_paths(table).items():
            least, value = (0 if setting == "seed" else 1), lookup_setting(section, path)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidSettings(
                    f"{model}.{path} {value!r}: expected a whole number from {least} on, the {setting} of "
                    f"table {name} of {spec.name}"
                )


def check_model_config(spec: ModelSpec, model: str, config: RunConfig) -> None:
    """Raises InvalidSettings where the run's data do not fit the settings of one of its models."""
    section = getattr(config, model)
    if section.weights and section.weights not in spec.released:
        raise InvalidSettings(
            f"{model}.weights {section.weights!r}: no released weights of {spec.name}; known: "
            f"{', '.join(spec.released)}"
        )
    spec.check_driving_reads_trained(section)
    if reserved := sorted(
        {*spec.nodes(section), *spec.unit_tables} & {*RESERVED_NODE_NAMES, *STAGE_INSTANCE_SECTIONS}
    ):
        raise InvalidSettings(f"the spec of {spec.name} names a node {reserved[0]}, as a stage is; rename it")
    check_unit_tables(spec, model, section)
    for name, protocol in config.eval.active_protocols.items():
        if spec.max_sources is not None and protocol.sources > spec.max_sources:
            most = "one source" if spec.max_sources == 1 else f"at most {spec.max_sources} sources"
            raise InvalidSettings(
                f"eval.protocols.{name}.sources {protocol.sources}: {model} is driven from {most}; "
                f"expected {spec.max_sources}"
            )
    stages = {
        stage: getattr(config, name)
        for stage, name in STAGE_INSTANCE_SECTIONS.items()
        if hasattr(section, name)
    }
    spec.check(
        section,
        {stage: maps[getattr(section, STAGE_INSTANCE_SECTIONS[stage])] for stage, maps in stages.items()},
    )


def check_frame_family(model: str, phase: str, reads: FamilyFields, frames_from: str) -> None:
    """A phase is given the frames of the family that it names, and no others. reads: of the table of
    clips."""
    read_of = [family for family, fields in reads.items() if "frames" in fields]
    if frames_from not in read_of and (read_of or frames_from != "clips"):
        found = f"reads frames of {', '.join(read_of)}" if read_of else "reads no frames"
        raise UserError(
            f"{model}.phases.{phase}.frames_from is {frames_from}, but the phase {found}; let the spec of "
            f"{model} read them of {frames_from}, or set frames_from to {read_of[0] if read_of else 'clips'}"
        )


def data_source_settings(settings: DataConfig, corpus: str) -> dict[str, str]:
    """Only the settings of the source in use count: those of the others may change freely."""
    general = ("source", "test_fraction", "clips_per_shard", "limit")
    return {f"data.{name}": f"data.{corpus}.{name}" for name in (*general, settings.source)}


def download_key_settings(config: RunConfig) -> tuple[str, ...]:
    """The margin of sections does not count where there are none."""
    names = config.download.__struct_fields__
    return tuple(f"download.{name}" for name in names
                 if name != "section_margin" or config.download.sections == "exact")  # fmt: skip
