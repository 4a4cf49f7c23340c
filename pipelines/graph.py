"""THE DAG, readable top to bottom. A node says what it runs, reads, writes, and which settings its key holds.

  recordings ─ download ─ clips ─┬─ keypoints ─ fit3dmm ─┐
                                 ├─ speech ──────────────┼─ train.<model>.<phase> ... ┬─ eval.<model> ─ report
                                 │                       ├─ test_clips ───────────────┘
                                 └─ views.<recipe> ──────┴─ corpus (a page about the data)

Code is named as text: building the graph imports no stage, no model, no torch and no ray. To add a stage: a
file in pipelines/preprocess and one `keyed(...)` here. A model appears through its folder's spec.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from models.errors import InvalidSettings
from models.perception import NETS
from models.phase_checks import check as check_start
from models.spec import ModelSpec, load_spec
from pipelines.engine.node import Graph, Node, Read
from pipelines.errors import UserError
from pipelines.eval.score import NETS_OF_LANDMARKS
from pipelines.preprocess.sources import SOURCE_NETS, SOURCES
from storage import shards

RECORDING = ("identity", "tracks")
SOURCE = ("source", "uri", "sha256", "seed", "spec")
TRAINING = tuple(
    f"pipelines.train.{entry}"
    for entry in (
        "corpora:split_clips",
        "job:job_of",
        "initial_weights:bring_weights",
        "loop:begin",
        "loop:steps",
        "loop:look",
        "state:publish_weights",
    )
)
"""What a phase computes, beside what runs and reports it."""


def build(config: Any) -> Graph:
    """The graph of a run: every preprocessing node, then the phases and the evaluation of each model."""
    graph = Graph()
    keyed, whole = partial(_keyed, graph, config), partial(_whole, graph, config)
    data(keyed, whole, config)
    choose(whole, config)
    for model in config.models:
        check_model(load_spec(model), config)
        last = train(whole, model, config)
        evaluate(whole, model, config, last)
    # fmt: off
    whole("report", "eval.report:report", resources={},
          reads={f"eval.{model}": ("scores",) for model in config.models},
          writes=("page",),
          config=("report",), inputs="pipelines.eval.report:external")
    # fmt: on
    return graph


def data(keyed: Any, whole: Any, config: Any) -> None:
    """What every model shares: recordings, clips, and the families aligned with them."""
    # fmt: off
    whole("recordings", "preprocess.recordings:list_recordings", run_at_plan_time=True, table=True,
          resources={}, writes=("id", "split", "span", *RECORDING, *SOURCE),
          config=data_settings(config), section="data", code=(SOURCES[config.data.source],),
          inputs="pipelines.preprocess.recordings:external")

    # What only brings files must not depend on the renderer. Nor on a version of yt-dlp, ffmpeg or av: a
    # corpus is not fetched again for them, and a video that was brought once stays what it was.
    rendered, cut = config.data.source == "synthetic", config.download.sections == "exact"
    encodes = rendered or cut or config.data.source == "celebv"
    keyed("download", "download:download" if rendered else "download:fetch", pack="unit",
          reads={"recordings": (*SOURCE, "span") if cut else SOURCE},
          writes=("video", "probe", "truth"),
          config={"sound": "data.sound"} | same(*download_settings(config)), section="",
          nets=SOURCE_NETS.get(config.data.source, ()),
          cpu=1 if rendered else 0.25,  # bringing is waiting: runtime.pools may ask for more than the cores
          packages=("av", *(("scipy",) if rendered else ())) if encodes else (),
          tools=("ffmpeg",) if encodes else ())

    keyed("clips", "clips:cut_clips",
          reads={"recordings": (*RECORDING, "span"), "download": ("video", "probe")},
          writes=("frames", "sound", "boxes", "crop", "clip"),
          config=("clips",), nets=config.clips.nets, packages=("av", "pillow"), tools=("ffmpeg",))

    keyed("keypoints", "keypoints:find_keypoints",
          reads={"clips": config.keypoints.reads},
          writes=config.keypoints.writes,
          config=("keypoints",), nets=config.keypoints.nets, packages=("scipy",))

    keyed("fit3dmm", "fit3dmm:fit_clips",
          reads=config.fit3dmm.reads,
          writes=config.fit3dmm.writes,
          config=("fit3dmm",), nets=config.fit3dmm.nets)

    spoken = (config.speech.net,) if config.speech.net else ()
    keyed("speech", "speech:encode_speech",
          reads={"clips": ("sound", "clip")},
          writes=("speech",),
          config=("speech",), nets=spoken, packages=() if spoken else ("scipy",),
          inputs="pipelines.preprocess.transcripts:external")

    whole("corpus", "corpus.node:corpus",
          reads={"recordings": ("id", "split"), "download": ("probe",), "clips": ("frames", "clip", "crop"),
                 "keypoints": ("landmarks",), "fit3dmm": ("angles", "fit_error", "exp_coeffs"),
                 "speech": ("speech",)},
          writes=("page",))

    for name in views_of(config):
        landmarks = {"keypoints": ("landmarks",)} if name == "ffhq256" else {}
        keyed(f"views.{name}", f"views:cut_{name}",
              reads={"download": ("video", "probe"), "clips": ("crop", "clip"), **landmarks},
              writes=("frames", "affine", "frame_at"),
              config=(f"views.{name}",), codec=getattr(config.views, name).frames.codec,
              packages=("pillow", "scipy", "av"), tools=("ffmpeg",))
    # fmt: on


def train(whole: Any, model: str, config: Any) -> str:
    """One node a phase, each starting from the checkpoint of an earlier one; returns the last one's name."""
    spec, section = load_spec(model), getattr(config, model)
    resources = {"cpu": config.runtime.train_cpus, "gpu": int(config.runtime.use_gpu)}
    kept = {phase: settings for phase, settings in section.phases.items() if settings is not None}
    parts = {phase: spec.parts(section, settings) for phase, settings in kept.items()}
    for phase, settings in kept.items():
        before, task = settings.start_from, spec.tasks[phase]
        reads = spec.reads(section, settings)
        check_frames(model, reads)
        check_start(model, settings, section.phases, parts, spec.released)
        starts = spec.released.get(settings.released)
        from_phase = {f"train.{model}.{before}": ("checkpoint",)} if before and not starts else {}
        nets = spec.nets(section, settings)
        paths = (*task.settings, *(spec.net_settings if nets else ()), f"phases.{phase}")
        code = (task.task, *([starts.reader] if starts else []))
        # fmt: off
        whole(f"train.{model}.{phase}", "train.launch:train_phase", exclusive=True, stops=True,
              resources=resources, arguments={"model": model, "phase": phase},
              check="pipelines.train.checks:check_phase",
              reads={"recordings": ("id", "split", "identity"), **reads, **from_phase},
              writes=("checkpoint",), logs=("metrics.jsonl", "samples.png"),
              config=[*(f"{model}.{part}" for part in paths), *spec.extra_sections(section)],
              resumable_budget=f"{model}.phases.{phase}.steps",
              code=(*TRAINING, *code), nets=nets, weights=starts.files if starts else (), packages=("torch",))
        # fmt: on
    return f"train.{model}.{spec.phases_of_checkpoints(section)['renderer']}"


