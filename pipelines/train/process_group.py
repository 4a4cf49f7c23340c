"""How training workers that share one machine find each other: in a file, not at a port.

torch opens the port of its store to every address of the machine, without a password, and what workers tell
each other is unpickled. Imports Ray Train, so only `launch` imports it, when it starts workers.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)


class _MeetInFile(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        count = len(worker_group)
        if count == 1:  # nobody to meet: `device.place` takes no process group for a group of one
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        meeting = Path(tempfile.mkdtemp(prefix="reenact-workers-")) / "meeting"
        ray.get([
            worker_group.execute_single_async(
                rank, _setup_torch_process_group, backend=backend_config.backend, world_rank=rank,
                world_size=count, init_method=meeting.as_uri(), timeout_s=backend_config.timeout_s,
            )
            for rank in range(count)
        ])  # fmt: skip


@dataclass
class SingleMachineTorchConfig(TorchConfig):
    """For all workers on this machine, or one worker anywhere."""

    @property
    def backend_cls(self) -> Any:
        return _MeetInFile
