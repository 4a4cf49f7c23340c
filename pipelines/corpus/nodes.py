"""The nodes of a corpus that look at all of it, for pipelines/graph.py: who is who by face, and the page."""

from __future__ import annotations

from pipelines.corpus.identity_check import OTHER_CORPUS_ROLE_PREFIX
from pipelines.engine.node import Read
from pipelines.errors import UserError
from pipelines.preprocess.recordings import LEAKS_REPORTED
from pipelines.runs.graph_builder import GraphBuilder, other_training_corpora


def add_identity_check(run: GraphBuilder, corpus: str) -> None:
    """Who is who by face: with the other corpora that models are trained on, where this one is evaluated."""
    keypoints, leaks = run.identity_keypoints_node(corpus), run.config.data[corpus].leaks
    if not keypoints:
        if leaks != LEAKS_REPORTED:
            raise UserError(
                f"data.{corpus}.leaks is {leaks}, but no faces are compared; set identity.net and "
                f"identity.keypoints, or data.{corpus}.leaks to {LEAKS_REPORTED}"
            )
        return
    # fmt: off
    reads = {"recordings": Read(run.corpus_node_name("recordings", corpus), ("id", "identity", "split")),
             "identity": Read(run.corpus_node_name("identity", corpus), ("embeddings",)),
             "keypoints": Read(keypoints, ("landmarks",))}
    for number, other in enumerate(other_training_corpora(run.config, corpus)):
        if run.identity_keypoints_node(other):
            role = f"{OTHER_CORPUS_ROLE_PREFIX}{number}"
            reads |= {f"{role}.recordings": Read(run.corpus_node_name("recordings", other),
                                                 ("id", "identity", "split", "source")),
                      f"{role}.identity": Read(run.corpus_node_name("identity", other), ("embeddings",))}
    check = run.corpus_node_name("identity_check", corpus)
    run.add_whole(check, "corpus.identity_check:check_identities", stage="identity_check", reads=reads,
              writes=("identities", "clips", "near_duplicates"),
              config=("identity.net", "identity.threshold", "identity.unlike"))
    if leaks != LEAKS_REPORTED:
        run.add_whole(run.splits_node(corpus), "corpus.leaks:make_checked_splits", stage="splits",
                  resources={}, reads={"recordings": reads["recordings"],
                                       "identity_check": Read(check, ("identities",))},
                  writes=("id", "identity", "split"), config={"data.leaks": f"data.{corpus}.leaks"})
    # fmt: on


def add_corpus_page(run: GraphBuilder, corpus: str) -> None:
    """A page about the data, with the first instance of each stage."""
    # fmt: off
    fields = {"keypoints": ("landmarks",), "fit3dmm": ("angles", "fit_error", "exp_coeffs"),
             "speech": ("speech",)}
    first = {stage: next(iter(run.needed_instances(stage, corpus)), None) for stage in fields}
    if (name := first["keypoints"]) and "slip" in run.config.keypoints[name].writes:
        fields["keypoints"] = ("landmarks", "slip")
    checks = {stage: (name, read) for stage, read in (("identity_check", "identities"), ("splits", "split"))
              if (name := run.corpus_node_name(stage, corpus)) in run.graph.nodes}
    run.add_whole(run.corpus_node_name("corpus", corpus), "corpus.page_node:make_corpus_page", stage="corpus",
              reads={"recordings": Read(run.corpus_node_name("recordings", corpus), ("id", "split")),
                     "download": Read(run.corpus_node_name("download", corpus), ("probe",)),
                     "clips": Read(run.corpus_node_name("clips", corpus), ("frames", "clip", "crop")),
                     **{stage: Read(run.corpus_node_name(f"{stage}.{name}", corpus), fields[stage])
                        for stage, name in first.items() if name},
                     **{stage: Read(name, (read,)) for stage, (name, read) in checks.items()}},
              writes=("page",))
    # fmt: on
