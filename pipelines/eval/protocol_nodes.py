"""What every node of a protocol is named and reads by, for nodes.py and metric_nodes.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from models.spec import FamilyFields, ModelSpec
from pipelines.eval.methods import DRIVING_METHOD, TRUTH_METHOD, MethodKind
from pipelines.eval.pair_clips import DRIVING_ROLE_PREFIX, SOUND_ROLE_PREFIX, SOURCE_ROLE_PREFIX
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.runs.graph_builder import GraphBuilder, protocol_corpora

PAIR_RECORDING_COLUMNS = {
    "": "recordings",
    SOURCE_ROLE_PREFIX: "source_recording",
    DRIVING_ROLE_PREFIX: "driving_recording",
    SOUND_ROLE_PREFIX: "sound_recording",
}
"""Side -> the column of the table of pairs that names the recordings of its clips."""
SCORED_FRAMES_ROLE = "scored_frames"
"""Role of the view whose frames stand for those of the clips."""
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
    driven_by: tuple[str, ...] = ("frames",)
    """What it is given of what it is to do: frames, sound or both."""
    checkpoints: Mapping[str, str]
    """Role, as inference knows it -> the node that publishes it."""


class ProtocolNodes(Struct, frozen=True):
    """Nodes of one protocol."""

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

    @property
    def driving_method(self) -> str:
        return TRUTH_METHOD if self.has_truth else DRIVING_METHOD

    def at(self, *stage_and_method: str) -> str:
        return ".".join((*stage_and_method, self.name))

    def stage_of(self, method: str) -> str:
        """What a method is, whatever a run calls it: that of a model names the model."""
        if method in self.run.config.eval.methods:
            return "external"
        return next((model.spec.name for model in self.models if model.name == method), method)

    def driven_by(self, method: str) -> tuple[str, ...]:
        """Nothing, of a baseline."""
        if method in self.run.config.eval.methods:
            return self.run.config.eval.methods[method].driven_by
        return next((model.driven_by for model in self.models if model.name == method), ())

    def kind_of(self, method: str) -> MethodKind:
        for model in self.models:
            if model.name == method:
                return model.kind
        return "external" if method in self.run.config.eval.methods else "baseline"
