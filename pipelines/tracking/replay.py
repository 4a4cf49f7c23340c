"""Applies ledger events to MLflow: each changes nothing the second time."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.mlflow_text import (
    MAX_TAG_LENGTH,
    flatten_params,
    mlflow_name,
    redact_tree,
    redact_uris,
    tag_texts,
    to_yaml,
    truncate_text,
)  # fmt: skip
from pipelines.tracking.server import TrackingPlace, make_database_folder
from storage.errors import DamagedFile, StoreError, StoreUnreachable
from storage.ledger import Event

if TYPE_CHECKING:
    from mlflow.entities import Run

FetchFile = Callable[[str], Path]
"""Store path -> a local file with its bytes."""

DEFAULT_EXPERIMENT = "reenact"
EXTERNAL_MODEL_TAG = "mlflow.model.isExternal"
"""Tag of a logged model whose files MLflow does not hold."""
PARENT_RUN = "(run)"
"""Value of the tag reenact.node on a parent."""
MAX_METRICS_PER_BATCH = 1000
MAX_ARTIFACT_BYTES = 25 * 2**20
MLFLOW_FILE_EXTENSIONS = {".html", ".png", ".svg", ".mp4", ".json", ".parquet", ".txt", ".yaml", ".csv"}
"""Output files copied to MLflow; everything else stays in the store, which the tags point to."""

log = logging.getLogger(__name__)


@dataclass
class _Run:
    """An MLflow run as this process knows it."""

    id: str
    current: bool
    """It belongs to the pipeline run whose events are applied, and not to a later one that took it up."""
    fresh: bool
    """Made by this process: nothing to be read back before logging."""
    params: set[str] = field(default_factory=set)
    steps: dict[str, int] = field(default_factory=dict)
    """Metric -> last step logged."""


@dataclass
class _Table:
    """What the parent's note shows: node -> (state, units, rejected, reason)."""

    rows: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    header: str = ""
    changed: bool = False

    def put(self, node: str, state: str, reason: str = "", event: Event | None = None) -> None:
        """Set a row; counts and reason that are not given stay as they were."""
        _, units, rejected, before = self.rows.get(node, ("", "", "", ""))
        if event is not None:
            counts = event.get("counts") or {}
            units, rejected = str(counts.get("units", units)), str(counts.get("rejected", rejected))
        self.rows[node] = (state, units, rejected, reason or before)
        self.changed = True

    def markdown(self) -> str:
        head = [self.header, "", "| node | state | units | rejected | why |", "|---|---|---|---|---|"]
        rows = [(node, *row[:3], row[3].replace("|", "/")) for node, row in self.rows.items()]
        return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


