"""The nodes that measure what methods generated: features.METHOD.P.FEATURE and score.METHOD.P."""

from __future__ import annotations

from typing import Any

from pipelines.engine.node import Read
from pipelines.eval.features import (
    FEATURE_STAGES,
    FRAMES_FEATURE,
    METRIC_FEATURES,
    with_input_features,
)
from pipelines.eval.methods import TRUTH_METHOD, Reference, reference_method
from pipelines.eval.metrics import METRICS, Metric
from pipelines.eval.pair_clips import DRIVING_ROLE_PREFIX, SOUND_ROLE_PREFIX
from pipelines.eval.pairs import PAIR_COLUMNS
from pipelines.eval.protocol_nodes import GENERATED_CODEC, PAIR_RECORDING_COLUMNS, ProtocolNodes
from pipelines.eval.scored_frames import CLIPS_FAMILY


class MetricNodes(ProtocolNodes, frozen=True):
    """Features and scores of one protocol."""

    def add(self, methods: list[str]) -> list[str]:
        """The nodes that score these methods -> the methods that are scored: none, where no metric of the run
        applies."""
        if not self._metrics:
            return []
        self._features(methods)
        for method in methods:
            self._score(method)
        return methods

    @property
    def _metrics(self) -> list[Metric]:
        """Those of the run that apply."""
        wanted = (METRICS[name] for name in self.run.config.eval.metrics)
        return [metric for metric in wanted if self._reference(metric) is not None]

    def _reference(self, metric: Metric) -> Reference | None:
        protocol = self.protocol
        return metric.reference_in(self.has_truth, protocol.follows_driving, protocol.has_other_sound)

    @property
    def reference_methods(self) -> dict[str, list[str]]:
        """Method that frames are compared with, or whose mean is taken from both -> the features that are."""
        found: dict[str, dict[str, None]] = {}
        for metric in self._metrics:
            if metric.feature_includes_truth:  # nothing of the truth alone is compared
                continue
            if method := reference_method(self._reference(metric) or "none", self.has_truth):
                found.setdefault(method, {})[metric.compared_with[0]] = None
            if metric.centred:
                found.setdefault(self.driving_method, {})[metric.feature] = None
        return {method: list(features) for method, features in found.items()}

    @property
    def _feature_names(self) -> list[str]:
        """Those that the protocol's metrics read of a method that is scored."""
        used = dict.fromkeys(metric.feature for metric in self._metrics)
        return [name for name in used if name != FRAMES_FEATURE]

    def _features(self, scored: list[str]) -> None:
        """A node for each feature of the methods that are scored, and for those in which others are a
        metric's reference; inputs of features first."""
        wanted = {method: with_input_features(self._feature_names) for method in scored}
        for method, features in self.reference_methods.items():
            own = [name for name in features if name != FRAMES_FEATURE]
            wanted[method] = list(dict.fromkeys((*wanted.get(method, ()), *with_input_features(own))))
        for name in dict.fromkeys(name for features in wanted.values() for name in features):
            for method in (one for one, features in wanted.items() if name in features):
                self._feature(name, method)

    def _feature(self, name: str, method: str) -> None:
        feature = METRIC_FEATURES[name]
        reads, writes = {"generated": Read(self.at("generate", method), (FRAMES_FEATURE,))}, feature.fields
        if feature.pair_fields and self.has_truth and method != TRUTH_METHOD:
            reads[TRUTH_METHOD] = Read(self.at("generate", TRUTH_METHOD), (FRAMES_FEATURE,))
            writes += feature.pair_fields
        for other in feature.input_features:
            fields = (*METRIC_FEATURES[other].fields, "needs")
            reads[other] = Read(f"{self.at('features', method)}.{other}", fields)
        if feature.driving_fields:
            side = SOUND_ROLE_PREFIX if self.sound_corpus else DRIVING_ROLE_PREFIX
            corpus = self.sound_corpus or self.sides.get(side) or self.sides[""]
            own = Read(
                self.run.corpus_node_name("clips", corpus), feature.driving_fields,
                by=PAIR_RECORDING_COLUMNS[side],
            )  # fmt: skip
            reads |= {"pairs": Read(self.at("pairs"), PAIR_COLUMNS), CLIPS_FAMILY: own}
        # fmt: off
        self.run.add_keyed(f"{self.at('features', method)}.{name}", FEATURE_STAGES[name],
                           **(self._imported_files(method) if feature.imported else {}),
                           stage=f"features.{self.stage_of(method)}.{name}", units=self.at("pairs"),
                           reads=reads, reads_codec=GENERATED_CODEC, writes=(*writes, "needs"),
                           nets=feature.nets, light=feature.light, missing_weights="skip")
        # fmt: on

    def _imported_files(self, method: str) -> dict[str, Any]:
        """What another program found in a method's frames."""
        setting = f"eval.openface.{self.name}.{method}"
        if method not in self.run.config.eval.openface.get(self.name, {}):
            return {"arguments": {"setting": setting}}
        return {
            "arguments": {"setting": setting}, "config": {"files": setting},
            "inputs": "pipelines.eval.openface:digest_external_files",
        }  # fmt: skip

    def _score(self, method: str) -> None:
        reads = {
            "pairs": Read(self.at("pairs"), ("id", "source_clip", "driving_clip", "driving_frames")),
            "generated": Read(self.at("generate", method), (FRAMES_FEATURE,)),
            self.driving_method: Read(self.at("generate", self.driving_method), (FRAMES_FEATURE,)),
        }
        for name in self._feature_names:
            feature = METRIC_FEATURES[name]
            fields = (*feature.fields, *(feature.pair_fields if self.has_truth else ()))
            reads[name] = Read(f"{self.at('features', method)}.{name}", fields)
        for other, features in self.reference_methods.items():
            for name in features:
                if name == FRAMES_FEATURE:
                    reads[other] = Read(self.at("generate", other), (FRAMES_FEATURE,))
                else:
                    feature = Read(f"{self.at('features', other)}.{name}", METRIC_FEATURES[name].fields)
                    reads[f"{other}.{name}"] = feature
        loss_nets = next((" ".join(model.loss_nets) for model in self.models if model.name == method), "")
        driven_by = " ".join(self.driven_by(method))
        # fmt: off
        self.run.add_whole(self.at("score", method), "eval.score:score_method", reads_codec=GENERATED_CODEC,
                       stage=f"score.{self.stage_of(method)}",
                       arguments={"method": self.stage_of(method), "kind": self.kind_of(method),
                                  **({"loss_nets": loss_nets} if loss_nets else {}),
                                  **({"driven_by": driven_by} if driven_by else {}),
                                  **({} if self.protocol.follows_driving else {"edited": "yes"}),
                                  **({"other_sound": "yes"} if self.protocol.has_other_sound else {})},
                       reads=reads, writes=("values",), config={"metrics": "eval.metrics"},
                       resources={"cpu": 1}, packages=("opencv-python",))  # SSIM
        # fmt: on
