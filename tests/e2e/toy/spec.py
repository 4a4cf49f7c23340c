from models.spec import CheckpointUse, ModelNodeSpec, ModelSpec, TaskSpec
from models.toy.config import ToyConfig
from models.toy.phases import PHASES

TASK = TaskSpec(
    task="models.toy.task:ToyTask", settings=("size", "seed", "precision"), tables={"codes": ("invert",)}
)
INVERT = ModelNodeSpec(
    run="models.toy.inference:invert", reads={"clips": ("frames",)}, writes=("codes",), settings=("size",),
    uses={"toy": CheckpointUse("models.toy.inference:load", {"encoder": "images"})},
)  # fmt: skip
SPEC = ModelSpec(
    name="toy", config=ToyConfig, phases=PHASES, nodes=lambda config: {"invert": INVERT},
    tasks=dict.fromkeys(PHASES, TASK),
    parts=lambda config, phase: ("encoder", "generator", "discriminator"),
    reads=lambda config, phase: (
        {"clips": ("frames",)} | ({"invert": ("codes",)} if phase.name == "codes" else {})
    ),
    inference="models.toy.inference:Reenactor",
    driving_reads=lambda config: {"clips": ("frames",)},
)  # fmt: skip
