from msgspec import field

from models.api import Phase
from models.model_config import ModelConfig
from models.toy.phases import PHASES


class ToyConfig(ModelConfig, frozen=True, kw_only=True):
    phases: dict[str, Phase | None] = field(default_factory=lambda: dict(PHASES))
    size: int = 16  # side of its images
