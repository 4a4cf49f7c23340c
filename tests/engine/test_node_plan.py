import io

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine.node import Node
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
