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

from msgspec import Struct
from msgspec.structs import replace

from models.errors import InvalidSettings
from models.spec import FamilyFields, ModelSpec
from pipelines.engine.node import Read, UsedCheckpoints
from pipelines.errors import UserError
from pipelines.eval import input_roles as roles
from pipelines.eval.features import (
    FEATURE_STAGES,
    FRAMES_FEATURE,
    METRIC_FEATURES,
    with_input_features,
)
from pipelines.eval.methods import (
    BASELINE_METHODS,
    COPY_METHOD,
    DRIVING_METHOD,
    METHOD_FUNCTIONS,
    SOURCE_CLIP_METHOD,
    TRUTH_METHOD,
    MethodKind,
    Reference,
    reference_method,
)
from pipelines.eval.metrics import METRICS, Metric
from pipelines.eval.pair_clips import (
    DRIVING_ROLE_PREFIX,
    SOUND_FAMILIES,
    SOUND_ROLE_PREFIX,
    SOURCE_ROLE_PREFIX,
)
from pipelines.eval.pairs import PAIR_COLUMNS
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.eval.scored_frames import CLIPS_FAMILY, VIEW_FAMILY_PREFIX
from pipelines.runs.graph_builder import (
    GraphBuilder,
    protocol_corpora,
    protocol_models,
    training_loss_nets,
)
from storage.checkpoints import CHECKPOINT_FILES

PAIR_RECORDING_COLUMNS = {
    "": "recordings",
    SOURCE_ROLE_PREFIX: "source_recording",
    DRIVING_ROLE_PREFIX: "driving_recording",
    SOUND_ROLE_PREFIX: "sound_recording",
}
"""Side -> the column of the table of pairs that names the recordings of its clips."""
SCORED_FRAMES_ROLE = "scored_frames"
"""Role of the view whose frames stand for those of the clips."""
NO_BEST_WEIGHTS = "no validation of it chose best weights; set eval.checkpoint to last"
GENERATED_CODEC = "png"
"""Codec of generated frames: without loss."""


class EvaluatedModelSpec(Struct, frozen=True, kw_only=True):
    """A model of the run, as evaluation needs it."""

    name: str
    spec: ModelSpec
    reads: FamilyFields
    """Family -> the fields that it reads of source and driving clips."""
    nets: tuple[str, ...]
    loss_nets: tuple[str, ...]
    """Those that the losses of its training use; of released weights nobody says."""
    kind: MethodKind
    checkpoints: Mapping[str, str]
    """Role, as inference knows it -> the node that publishes it."""


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
        ))  # fmt: skip
    if twice := sorted(set(config.models) & set(config.eval.methods)):
        raise UserError(f"eval.methods.{twice[0]} has the name of a model of the run; choose another")
    inputs: dict[str, Read] = {}
    for name, protocol in config.eval.active_protocols.items():
        scored = [model for model in models if model.name in protocol_models(config, protocol)]
        if protocol.kind == "audio_driven":
            _check_models_read_speech(name, scored)
        inputs |= _ProtocolNodes(run, name, scored, protocol).add()
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


