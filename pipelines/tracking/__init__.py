"""MLflow as a replay of the run ledger: the only importer of mlflow, and nothing waits for it.

The ledger (storage/ledger.py) is the truth; this turns its events into MLflow runs. An `MlflowTracker` does
so while a run goes on, from a thread that may fall behind or fail; `MlflowTracker.sync_run` does so
afterwards, from the same events. Runs are found again by their tags, so an event applied
twice changes nothing. Importing this package imports no mlflow.

One parent run per pipeline run, one child per executed node. A training node that was cut short and is taken
up by a later run keeps its MLflow run, so its curve stays one curve, and moves under the later parent.

Events are flat dicts with `type`, `time` (seconds since the epoch) and `run_id`; the rest by type,
[optional]:

| type | fields |
|---|---|
| run_started | [name], [config: resolved tree], [git: {commit, branch, dirty}], [store: URI], [argv], |
| | [licences: {weights id: text}], [ray_job], and as texts [plan], [graph], [svg] |
| node_started | node, key, [node_key], [kind], [reasons], [params: {config path: value}], |
| | [weights: {id: sha256}], [inputs: {upstream: {key, digest}}], [counts] |
| node_cached | node, key, [state] |
| params | node, values ([provenance: what weights are not the published ones]: also a tag of the parent) |
| metrics | node, values, step (None = final: also on the parent) |
| node_finished | node, status: FINISHED, FAILED or KILLED, [key], [digest], [seconds], [counts], [steps], |
| | [rejects: [{unit, code, reason}]], [folder, files: names in it], [error], [detail] |
| run_finished | status, [error] |

Other types (progress, warning, shards_dropped) are skipped.
"""

from pipelines.tracking.replay import MlflowReplayer
from pipelines.tracking.server import (
    TrackingPlace,
    check_port_is_free,
    configured_tracking_uri,
    find_tracking_place,
    mlflow_server_command,
    serve_ui,
)
from pipelines.tracking.tracker import MlflowTracker

__all__ = [
    "MlflowReplayer",
    "MlflowTracker",
    "TrackingPlace",
    "check_port_is_free",
    "configured_tracking_uri",
    "find_tracking_place",
    "mlflow_server_command",
    "serve_ui",
]
