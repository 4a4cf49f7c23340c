"""The nodes of evaluation, for pipelines/graph.py:

  pairs.P ─┬─ generate.METHOD.P ─┬─ features.METHOD.P.FEATURE ─┐
           │                     ├─ score.METHOD.P ────────────┼─ report
           └─ generate.truth.P ──┼─ features.truth.P.FEATURE   │
                                 └─ samples.METHOD.P ──────────┘

P is a protocol of the run. Methods are its models and the baselines; the truth has frames and features, and
is scored against nobody. Of a protocol without one the driving frames, the source and the frames of its clip
stand in that place (`Metric.cross_reference`). Samples are frames that the report shows of a model, or of a
method of other code. Only the features that a metric of the run reads are there. The clips' frames come as
they are stored, or from a view that is the test clips without loss, where `frames_from` says so
(scored_frames.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from models.errors import InvalidSettings
from models.spec import FamilyFields
from pipelines.engine.node import Read, UsedCheckpoints
from pipelines.errors import UserError
from pipelines.eval import input_roles as roles
from pipelines.eval.features import (
    FRAMES_FEATURE,
)
from pipelines.eval.methods import (
    BASELINE_METHODS,
    CODEC_METHOD,
    COPY_METHOD,
    DRIVING_METHOD,
    LANDMARK_METHOD_FUNCTIONS,
    MEAN_MOUTH_METHOD,
    METHOD_FUNCTIONS,
    RANDOM_MOUTH_METHOD,
    SOURCE_CLIP_METHOD,
    TRUTH_METHOD,
    WARP_METHOD,
)
from pipelines.eval.metric_nodes import MetricNodes
from pipelines.eval.pair_clips import (
    DRIVING_ROLE_PREFIX,
    SOUND_FAMILIES,
    SOUND_ROLE_PREFIX,
    SOURCE_ROLE_PREFIX,
)
from pipelines.eval.pairs import PAIR_COLUMNS
from pipelines.eval.protocol_nodes import (
    GENERATED_CODEC,
    PAIR_RECORDING_COLUMNS,
    SCORED_FRAMES_ROLE,
    EvaluatedModelSpec,
    ProtocolNodes,
)
from pipelines.eval.scored_frames import CLIPS_FAMILY, VIEW_FAMILY_PREFIX
from pipelines.runs.graph_builder import (
    GraphBuilder,
    find_shared_keypoints,
    protocol_models,
    training_loss_nets,
)
from storage.checkpoints import CHECKPOINT_FILES

NO_BEST_WEIGHTS = "no validation of it chose best weights; set eval.checkpoint to last"


def add_evaluation_nodes(run: GraphBuilder, checkpoints: Mapping[str, Mapping[str, str]]) -> None:
    """Every node of evaluation, after those of training. checkpoints: model -> role of a checkpoint -> the
    node that publishes it."""
    config, models = run.config, []
    for name in config.models:
        spec, section = config.model_spec(name), getattr(config, name)
        models.append(EvaluatedModelSpec(
            name=name, spec=spec, reads=spec.driving_reads(section), nets=spec.inference_nets(section),
            loss_nets=training_loss_nets(config, name),
            kind="released" if section.weights else "trained", checkpoints=checkpoints[name],
            driven_by=spec.driven_by(section),
        ))  # fmt: skip
    if twice := sorted(set(config.models) & set(config.eval.methods)):
        raise UserError(f"eval.methods.{twice[0]} has the name of a model of the run; choose another")
    inputs: dict[str, Read] = {}
    for name, protocol in config.eval.active_protocols.items():
        scored = [model for model in models if model.name in protocol_models(config, protocol)]
        if protocol.kind == "audio_driven":
            _check_models_read_speech(name, scored)
        inputs |= _EvaluationNodes(run, name, scored, protocol).add()
    # fmt: off
    run.add_whole("report", "eval.report:make_report", resources={}, reads=inputs, writes=("page",),
              config=("report",), inputs="pipelines.eval.paper_results:digest_external_files",
              packages=("av", "pillow"))  # of its videos and pictures
    # fmt: on


def _check_models_read_speech(protocol: str, models: Sequence[EvaluatedModelSpec]) -> None:
    """Raises UserError for a model that is not driven with speech."""
    if deaf := [model.name for model in models if not SOUND_FAMILIES & set(model.reads)]:
        hearing = ", ".join(model.name for model in models if model.name not in deaf)
        raise UserError(
            f"eval.protocols.{protocol} is audio_driven, and {', '.join(deaf)} hears nothing; "
            f"--set eval.protocols.{protocol}.models=[{hearing}]"
        )


class _EvaluationNodes(ProtocolNodes, frozen=True):
    """Pairs, frames and samples of one protocol, and its metrics."""

    def add(self) -> dict[str, Read]:
        """-> what the report reads of them."""
        self._pairs()
        metrics = MetricNodes(self.run, self.name, self.models, self.protocol)
        baselines = self._baselines
        for method in dict.fromkeys((self.driving_method, *baselines, *metrics.reference_methods)):
            self._baseline(method)
        for model in self.models:
            self._model(model)
        external = [name for name, method in self.run.config.eval.methods.items()
                    if not method.protocols or self.name in method.protocols]  # fmt: skip
        for method in external:
            self._external(method)
        rendering = [*(model.name for model in self.models), *external]
        found = {roles.report_pairs_input_role(self.name): Read(self.at("pairs"), ("id",))}
        for method in rendering:
            self._samples(method)
            found[roles.report_samples_input_role(self.name, method)] = Read(
                self.at("samples", method), ("samples",)
            )
        for method in metrics.add([*rendering, *baselines]):
            found[roles.score_input_role(self.name, method)] = Read(self.at("score", method), ("values",))
        return found

    @property
    def _baselines(self) -> list[str]:
        """Those that the protocol can have: there must be landmarks to warp by, or to find mouths by."""
        by_sound, warped = self.protocol.kind == "audio_driven", ("self_reenactment", "cross_reenactment")
        wanted = {
            COPY_METHOD: True,
            WARP_METHOD: bool(self._keypoints) and self.protocol.kind in warped,
            MEAN_MOUTH_METHOD: bool(self._keypoints) and by_sound,
            RANDOM_MOUTH_METHOD: bool(self._keypoints) and by_sound,
            CODEC_METHOD: self.has_truth,
        }
        return [method for method in BASELINE_METHODS if wanted[method]]

    @property
    def _keypoints(self) -> str:
        """The instance whose landmarks baselines take; "" = none."""
        return find_shared_keypoints(self.run, self.sides.values())

    def _pairs(self) -> None:
        reads: dict[str, Read] = {}
        sides = dict(self.sides)
        if self.sound_corpus not in ("", *sides.values()):
            sides[SOUND_ROLE_PREFIX] = self.sound_corpus
        for side, corpus in sides.items():
            reads[f"{side}recordings"] = Read(self.run.splits_node(corpus), ("id", "split"))
            families: dict[str, Read] = {}
            for model in self.models:
                own = self._frames_or_sound(
                    model.reads, sound=side == SOUND_ROLE_PREFIX, split=len(sides) > 1
                )
                for role, read in self.run.resolve_model_reads(model.name, own, corpus).items():
                    others = [one for one in families if one.partition("#")[0] == role]
                    if read.node not in {families[one].node for one in others}:
                        families[f"{role}#{len(others) + 1}" if others else role] = read
            about = ("clip",) if self.protocol.kind == "audio_driven" else ()  # which of them have a sound
            families["clips"] = Read(self.run.corpus_node_name("clips", corpus), (FRAMES_FEATURE, *about))
            if self.view and side != SOUND_ROLE_PREFIX:
                families[SCORED_FRAMES_ROLE] = self._view_read(corpus)
            reads |= {f"{side}{role}": read for role, read in families.items()}
        # fmt: off
        self.run.add_whole(self.at("pairs"), "eval.pairs:make_pairs", stage="pairs", table=True,
                       resources={},
                       reads=reads, writes=(*PAIR_COLUMNS, "recordings", "sound_recording"),
                       config={"protocol": f"eval.protocols.{self.name}",
                               "frames": f"views.{self.view}.frames" if self.view else "clips.frames"},
                       inputs="pipelines.eval.pairs:digest_external_files")
        # fmt: on

    def _frames_or_sound(self, reads: FamilyFields, sound: bool, split: bool = True) -> FamilyFields:
        """What a model reads of clips that are seen, or of those that are heard alone. split: whether clips
        are only one of both."""
        if not (self.sound_corpus and split):
            return reads
        return {role: fields for role, fields in reads.items() if (role in SOUND_FAMILIES) == sound}

    def _view_read(self, corpus: str) -> Read:
        return Read(self.run.corpus_node_name(VIEW_FAMILY_PREFIX + self.view, corpus), (FRAMES_FEATURE,))

    def _clip_reads(self, side: str, reads: Mapping[str, Read]) -> dict[str, Read]:
        """reads: role -> what is read of the clips of one side; the frames of the clips are those of the view
        where the protocol takes them there, all else of them stays."""
        wanted = dict(reads)
        if self.view and (clips := reads.get(CLIPS_FAMILY)) and FRAMES_FEATURE in clips.fields:
            rest = tuple(field for field in clips.fields if field != FRAMES_FEATURE)
            wanted[CLIPS_FAMILY] = replace(clips, fields=rest)
            if not rest:
                del wanted[CLIPS_FAMILY]
            wanted[SCORED_FRAMES_ROLE] = self._view_read(self.sides[side])
        return {
            f"{side}{role}": replace(read, by=PAIR_RECORDING_COLUMNS[side]) for role, read in wanted.items()
        }

    def _generate(
        self,
        method: str,
        function: str,
        reads: Mapping[str, Read],
        settings: Mapping[str, str],
        **more: Any,
    ) -> None:
        """reads: role -> the fields of the clips that a pair names."""
        # fmt: off
        self.run.add_keyed(self.at("generate", method), f"pipelines.eval.{function}",
                           units=self.at("pairs"), config=settings, codec=GENERATED_CODEC,
                           drops=not self.run.config.runtime.keep_frames,
                           reads_codec=self.run.config.views[self.view].frames.codec if self.view else None,
                           reads={"pairs": Read(self.at("pairs"), PAIR_COLUMNS), **reads}, **more)
        # fmt: on

    def _settings(self, *names: str) -> dict[str, str]:
        """Of the protocol."""
        return {name: f"eval.protocols.{self.name}.{name}" for name in names}

    def _external(self, method: str) -> None:
        """Frames that lie in a folder: no clip is read."""
        settings = {"method": f"eval.methods.{method}", **self._settings("size")}
        # fmt: off
        self._generate(method, "external_frames:read_external_frames", {}, settings,
                       stage="generate.external", writes=(FRAMES_FEATURE, "method"),
                       inputs="pipelines.eval.external_frames:digest_external_files",
                       packages=("av", "pillow"), tools=("ffmpeg",), light=True)
        # fmt: on

    def _baseline(self, method: str) -> None:
        """It reads the clips of one side alone, where each has a corpus of its own."""
        if method in LANDMARK_METHOD_FUNCTIONS:
            self._landmark_baseline(method)
            return
        packages = ("av",) if method in BASELINE_METHODS else ()
        shows_source = method in (COPY_METHOD, SOURCE_CLIP_METHOD)
        other = DRIVING_ROLE_PREFIX if shows_source else SOURCE_ROLE_PREFIX
        settings = ("size", "frame_stride", "max_frames") if method == SOURCE_CLIP_METHOD else ("size",)
        clips: dict[str, Read] = {}
        for side, corpus in self.sides.items():
            if side != other:
                own = Read(self.run.corpus_node_name("clips", corpus), (FRAMES_FEATURE,))
                clips |= self._clip_reads(side, {CLIPS_FAMILY: own})
        # fmt: off
        self._generate(method, f"generate:{METHOD_FUNCTIONS[method]}", clips, self._settings(*settings),
                       stage=f"generate.{METHOD_FUNCTIONS[method]}", writes=(FRAMES_FEATURE,),
                       packages=packages,
                       light=True)
        # fmt: on

    def _landmark_baseline(self, method: str) -> None:
        """The warp reads frames of the source's side and landmarks of both; mouths are of driving frames."""
        warps, reads = method == WARP_METHOD, dict[str, Read]()
        for side, corpus in self.sides.items():
            own: dict[str, Read] = {}
            if side != (DRIVING_ROLE_PREFIX if warps else SOURCE_ROLE_PREFIX):
                own[CLIPS_FAMILY] = Read(self.run.corpus_node_name("clips", corpus), (FRAMES_FEATURE,))
            if warps or side != SOURCE_ROLE_PREFIX:
                node = self.run.corpus_node_name(f"keypoints.{self._keypoints}", corpus)
                own["keypoints"] = Read(node, ("landmarks",))
            reads |= self._clip_reads(side, own)
        more = {WARP_METHOD: ("motion",), RANDOM_MOUTH_METHOD: ("seed",)}.get(method, ())
        function = LANDMARK_METHOD_FUNCTIONS[method]
        # fmt: off
        self._generate(method, f"landmark_baselines:{function}", reads, self._settings("size", *more),
                       stage=f"generate.{function}", writes=(FRAMES_FEATURE, "method"),
                       packages=("scipy",) * warps, light=True)
        # fmt: on

    def _model(self, model: EvaluatedModelSpec) -> None:
        config = self.run.config
        files = {role: (node, self._checkpoint_file(model, node)) for role, node in model.checkpoints.items()}
        load = "pipelines.eval.evaluated_models:load_evaluated_model"
        use = UsedCheckpoints(load, files, NO_BEST_WEIGHTS)
        reads: dict[str, Read] = {}
        for side, corpus in self.sides.items():
            seen = self._frames_or_sound(model.reads, sound=False)
            reads |= self._clip_reads(side, self.run.resolve_model_reads(model.name, seen, corpus))
        if self.sound_corpus:
            sounding = {**self._frames_or_sound(model.reads, sound=True), CLIPS_FAMILY: ("clip",)}
            own = self.run.resolve_model_reads(model.name, sounding, self.sound_corpus)
            by = PAIR_RECORDING_COLUMNS[SOUND_ROLE_PREFIX]
            reads |= {f"{SOUND_ROLE_PREFIX}{role}": replace(read, by=by) for role, read in own.items()}
        settings = self._settings("size", "motion", "kind", "sweep")
        # fmt: off
        self._generate(model.name, "generate:generate_frames", reads, settings,
                       stage=f"generate.{model.spec.name}",
                       writes=(FRAMES_FEATURE, "visualization", "method"), uses={"model": use},
                       code=(model.spec.inference,), nets=model.nets, packages=("torch", "scipy"),
                       cpu=config.runtime.eval_cpus, gpu=int(config.runtime.use_gpu))
        # fmt: on

    def _checkpoint_file(self, model: EvaluatedModelSpec, node: str) -> str:
        """The file of a phase that is evaluated; released weights are the only ones. InvalidSettings where
        the best weights are asked for of a phase whose settings keep none."""
        config = self.run.config
        if model.kind == "released" or config.eval.checkpoint == "last":
            return CHECKPOINT_FILES["last"]
        name = node.rpartition(".")[2]
        phase, where = getattr(config, model.name).phases[name], f"{model.name}.phases.{name}"
        if phase.best is None:
            problem = f"{where}.best is null"
        elif phase.validate_every > phase.steps:
            problem = f"{where} validates every {phase.validate_every} of its {phase.steps} steps"
        else:
            return CHECKPOINT_FILES["best"]
        raise InvalidSettings(
            f"eval.checkpoint best: {problem}, so that there are no best weights; set eval.checkpoint to last"
        )

    def _samples(self, method: str) -> None:
        driving = TRUTH_METHOD if self.has_truth else DRIVING_METHOD
        sources = {"generated": method, "source": COPY_METHOD, "driving": driving}
        # fmt: off
        self.run.add_whole(self.at("samples", method), "eval.sample_frames:publish_sample_frames",
                       stage=f"samples.{self.stage_of(method)}", resources={}, reads_codec=GENERATED_CODEC,
                       reads={role: Read(self.at("generate", one), (FRAMES_FEATURE,))
                              for role, one in sources.items()},
                       writes=("samples",),
                       config={name: f"report.{name}" for name in ("grid_pairs", "videos")})
        # fmt: on