class _ProtocolNodes(Struct, frozen=True):
    """The nodes of one protocol."""

    run: GraphBuilder
    name: str
    models: list[EvaluatedModelSpec]
    protocol: EvaluationProtocol

    @property
    def has_truth(self) -> bool:
        return self.protocol.has_truth

    @property
    def sides(self) -> dict[str, str]:
        """What stands in front of the roles of families of clips that are seen -> their corpus: nothing,
        where sources and drivings are of one."""
        source, driving = protocol_corpora(self.run.config, self.protocol)
        if source == driving or self.protocol.has_other_sound:
            return {"": source}
        return {SOURCE_ROLE_PREFIX: source, DRIVING_ROLE_PREFIX: driving}

    @property
    def sound_corpus(self) -> str:
        """The corpus of the clips that are heard and not seen; "" = there are none."""
        _, driving = protocol_corpora(self.run.config, self.protocol)
        return driving if self.protocol.has_other_sound else ""

    @property
    def view(self) -> str:
        """Whose frames stand for those of the clips; "" = none."""
        return self.run.config.eval.scored_view(self.protocol)

    def add(self) -> dict[str, Read]:
        """-> what the report reads of them."""
        self._pairs()
        baselines = BASELINE_METHODS if self.has_truth else (COPY_METHOD,)
        for method in dict.fromkeys((self._driving_method, *baselines, *self._reference_methods)):
            self._baseline(method)
        for model in self.models:
            self._model(model)
        external = [name for name, method in self.run.config.eval.methods.items()
                    if not method.protocols or self.name in method.protocols]  # fmt: skip
        for method in external:
            self._external(method)
        rendering = [*(model.name for model in self.models), *external]
        found = {roles.report_pairs_input_role(self.name): Read(self._at("pairs"), ("id",))}
        for method in rendering:
            self._samples(method)
            found[roles.report_samples_input_role(self.name, method)] = Read(
                self._at("samples", method), ("samples",)
            )
        if self._metrics:
            scored = [*rendering, *baselines]
            self._features(scored)
            for method in scored:
                self._score(method)
                found[roles.score_input_role(self.name, method)] = Read(
                    self._at("score", method), ("values",)
                )
        return found

    @property
    def _driving_method(self) -> str:
        return TRUTH_METHOD if self.has_truth else DRIVING_METHOD

    @property
    def _metrics(self) -> list[Metric]:
        """Those of the run that apply."""
        wanted = (METRICS[name] for name in self.run.config.eval.metrics)
        return [metric for metric in wanted if self._reference(metric) is not None]

    def _reference(self, metric: Metric) -> Reference | None:
        return metric.reference_in(self.has_truth, self.protocol.follows_driving)

    @property
    def _reference_methods(self) -> dict[str, list[str]]:
        """Method that frames are compared with, or whose mean is taken from both -> the features that are."""
        found: dict[str, dict[str, None]] = {}
        for metric in self._metrics:
            if metric.feature_includes_truth:  # nothing of the truth alone is compared
                continue
            if method := reference_method(self._reference(metric) or "none", self.has_truth):
                found.setdefault(method, {})[metric.compared_with[0]] = None
            if metric.centred:
                found.setdefault(self._driving_method, {})[metric.feature] = None
        return {method: list(features) for method, features in found.items()}

    def _at(self, *stage_and_method: str) -> str:
        return ".".join((*stage_and_method, self.name))

    def _stage_of(self, method: str) -> str:
        """What a method is, whatever a run calls it: that of a model names the model."""
        if method in self.run.config.eval.methods:
            return "external"
        return next((model.spec.name for model in self.models if model.name == method), method)

    def _kind_of(self, method: str) -> MethodKind:
        for model in self.models:
            if model.name == method:
                return model.kind
        return "external" if method in self.run.config.eval.methods else "baseline"

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
        self.run.add_whole(self._at("pairs"), "eval.pairs:make_pairs", stage="pairs", table=True,
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
        self.run.add_keyed(self._at("generate", method), f"pipelines.eval.{function}",
                           units=self._at("pairs"), config=settings, codec=GENERATED_CODEC,
                           drops=not self.run.config.runtime.keep_frames,
                           reads_codec=self.run.config.views[self.view].frames.codec if self.view else None,
                           reads={"pairs": Read(self._at("pairs"), PAIR_COLUMNS), **reads}, **more)
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

    @property
    def _feature_names(self) -> list[str]:
        """Those that the protocol's metrics read of a method that is scored."""
        used = dict.fromkeys(metric.feature for metric in self._metrics)
        return [name for name in used if name != FRAMES_FEATURE]

    def _features(self, scored: list[str]) -> None:
        """A node for each feature of the methods that are scored, and for those in which others are a
        metric's reference; inputs of features first."""
        wanted = {method: with_input_features(self._feature_names) for method in scored}
        for method, features in self._reference_methods.items():
            own = [name for name in features if name != FRAMES_FEATURE]
            wanted[method] = list(dict.fromkeys((*wanted.get(method, ()), *with_input_features(own))))
        for name in dict.fromkeys(name for features in wanted.values() for name in features):
            for method in (one for one, features in wanted.items() if name in features):
                self._feature(name, method)

    def _feature(self, name: str, method: str) -> None:
        feature = METRIC_FEATURES[name]
        reads, writes = {"generated": Read(self._at("generate", method), (FRAMES_FEATURE,))}, feature.fields
        if feature.pair_fields and self.has_truth and method != TRUTH_METHOD:
            reads[TRUTH_METHOD] = Read(self._at("generate", TRUTH_METHOD), (FRAMES_FEATURE,))
            writes += feature.pair_fields
        for other in feature.input_features:
            reads[other] = Read(f"{self._at('features', method)}.{other}", METRIC_FEATURES[other].fields)
        if feature.driving_fields:
            side = SOUND_ROLE_PREFIX if self.sound_corpus else DRIVING_ROLE_PREFIX
            corpus = self.sound_corpus or self.sides.get(side) or self.sides[""]
            own = Read(
                self.run.corpus_node_name("clips", corpus), feature.driving_fields,
                by=PAIR_RECORDING_COLUMNS[side],
            )  # fmt: skip
            reads |= {"pairs": Read(self._at("pairs"), PAIR_COLUMNS), CLIPS_FAMILY: own}
        # fmt: off
        self.run.add_keyed(f"{self._at('features', method)}.{name}", FEATURE_STAGES[name],
                           stage=f"features.{self._stage_of(method)}.{name}", units=self._at("pairs"),
                           reads=reads, reads_codec=GENERATED_CODEC, writes=(*writes, "needs"),
                           nets=feature.nets, light=feature.light, missing_weights="skip")
        # fmt: on

    def _samples(self, method: str) -> None:
        driving = TRUTH_METHOD if self.has_truth else DRIVING_METHOD
        sources = {"generated": method, "source": COPY_METHOD, "driving": driving}
        # fmt: off
        self.run.add_whole(self._at("samples", method), "eval.sample_frames:publish_sample_frames",
                       stage=f"samples.{self._stage_of(method)}", resources={}, reads_codec=GENERATED_CODEC,
                       reads={role: Read(self._at("generate", one), (FRAMES_FEATURE,))
                              for role, one in sources.items()},
                       writes=("samples",),
                       config={name: f"report.{name}" for name in ("grid_pairs", "videos")})
        # fmt: on

    def _score(self, method: str) -> None:
        reads = {
            "pairs": Read(self._at("pairs"), ("id", "source_clip", "driving_clip")),
            "generated": Read(self._at("generate", method), (FRAMES_FEATURE,)),
            self._driving_method: Read(self._at("generate", self._driving_method), (FRAMES_FEATURE,)),
        }
        for name in self._feature_names:
            feature = METRIC_FEATURES[name]
            fields = (*feature.fields, *(feature.pair_fields if self.has_truth else ()))
            reads[name] = Read(f"{self._at('features', method)}.{name}", fields)
        for other, features in self._reference_methods.items():
            for name in features:
                if name == FRAMES_FEATURE:
                    reads[other] = Read(self._at("generate", other), (FRAMES_FEATURE,))
                else:
                    feature = Read(f"{self._at('features', other)}.{name}", METRIC_FEATURES[name].fields)
                    reads[f"{other}.{name}"] = feature
        loss_nets = next((" ".join(model.loss_nets) for model in self.models if model.name == method), "")
        # fmt: off
        self.run.add_whole(self._at("score", method), "eval.score:score_method", reads_codec=GENERATED_CODEC,
                       stage=f"score.{self._stage_of(method)}",
                       arguments={"method": self._stage_of(method), "kind": self._kind_of(method),
                                  **({"loss_nets": loss_nets} if loss_nets else {}),
                                  **({} if self.protocol.follows_driving else {"edited": "yes"})},
                       reads=reads, writes=("values",), config={"metrics": "eval.metrics"},
                       resources={"cpu": 1}, packages=("opencv-python",))  # SSIM
        # fmt: on
