"""Heavy functions of the driver as Ray tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.cluster.pack_worker import ONE_THREAD_ENVIRONMENT
from pipelines.errors import Transient, error_first_line, make_picklable


def run_in_worker(
    function: Callable[..., Any], *args: Any, resources: Mapping[str, float] | None = None, **kwargs: Any
) -> Any:
    """Call a function in a Ray task with these resources (cpu, gpu), or here when Ray is not running."""
    if "ray" not in sys.modules:
        return function(*args, **kwargs)
    import ray
    import ray.exceptions

    if not ray.is_initialized():
        return function(*args, **kwargs)
    wanted = resources or {}
    task = ray.remote(
        num_cpus=wanted.get("cpu", 1),
        num_gpus=wanted.get("gpu", 0),
        max_retries=1,
        runtime_env={"env_vars": ONE_THREAD_ENVIRONMENT},  # as packs have it: their processes serve here too
    )(_call)
    try:
        value, error = ray.get(task.remote(function, args, kwargs))
    except (ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as lost:
        raise Transient(f"its worker was lost, run again: {error_first_line(lost)}", soon=False) from lost
    if error is not None:
        raise error
    return value


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Exception | None]:
    """Returns errors: Ray would wrap one that is raised in its own class and message."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001 - raised in the driver
        return None, make_picklable(error)
