"""How and where a run works: store, Ray, workers, devices, tracking, downloads. In no key."""

from __future__ import annotations

from msgspec import Struct, field

from pipelines.preprocess.fetch.transport_config import DownloadTransportConfig
from storage.uris import ExpandedPath, reject_credentials


class RuntimeConfig(Struct, frozen=True, kw_only=True):
    """How and where to run. Nothing here changes a result, and nothing here enters a key."""

    store: ExpandedPath = ".reenact/store"
    """Folder or URI (s3://bucket/prefix?region=...) that everything is published to. Credentials come from
    the environment (AWS_*, GOOGLE_APPLICATION_CREDENTIALS): one that holds them is refused."""
    tracking: ExpandedPath = ""
    """MLflow tracking URI; empty = sqlite beside the store. MLFLOW_TRACKING_URI wins. Credentials:
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."""
    experiment: str = "reenact"
    """MLflow experiment."""
    ray: str = ""
    """Address of a Ray cluster; empty = RAY_ADDRESS if set, else a private one on this machine."""
    cpus: int | None = None
    """Cores of the private cluster; None = all."""
    object_store_mb: int = 512
    """Object store of the private cluster. Only paths and records pass through it."""
    workers: int | None = None
    """Most workers of one preprocessing node; None = one a core of the cluster."""
    pools: dict[str, int] = field(default_factory=dict)
    """Most workers of the nodes named, where that differs from `workers`: {download: 4, keypoints: 32}."""
    gpu_share: float = 0.0
    """GPU of each preprocessing worker that holds nets."""
    net_batch: int = 0
    """Images of 256 px that a face net in torch sees at once; 0 = as suits the device."""
    net_compile: bool = False
    """Compile the face nets in torch; every worker spends a minute or more on it first."""
    train_workers: int = 1
    """Ray Train workers; 0 = train inside the driver process (tests, debugging)."""
    train_cpus: int = 2
    """Cores of each training worker."""
    train_readers: int = 2
    """Threads of each training worker that read and decode samples ahead."""
    train_prefetch: int = 4
    """Chunks of samples that they are ahead."""
    train_compile: bool = False
    """Compile the net before training; it takes a minute or more, and pays on GPUs if at all."""
    use_gpu: bool = False
    """Train and evaluate on GPUs."""
    eval_cpus: int = 1
    """Cores of one evaluation task; several run side by side, and landmarks use one thread each."""
    keep_frames: bool = True
    """Keep what is generated for evaluation; else it is dropped once its scores, features and samples are
    there, and generated again where a new metric reads it."""
    checkpoint_every: int = 500
    """Steps between the checkpoints that a crash falls back to."""
    log_every: int = 20
    """Steps between logged training figures."""
    download: DownloadTransportConfig = field(default_factory=DownloadTransportConfig)
    """Mirrors, politeness, patience, cookies and proxy of downloads."""
    max_rejected: float = 0.2
    """A node whose share of rejected units is larger fails."""

    def __post_init__(self) -> None:
        if not self.store or not self.experiment:
            raise ValueError("store and experiment: expected a text, found an empty one")
        reject_credentials(self.store, "runtime.store")
        reject_credentials(self.tracking, "runtime.tracking")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"max_rejected {self.max_rejected}: expected a share from 0 to 1")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers {self.workers}: expected 1 or more, or none")
        for node, most in self.pools.items():
            if most < 1:
                raise ValueError(f"pools.{node} {most}: expected 1 or more")
        if self.net_batch < 0:
            raise ValueError(f"net_batch {self.net_batch}: expected 0 or more")
        if self.train_workers < 0:
            raise ValueError(f"train_workers {self.train_workers}: expected 0 or more")
        if min(self.train_cpus, self.eval_cpus, self.train_readers) < 1 or self.train_prefetch < 0:
            raise ValueError(
                "train_cpus, eval_cpus and train_readers: expected 1 or more; train_prefetch: 0 or more"
            )
        if min(self.checkpoint_every, self.log_every) < 1:
            raise ValueError("checkpoint_every and log_every: expected 1 or more steps")
