"""What `reenact pairs` writes out, found among what a run has published; nothing is computed again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from pipelines.errors import UserError
from pipelines.eval.methods import COPY_METHOD, DRIVING_METHOD, TRUTH_METHOD
from pipelines.runs.graph_builder import protocol_corpora

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.config import RunConfig
    from pipelines.engine.node_plan import NodePlan
    from pipelines.runs.session import RunSession
    from storage.families import Artifact


def choose_protocol(config: RunConfig, wanted: str | None) -> str:
    """The protocol asked for, or the only one of the run. UserError where that says nothing."""
    known = list(config.eval.active_protocols)
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known:
        return str(wanted)
    raise UserError(
        f"--protocol {wanted or 'is not given, and the run has several'}: expected one of {', '.join(known)}"
    )


class PublishedPairs:
    """The nodes of one protocol, and of the method whose frames are wanted, "" or None for none."""

    def __init__(self, session: RunSession, protocol: str, method: str | None) -> None:
        self._session, self._protocol = session, protocol
        self._method = method
        self.pairs_node = f"pairs.{protocol}"
        if method is not None and self.method_node not in session.graph.nodes:
            known = [name.split(".")[1] for name in session.graph.nodes
                     if name.startswith("generate.") and name.endswith(f".{protocol}")]  # fmt: skip
            raise UserError(f"--method {method}: protocol {protocol} has {', '.join(known)}")

    @property
    def method_node(self) -> str:
        return self._generate_node(str(self._method))

    @property
    def input_nodes(self) -> dict[str, str]:
        """pipelines.eval.pair_export.PairInputs' families -> their nodes."""
        graph = self._session.graph.nodes
        truth, driving = self._generate_node(TRUTH_METHOD), self._generate_node(DRIVING_METHOD)
        sources = graph[self._generate_node(COPY_METHOD)].reads.values()
        config = self._session.config
        _, corpus = protocol_corpora(config, config.eval.active_protocols[self._protocol])
        clips = f"clips@{corpus}"
        return {
            "source_clips": next(read.node for read in sources if "frames" in read.fields),
            "driving": truth if truth in graph else driving,
            "sound_clips": clips if clips in graph else "clips",
        }

    def artifact(self, node: str, run_command: Callable[[str], str]) -> Artifact:
        """UserError, with the command that makes it, where a node has published nothing for today's settings
        and code; or has dropped its frames."""
        plan = self._plans[node]
        if plan.artifact is None:
            raise UserError(
                f"{node} is not published for these settings and code; first `{run_command(node)}`"
            )
        if plan.restore_jobs:
            raise UserError(
                f"the frames of {node} were dropped after the run; set runtime.keep_frames to true, "
                f"then `{run_command(node)}`"
            )
        return plan.artifact

    @cached_property
    def _plans(self) -> Mapping[str, NodePlan]:
        wanted = [self.method_node] if self._method is not None else list(self.input_nodes.values())
        plans = self._session.make_planner().plan(self._session.selected_nodes([self.pairs_node, *wanted]))
        self._session.save_caches()
        return plans

    def _generate_node(self, method: str) -> str:
        return f"generate.{method}.{self._protocol}"
