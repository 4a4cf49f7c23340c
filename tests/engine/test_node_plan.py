import io

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine.fingerprint import Fingerprint
from pipelines.engine.node import Node, Read
from pipelines.engine.node_plan import NodePlan
from storage.families import Artifact
from storage.files import Store

NODE = Node(name="pairs", kind="whole", run="a:b", table=True)


def test_a_table_gives_units_with_their_rows_and_buckets():
    out, plan = io.BytesIO(), NodePlan(NODE, "cached")
    pq.write_table(pa.Table.from_pylist([{"id": "a", "bucket": 2}, {"id": "b", "bucket": 0}]), out)
    plan.read_unit_table(out.getvalue())
    assert plan.buckets == {"a": 2, "b": 0}
    assert plan.units["a"].row == {"id": "a", "bucket": 2}
    assert plan.units["a"].digest != plan.units["b"].digest


def test_a_node_whose_content_is_known_has_work_only_for_shards_that_are_read_again(tmp_path):
    plan = NodePlan(NODE, "stale")
    assert plan.has_work
    plan.artifact = Artifact(Store(str(tmp_path)), "pairs", "key", "digest")
    assert not plan.has_work
    plan.to_restore = {"pack"}
    assert plan.has_artifact
    assert plan.has_work


def read_by(name, *upstream):
    return Node(name=name, kind="whole", run="a:b", reads={one: Read(one, ()) for one in upstream})


def test_what_is_read_names_the_weights_of_the_keys_it_comes_from_but_not_the_missing_ones(tmp_path):
    def plan(node, **weights):
        artifact = Artifact(Store(str(tmp_path)), node.name, "key", "digest")
        return NodePlan(
            node, "cached", fingerprint=Fingerprint(node.name, weights=weights), artifact=artifact
        )

    plans = {
        "clips": plan(read_by("clips"), boxes="b", points="older"),
        "points": plan(read_by("points", "clips"), points="p", iris="missing"),
        "crops": plan(read_by("crops", "points", "clips")),
        "other": plan(read_by("other"), other="o"),
    }
    found = plans["crops"].artifact_as_read(plans)
    assert found is not None
    assert found.weights == {"points": "p", "boxes": "b"}  # the nearest of the same id


def test_of_a_pinned_artifact_no_weights_are_known(tmp_path):
    plan = NodePlan(NODE, "pinned", artifact=Artifact(Store(str(tmp_path)), "pairs", "key", "digest"))
    assert plan.artifact_as_read({}) == plan.artifact
    assert NodePlan(NODE, "stale").artifact_as_read({}) is None