class MlflowReplayer:
    """Applies events to MLflow, one by one and in order; metrics gather until `flush`."""

    def __init__(
        self, where: TrackingPlace, experiment: str = DEFAULT_EXPERIMENT, fetch: FetchFile | None = None
    ):
        silence_mlflow()
        from mlflow.tracking import MlflowClient

        make_database_folder(where)
        self.client = MlflowClient(tracking_uri=where.uri)
        self.fetch = fetch or Path
        self.experiment = self._experiment(experiment, where.artifacts)
        self._runs: dict[tuple[str, str], _Run] = {}
        self._tables: dict[str, _Table] = defaultdict(_Table)
        self._stores: dict[str, str] = {}
        self._metrics: dict[str, list[Any]] = defaultdict(list)

    def _experiment(self, name: str, artifacts: str) -> str:
        """Made once, here, before any worker: four processes starting on an empty database at once would
        crash."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=artifacts or None)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        assert found is not None
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def apply_event(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['type']}", None)
        if handler is not None:
            if event["type"] not in ("metrics", "params"):
                self.flush()
            handler(event)

    def flush(self) -> None:
        from mlflow.entities import RunTag

        for run_id, points in self._metrics.items():
            for i in range(0, len(points), MAX_METRICS_PER_BATCH):
                self.client.log_batch(run_id, metrics=points[i : i + MAX_METRICS_PER_BATCH])
            points.clear()
        for pipeline_run, table in self._tables.items():
            if table.changed and (parent := self._find(pipeline_run)):
                note = RunTag("mlflow.note.content", truncate_text(table.markdown(), MAX_TAG_LENGTH))
                self.client.log_batch(parent.id, tags=[note])
                table.changed = False

    # --- finding and making runs ---
    def _find(self, pipeline_run: str, node: str = PARENT_RUN) -> _Run | None:
        known = self._runs.get((pipeline_run, node))
        if known is None:
            rows = self._search({f"reenact.attempt.{pipeline_run}": "1", "reenact.node": node})
            if rows:
                current = rows[0].data.tags.get("reenact.run_id") == pipeline_run
                known = _Run(rows[0].info.run_id, current, fresh=False, params=set(rows[0].data.params))
                self._runs[pipeline_run, node] = known
        return known

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        """Newest first."""
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(
            self.client.search_runs([self.experiment], wanted, order_by=["attributes.start_time DESC"])
        )

    def _open(self, event: Event, node: str, name: str, tags: Mapping[str, str]) -> _Run:
        """The MLflow run of this node in this pipeline run; made, or taken up from a run that was cut
        short."""
        pipeline_run = event["run_id"]
        tags = {
            "reenact.run_id": pipeline_run,
            "reenact.node": node,
            f"reenact.attempt.{pipeline_run}": "1",
            **tags,
        }
        run = self._find(pipeline_run, node)
        if run is None and (unfinished := self._find_unfinished(node, tags.get("reenact.key", ""))):
            run = self._take_up(unfinished, node, tags)
        elif run is None:
            start = event_time_ms(event)
            made = self.client.create_run(self.experiment, start, tags=tag_texts(tags), run_name=name)
            run = _Run(made.info.run_id, True, fresh=True)
        elif run.current:
            self._tag(run.id, tags)
        self._runs[pipeline_run, node] = run
        return run

    def _find_unfinished(self, node: str, key: str) -> Run | None:
        """A run of the same node and key that has a curve and no end: to be continued, not begun again."""
        if node == PARENT_RUN or not key:
            return None
        rows = self._search({"reenact.node": node, "reenact.key": key, "reenact.live": "1"})
        return next((row for row in rows[:1] if row.info.status != "FINISHED"), None)

    def _take_up(self, unfinished: Run, node: str, tags: Mapping[str, str]) -> _Run:
        """Move a cut-short run under the present parent; the earlier parent keeps a pointer."""
        run_id, before = unfinished.info.run_id, unfinished.data.tags.get("reenact.run_id", "")
        if parent := self._find(before):
            self._tag(parent.id, {f"continued.{node}": run_id})
        if (before, node) in self._runs:
            self._runs[before, node].current = False
        self.client.update_run(run_id, status="RUNNING")
        self._tag(run_id, tags)
        return _Run(run_id, True, fresh=False, params=set(unfinished.data.params))

    def _tag(self, run_id: str, tags: Mapping[str, object]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(name, value) for name, value in tag_texts(tags).items()]
        for i in range(0, len(entities), 100):
            self.client.log_batch(run_id, tags=entities[i : i + 100])

    def _params(self, run: _Run, values: Mapping[str, str]) -> None:
        """Parameters are written once: those already there stay, also if a resumed run has another worker
        count."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in values.items() if name not in run.params]
        for i in range(0, len(new), 100):
            self.client.log_batch(run.id, params=new[i : i + 100])
        run.params |= set(values)

    # --- run events ---
    def _on_run_started(self, event: Event) -> None:
        git = event.get("git") or {}
        store = redact_uris(event.get("store", ""))
        tags = {
            "reenact.store": store,
            "reenact.argv": " ".join(event.get("argv", [])),
            "mlflow.source.name": "reenact",
            **{f"git.{name}": str(value) for name, value in git.items()},
            "reenact.ray_job": event.get("ray_job", ""),
            **{f"licence.{name}": text for name, text in (event.get("licences") or {}).items()},
            **({"mlflow.source.git.commit": git["commit"]} if git.get("commit") else {}),
        }
        run = self._open(event, PARENT_RUN, event.get("name") or event["run_id"], tags)
        self._stores[event["run_id"]] = store
        self._tables[event["run_id"]].header = f"`{event['run_id']}`" + (f" in `{store}`" if store else "")
        self._tables[event["run_id"]].changed = True
        if config := event.get("config"):
            self._params(run, flatten_params(config))
            self._text(run, "config.yaml", to_yaml(redact_tree(config)))
        for field_name, file in (("plan", "plan.txt"), ("graph", "graph.txt"), ("svg", "graph.svg")):
            if text := event.get(field_name):
                self._text(run, file, redact_uris(text))

    def _on_run_finished(self, event: Event) -> None:
        table = self._tables[event["run_id"]]
        for node in [n for n, (state, *_) in table.rows.items() if state == "running"]:
            self._close(event, node, "KILLED")  # it was cut short with the run
        if event.get("error") and (run := self._find(event["run_id"])):
            self._tag(run.id, {"reenact.error": event["error"]})
        self._close(event, PARENT_RUN, event["status"])

    def _close(self, event: Event, node: str, status: str) -> None:
        run = self._find(event["run_id"], node)
        if node != PARENT_RUN:
            self._tables[event["run_id"]].put(node, status.lower(), event=event)
        self.flush()
        if run is not None and run.current:
            self.client.set_terminated(run.id, status, end_time=event_time_ms(event))

    # --- node events ---
    def _on_node_started(self, event: Event) -> None:
        node, inputs = event["node"], event.get("inputs") or {}
        parent = self._find(event["run_id"])
        reasons = "; ".join(event.get("reasons") or [])
        tags = {
            "reenact.key": event["key"],
            "reenact.node_key": event.get("node_key", ""),
            "reenact.kind": event.get("kind", ""),
            "reenact.reasons": redact_uris(reasons),
            **({"mlflow.parentRunId": parent.id} if parent else {}),
            **{f"input.{name}": one["key"] for name, one in inputs.items()},
            **{f"weights.{name}": sha for name, sha in (event.get("weights") or {}).items()},
        }
        run = self._open(event, node, node, tags)
        self._params(run, flatten_params(event.get("params") or {}))
        self._inputs(event["run_id"], run, inputs)
        self._tables[event["run_id"]].put(node, "running", reasons, event)

    def _inputs(self, pipeline_run: str, run: _Run, inputs: Mapping[str, Mapping[str, str]]) -> None:
        """What the node read, as dataset pointers: artifact digest and where the record of it lies."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        store = self._stores.get(pipeline_run, "")
        pointers = [
            DatasetInput(
                Dataset(
                    name,
                    one["digest"][:32],
                    "reenact",
                    json.dumps({"store": store, "node": name, "key": one["key"]}),
                ),
                [InputTag("mlflow.data.context", "input")],
            )
            for name, one in inputs.items()
        ]
        if pointers:
            self.client.log_inputs(run.id, pointers)

    def _on_node_cached(self, event: Event) -> None:
        """No run of its own: the parent points to the run that made it."""
        node, key = event["node"], event["key"]
        makers = [
            r for r in self._search({"reenact.node": node, "reenact.key": key}) if r.info.status == "FINISHED"
        ]
        maker = makers[0].info.run_id if makers else f"key {key}"
        if parent := self._find(event["run_id"]):
            self._tag(parent.id, {f"cached.{node}": maker})
        link = f"[made here](#/experiments/{self.experiment}/runs/{maker})" if makers else f"key `{key}`"
        self._tables[event["run_id"]].put(node, event.get("state") or "cached", link, event)

    def _on_params(self, event: Event) -> None:
        if run := self._find(event["run_id"], event["node"]):
            self._params(run, flatten_params(event["values"]))
        if (text := event["values"].get("provenance")) and (parent := self._find(event["run_id"])):
            self._tag(parent.id, {f"provenance.{event['node']}": text})  # beside the final figures there

    def _on_metrics(self, event: Event) -> None:
        run = self._find(event["run_id"], event["node"])
        if run is None:
            return
        step = event.get("step")
        if step is None:
            self._finals(event, event["values"])
            return
        if not run.steps:
            self._tag(run.id, {"reenact.live": "1"})
        for name, value in event["values"].items():
            last = self._last_step(run, name)
            # A resumed phase repeats the steps since its checkpoint; the curve must not zigzag.
            if step > last:
                self._point(run.id, name, value, event, step)
                run.steps[name] = step

    def _finals(self, event: Event, values: Mapping[str, float]) -> None:
        """Final figures: on the node's run and on the parent, so that charts of parents are not empty. There
        they bear the node's name, since two models have figures of one name.
        """
        for node in (event["node"], PARENT_RUN):
            if run := self._find(event["run_id"], node):
                for name, value in values.items():
                    figure = (
                        f"{event['node']}/{name.partition('/')[2] or name}" if node == PARENT_RUN else name
                    )
                    self._point(run.id, figure, value, event, max(self._last_step(run, figure), 0))

    def _last_step(self, run: _Run, name: str) -> int:
        if name not in run.steps:
            history = [] if run.fresh else self.client.get_metric_history(run.id, mlflow_name(name))
            run.steps[name] = max((point.step for point in history), default=-1)
        return run.steps[name]

    def _point(self, run_id: str, name: str, value: float, event: Event, step: int) -> None:
        """Stamped with the event's time: the store drops a point it already has."""
        from mlflow.entities import Metric

        self._metrics[run_id].append(Metric(mlflow_name(name), float(value), event_time_ms(event), step))

    def _on_node_finished(self, event: Event) -> None:
        node = event["node"]
        run = self._find(event["run_id"], node)
        if run is None:  # failed before it started
            reason = redact_uris(event.get("error", ""))
            self._tables[event["run_id"]].put(node, event["status"].lower(), reason)
            return
        counts = {f"units/{name}": n for name, n in (event.get("counts") or {}).items()}
        seconds = {"seconds": event["seconds"]} if "seconds" in event else {}
        for name, value in (counts | seconds).items():
            self._point(run.id, name, value, event, 0)
        self._tag(run.id, {
            "reenact.digest": event.get("digest", ""), "reenact.folder": event.get("folder", ""),
            "reenact.error": redact_uris(event.get("error", "")),
        })  # fmt: skip
        if rejects := event.get("rejects"):
            self._text(
                run,
                "rejects.json",
                json.dumps({k: [r[k] for r in rejects] for k in ("unit", "code", "reason")}),
            )
        if detail := event.get("detail"):
            self._text(run, "error.txt", redact_uris(detail))
        self._files(run, event)
        self._close(event, node, event["status"])

    # --- files ---
    def _files(self, run: _Run, event: Event) -> None:
        for name in event.get("files") or ():
            path = f"{event['folder']}/{name}"
            if Path(name).suffix in MLFLOW_FILE_EXTENSIONS and (local := self._local(path)):
                self.client.log_artifact(run.id, str(local))
                if local.suffix == ".png":
                    self._image(run, local.stem, path, event.get("steps") or 0, event)
            elif name.endswith(".safetensors"):
                self._model(run, name, event)

    def _local(self, path: str) -> Path | None:
        """The file if it is still there and small enough to copy."""
        try:
            local = self.fetch(path)
            return local if local.stat().st_size <= MAX_ARTIFACT_BYTES else None
        except (OSError, ValueError, StoreError, StoreUnreachable, DamagedFile) as error:
            log.warning("not copied to MLflow: %s", error)
            return None

    def _text(self, run: _Run, file: str, text: str) -> None:
        self.client.log_text(run.id, text, file)

    def _image(self, run: _Run, key: str, path: str, step: int, event: Event) -> None:
        """On the run's image slider, once."""
        from PIL import Image

        there = [] if run.fresh else self.client.list_artifacts(run.id, "images")
        mine = re.compile(
            rf"{re.escape(key)}[%+]step[%+]{step}[%+]"
        )  # MLflow has changed its separator before
        if any(mine.match(Path(f.path).name) for f in there):
            return
        if local := self._local(path):
            with Image.open(local) as image:
                self.client.log_image(run.id, image, key=key, step=step, timestamp=event_time_ms(event))

    def _model(self, run: _Run, file: str, event: Event) -> None:
        """A checkpoint as a logged model that points into the store."""
        from mlflow.entities import LoggedModelOutput

        key, step = event.get("key", ""), event.get("steps") or 0
        tags = {"reenact.key": key, "reenact.digest": event.get("digest", ""), "reenact.steps": str(step)}
        wanted = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        if self.client.search_logged_models([self.experiment], filter_string=wanted):
            return
        store = self._stores.get(event["run_id"], "")
        path = f"{event['folder']}/{file}"
        model = self.client.create_logged_model(
            self.experiment,
            name=event["node"].replace(".", "-"),
            source_run_id=run.id,
            model_type="checkpoint",
            tags=tags | {EXTERNAL_MODEL_TAG: "true", "reenact.uri": f"{store}/{path}" if store else path},
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step)])


def event_time_ms(event: Event) -> int:
    return int(event.get("time", 0) * 1000)


def silence_mlflow() -> None:
    """Before mlflow is imported: no telemetry, no minutes of retries (we retry ourselves), no start-up
    chatter."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