def check_model(spec: ModelSpec, config: Any) -> None:
    """Raises InvalidSettings where the run's data do not fit the settings of one of its models."""
    section = getattr(config, spec.name)
    spec.check_reads(section)
    if spec.max_sources is not None and config.eval.sources > spec.max_sources:
        most = "one source" if spec.max_sources == 1 else f"at most {spec.max_sources} sources"
        raise InvalidSettings(
            f"eval.sources {config.eval.sources}: {spec.name} is driven from {most}; "
            f"expected {spec.max_sources}"
        )
    spec.check(section, {"fit3dmm": config.fit3dmm, "speech": config.speech})


def check_frames(model: str, reads: Mapping[str, Sequence[str]]) -> None:
    """Training and evaluation take the frames of `clips`: those of a view would silently be others."""
    if others := sorted(node for node, fields in reads.items() if "frames" in fields and node != "clips"):
        raise UserError(
            f"{model} reads frames of {', '.join(others)}, but models are given the frames of clips alone; "
            f"let the spec of {model} read them of clips"
        )


def choose(whole: Any, config: Any) -> None:
    """The clips that are scored: those with which every model of the run can be driven."""
    driven = [load_spec(model).driving_reads(getattr(config, model)) for model in config.models]
    families = {node: fields for reads in driven for node, fields in reads.items()}
    # fmt: off
    whole("test_clips", "eval.clip_list:choose_clips", resources={},
          reads={"recordings": ("id", "split"), **families}, writes=("list",),
          config=("eval.max_clips", "eval.sources"))
    # fmt: on


def evaluate(whole: Any, model: str, config: Any, last: str) -> None:
    """Every metric on held-out clips, beside the baselines; the pictures of the report."""
    spec, section = load_spec(model), getattr(config, model)
    nets = (*NETS_OF_LANDMARKS, *spec.inference_nets(section))
    # fmt: off
    whole(f"eval.{model}", "eval.evaluate:evaluate", exclusive=True, arguments={"model": model},
          resources={"cpu": config.runtime.eval_cpus, "gpu": int(config.runtime.use_gpu)},
          reads={"test_clips": ("list",), **spec.driving_reads(section), last: ("checkpoint",)},
          writes=("scores",),
          config=("eval",), code=(spec.inference,), nets=nets, missing_weights="skip",
          packages=("torch", "scipy", "av"))  # the net; SSIM; the baseline that goes through a codec
    # fmt: on


def data_settings(config: Any) -> tuple[str, ...]:
    """Only the settings of the source in use count: those of the others may change freely."""
    general = ("source", "test_fraction", "clips_per_shard", "limit")
    return tuple(f"data.{name}" for name in (*general, config.data.source))


def download_settings(config: Any) -> tuple[str, ...]:
    """The margin of sections does not count where there are none."""
    names = (f.name for f in dataclasses.fields(config.download))
    return tuple(f"download.{name}" for name in names
                 if name != "section_margin" or config.download.sections == "exact")  # fmt: skip


def views_of(config: Any) -> list[str]:
    """The views that the run's models read, and those it asks for besides."""
    read = {
        name
        for model in config.models
        for phase in load_spec(model).phases.values()
        for name in load_spec(model).reads(getattr(config, model), phase)
    }
    asked = {name.removeprefix("views.") for name in read if name.startswith("views.")}
    return sorted(asked.union(config.views.also))


def _keyed(
    graph: Graph,
    run_config: Any,
    name: str,
    run: str,
    writes: Sequence[str],
    nets: Sequence[str] = (),
    cpu: float = 1,
    codec: Any = None,
    section: str | None = None,
    **more: Any,
) -> None:
    """cpu: of each worker. codec: of the frames it writes, if not that of the clips. section: of the
    settings, if not the one named as the node is."""
    gpu = run_config.runtime.gpu_share if any(NETS[net].gpu for net in nets) else 0
    written = shards.packages(writes, codec or run_config.clips.frames.codec)
    more = _with_what_it_uses(run_config, nets, more, shards.encoders(writes), written)
    graph.add(Node(name=name, kind="keyed", run=f"pipelines.preprocess.{run}", writes=writes, nets=nets,
                   units="recordings", section=name if section is None else section,
                   resources={"cpu": cpu, "gpu": gpu}, **more))  # fmt: skip


def _whole(graph: Graph, run_config: Any, name: str, run: str, nets: Sequence[str] = (), **more: Any) -> None:
    more = _with_what_it_uses(run_config, nets, more)
    graph.add(Node(name=name, kind="whole", run=f"pipelines.{run}", **more))


def _with_what_it_uses(
    run_config: Any,
    nets: Sequence[str],
    more: Mapping[str, Any],
    code: Sequence[str] = (),
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """A node's key also holds the loaders, weights and packages of its nets, and what decodes the fields it
    reads."""
    used = [NETS[net] for net in nets]
    read = [field for fields in more.get("reads", {}).values() for field in fields]
    decoding = shards.packages(read, run_config.clips.frames.codec)
    code = (*more.get("code", ()), *code, *(net.loader for net in used), *shards.decoders(read))
    weights = (*more.get("weights", ()), *(w for net in used for w in net.weights))
    packages = (*more.get("packages", ()), *packages, *decoding, *(p for net in used for p in net.packages))
    reads = {node: Read(node, tuple(fields)) for node, fields in more.get("reads", {}).items()}
    config = more.get("config", {})
    settings = config if isinstance(config, Mapping) else same(*config)
    used_by_key = {"code": _once(code), "weights": _once(weights), "packages": _once(packages)}
    return {**more, "reads": reads, "config": settings, **used_by_key}


def same(*paths: str) -> dict[str, str]:
    """Settings that a node reads under the paths that they have in the run."""
    return {path: path for path in paths}


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
