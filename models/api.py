"""A phase of training as values: what learns from which losses, on which optimizer, beginning with what.

A new model writes `phases.py` with `Phase` values and `task.py` with a `models.task.Task`; the loop
(pipelines/train/updates.py shows a whole step) needs nothing else. Importing this module loads neither torch
nor any model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

from msgspec import Struct, field

RELEASED_PREFIX = "weights."
"""How `Phase.init` names a released file."""
EMA_SUFFIX = "_ema"
"""A part's running mean is published beside it under the part's name and this."""


class Loss(Struct, frozen=True):
    """How much one loss term counts. Everything is in steps of the phase, so a budget may grow."""

    weight: float
    """0 = computed without gradient and logged, if the nets it needs are at hand. A term that shall not be
    computed is left out, or null."""
    every: int = 1
    """Computed at every so many steps only; the weight stays as it is."""
    start: int = 0
    """Steps of the phase before it is first computed."""
    ramp: int = 0
    """Steps after `start` over which the weight rises linearly to its value."""

    def __post_init__(self) -> None:
        _steps("loss", every=(self.every, 1), start=(self.start, 0), ramp=(self.ramp, 0))

    def weight_at(self, step: int) -> float | None:
        """The weight at a step, which counts from 1; None = not computed."""
        if step <= self.start or step % self.every:
            return None
        return self.weight * min(1.0, (step - self.start) / self.ramp) if self.ramp else self.weight


class Schedule(Struct, frozen=True, kw_only=True):
    """Learning rate over steps: a linear warm-up, an exponential decay, then a linear decay to 0 for models
    that end so. Nothing here depends on a phase's step budget."""

    warmup: int = 0
    """Steps over which the rate rises linearly from 0."""
    decay: float = 1.0
    """Factor by which the rate is lower `decay_steps` after the warm-up; exponential in between."""
    decay_steps: int = 1_000_000
    constant_steps: int = 0
    """Steps after the warm-up before the linear decay."""
    linear_decay_steps: int | None = None
    """Steps over which the rate then falls linearly, the step after them being the first without one; None =
    never. Training cannot go on beyond it."""
    step_offset: int | None = 0
    """Steps that the schedule has behind it when the phase begins, so that one schedule runs through several
    phases. None: as many as were done in the phases whose optimizers it resumes (`Phase.resume_optimizers`).
    """

    def __post_init__(self) -> None:
        _steps("schedule", warmup=(self.warmup, 0), decay_steps=(self.decay_steps, 1),
               constant_steps=(self.constant_steps, 0), linear_decay_steps=(self.linear_decay_steps, 1),
               step_offset=(self.step_offset, 0))  # fmt: skip
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay {self.decay}: expected a factor above 0, at most 1")
        if self.step_offset is None and self.linear_decay_steps is not None:
            raise ValueError(
                f"step_offset null with linear_decay_steps {self.linear_decay_steps}: expected the number of "
                "steps done before, or no linear decay"
            )

    @property
    def last_nonzero_rate_step(self) -> int | None:
        """The last step of a phase that has a rate above 0."""
        if self.linear_decay_steps is None or self.step_offset is None:
            return None
        return self.warmup + self.constant_steps + self.linear_decay_steps - self.step_offset


class Optimizer(Struct, frozen=True, kw_only=True):
    kind: Literal["adam", "adamw", "ranger"] = "adam"
    """ranger: RAdam, Lookahead and gradient centralisation (pipelines/train/ranger.py)."""
    lr: float = 1e-4
    """Learning rate at the end of the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """adam: an L2 term in the gradient; adamw and ranger: decoupled."""
    schedule: Schedule = field(default_factory=Schedule)
    clip: float | None = None
    """Largest gradient norm of an update, or None."""
    lazy: int = 1
    """Interval k of a regulariser that moves this optimizer besides its main update: learning rate and betas
    are corrected by c = k / (k + 1), as lr * c and betas ** c (StyleGAN2, appendix B). 1 = no correction."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr {self.lr}: expected a positive number")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas}: expected two numbers from 0, below 1")
        if not self.eps > 0 or self.weight_decay < 0:
            raise ValueError(
                f"eps {self.eps}, weight_decay {self.weight_decay}: expected above 0, and 0 or more"
            )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip {self.clip}: expected a positive number or null")
        _steps("optimizer", lazy=(self.lazy, 1))

    @property
    def lazy_correction(self) -> float:
        """Factor of the learning rate and exponent of the betas for a lazy regulariser."""
        return self.lazy / (self.lazy + 1) if self.lazy > 1 else 1.0


class Update(Struct, frozen=True, kw_only=True):
    """One optimizer step of one side of a training.

    Updates without `own_forward` learn from one forward and one backward pass: a term of one side must look
    through the parts of the other as constants, or at images detached from it, so that no side's gradient
    depends on which of them moves first. An update with `own_forward` runs a pass of its own, after the
    updates before it have moved.
    """

    parts: dict[str, float | None]
    """Part of the net that learns -> factor of the learning rate; null = it does not learn here."""
    optimizer: str = "g"
    """Name in `Phase.optimizers`; several updates may share one."""
    losses: dict[str, Loss | None]
    """The task's loss terms; null or left out = not computed."""
    every: int = 1
    """It moves at every so many steps, on the gradient of that step alone."""
    start: int = 0
    """Steps of the phase before it first moves."""
    own_forward: bool = False
    """A pass of its own over the step's samples, with noise of its own (`TrainStep.generator`)."""

    def __post_init__(self) -> None:
        _steps("update", every=(self.every, 1), start=(self.start, 0))

    @property
    def learning_rate_scales(self) -> dict[str, float]:
        """Part that learns -> factor of the learning rate."""
        return {part: scale for part, scale in self.parts.items() if scale is not None}

    @property
    def computed_losses(self) -> dict[str, Loss]:
        """The terms that are computed, weights of 0 among them."""
        return {name: loss for name, loss in self.losses.items() if loss is not None}

    def is_due(self, step: int) -> bool:
        """Whether it moves at a step, which counts from 1."""
        return step > self.start and step % self.every == 0


class EmaSettings(Struct, frozen=True, kw_only=True):
    """The running mean of a part, by one of three measures."""

    decay: float | None = None
    """mean <- decay * mean + (1 - decay) * now, at each step."""
    half_life_steps: float | None = None
    half_life_images: float | None = None
    """In samples seen, so that it does not depend on the batch size (StyleGAN2: 10,000)."""
    ramp: float | None = None
    """With a half-life: at most this share of the images or steps seen so far (StyleGAN2-ADA: 0.05)."""

    def __post_init__(self) -> None:
        measures = (self.decay, self.half_life_steps, self.half_life_images)
        if sum(one is not None for one in measures) != 1:
            raise ValueError("ema: expected one of decay, half_life_steps and half_life_images")
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay {self.decay}: expected 0 or more, below 1")
        if any(one is not None and not one > 0 for one in (*measures[1:], self.ramp)):
            raise ValueError("ema: expected a half-life and a ramp above 0")
        if self.ramp is not None and self.decay is not None:
            raise ValueError("ema: ramp goes with a half-life, found decay")

    def decay_at(self, step: int, batch: int) -> float:
        """The decay of a step, which counts from 1, of `batch` samples."""
        if self.decay is not None:
            return self.decay
        unit = 1 if self.half_life_images is None else batch
        half_life = self.half_life_steps if self.half_life_images is None else self.half_life_images
        assert half_life is not None  # __post_init__
        if self.ramp is not None:
            half_life = min(half_life, self.ramp * step * unit)
        return 0.5 ** (unit / half_life)


class BestCriterion(Struct, frozen=True, kw_only=True):
    """Which validation gave the best weights."""

    figure: str = "psnr"
    """Any figure of validation, as it is logged without `held_out/`: `cross/pose_mesh` is of two people."""
    highest: bool = True
    """False: the lowest is the best."""

    def is_better(self, value: float, than: float) -> bool:
        return value > than if self.highest else value < than


class WeightsSource(NamedTuple):
    """Where weights that a phase starts from come from: a phase or a released file, and a part of it."""

    phase: str | None
    released: str | None
    part: str | None
    """None = the part of the same name."""
    model: str | None = None
    """The model of the run whose phase it is; None = the phase's own."""

    @classmethod
    def parse(cls, text: str, all_parts: bool = False) -> WeightsSource:
        """ "phase", "phase.part", "model.phase.part", "weights.<id>" or "weights.<id>.<part>". all_parts: the
        source of all parts names none, so that two names are "model.phase"."""
        if text.startswith(RELEASED_PREFIX):
            name, _, part = text.removeprefix(RELEASED_PREFIX).partition(".")
            return cls(None, name, part or None)
        first, *others = text.split(".", 2)
        if len(others) == 2 or (others and all_parts):
            return cls(others[0], None, others[1] if len(others) == 2 else None, first)
        return cls(first, None, others[0] if others and others[0] else None)

    @property
    def name(self) -> str:
        if self.released is not None:
            return f"{RELEASED_PREFIX}{self.released}"
        return f"{self.model}.{self.phase}" if self.model else f"{self.phase}"

    @property
    def setting_text(self) -> str:
        """As settings have it."""
        return f"{self.name}.{self.part}" if self.part else self.name


class Phase(Struct, frozen=True, kw_only=True):
    """One stretch of training: a node of the graph, `train.<model>.<name>`."""

    as_before: ClassVar[Mapping[str, object]] = {"seed": None, "validation_cross_samples": 8}
    # pairs are only looked at, unless `best` follows a figure of theirs, which nothing did before

    name: str
    init: str | dict[str, str | None] | None = None
    """What the weights begin with: "phase", or "weights.<id>", a released file that was imported (`reenact
    weights`), or "model.phase", that of another model of the run, for all parts that it brings; or by part,
    {part: "phase" | "phase.part" | "model.phase.part" | "weights.<id>"}. `generator_ema` is the running mean
    of `generator`, as a source and as what a running mean begins with. None = PyTorch's initial values."""
    resume_optimizers: bool = False
    """Go on with the optimizer states of the phases it starts from too, as one training that was not cut."""
    steps: int
    """Training steps. May be raised later: training then continues."""
    batch: int
    """Samples per step, over all workers."""
    chunk: int | None = None
    """Samples per forward pass, None = the whole batch. Batch statistics (FSRT's covariance, BatchNorm) are
    taken over a chunk, so it changes results; the number of workers does not (but the running statistics of
    a BatchNorm that learns are those of the first worker's chunks). Chunks are dealt out evenly to the
    workers."""
    optimizers: dict[str, Optimizer]
    updates: dict[str, Update | None]
    """By name, in the order in which they are computed and move; null drops one. The first is what
    `loss/total`, `gradient_norm` and `learning_rate` are logged of."""
    frames_from: str = "clips"
    """The family whose frames the clips show: `clips`, or `views.NAME` of an instance of views."""
    uses: dict[str, str] = field(default_factory=dict)
    """Name -> what the task is handed frozen under that name (`Task.use`): "phase", the checkpoint of an
    earlier phase, "model.phase", that of another model of the run, or "weights.<id>", a released file."""
    ema: dict[str, EmaSettings | None] = field(default_factory=dict)
    """Part -> its running mean, used by validation and inference, and published beside the part."""
    validate_every: int = 500
    """Steps between validations. The best weights are chosen among these steps alone, so that they depend on
    nothing but the phase; the last step is validated too, but not chosen."""
    validation_samples: int = 16
    """Fixed samples of held-out clips that a validation looks at."""
    validation_cross_samples: int = 8
    """Fixed pairs of clips of two people that it looks at besides, if the task can show them; 0 = none."""
    best: BestCriterion | None = field(default_factory=BestCriterion)
    """None = no best weights are kept."""
    seed: int | None = None
    """Of this phase's initial weights, samples and noise; None = the model's."""

    def __post_init__(self) -> None:
        try:
            self._check_sizes()
            self._check_updates()
            self._check_start()
        except ValueError as error:
            raise ValueError(f"phase {self.name}: {error}") from None

    def _check_sizes(self) -> None:
        _steps("", steps=(self.steps, 1), batch=(self.batch, 1), validate_every=(self.validate_every, 1),
               validation_samples=(self.validation_samples, 1),
               validation_cross_samples=(self.validation_cross_samples, 0))  # fmt: skip
        if self.frames_from != "clips" and self.frames_from.removeprefix("views.") in ("", self.frames_from):
            raise ValueError(f"frames_from {self.frames_from!r}: expected clips, or views. and a view's name")
        if self.batch % self.samples_per_chunk:
            raise ValueError(f"chunk {self.chunk} does not divide batch {self.batch}")

    def _check_updates(self) -> None:
        updates = self.active_updates
        if not updates:
            raise ValueError("updates is empty; name at least one")
        for name, update in updates.items():
            if not update.learning_rate_scales:
                raise ValueError(f"update {name} learns no part; name at least one in updates.{name}.parts")
            if update.optimizer not in self.optimizers:
                raise ValueError(
                    f"update {name} moves optimizer {update.optimizer!r}; optimizers has "
                    f"{', '.join(self.optimizers)}"
                )
            if not any(loss.weight > 0 for loss in update.computed_losses.values()):
                raise ValueError(f"update {name} has no loss with a weight above 0")
            last = self.optimizers[update.optimizer].schedule.last_nonzero_rate_step
            if last is not None and self.steps > last:
                raise ValueError(
                    f"{self.steps} steps, but the rate of optimizer {update.optimizer} is 0 after "
                    f"step {last}; raise its schedule.linear_decay_steps or constant_steps, or lower steps"
                )
        self._check_owners(updates)

    def _check_owners(self, updates: Mapping[str, Update]) -> None:
        """Each part learns on one optimizer, at one rate, and from one pass at a time."""
        first: dict[str, str] = {}
        shared: dict[str, str] = {}
        for name, update in updates.items():
            for part, scale in update.learning_rate_scales.items():
                other = first.setdefault(part, name)
                if updates[other].optimizer != update.optimizer:
                    raise ValueError(
                        f"part {part} learns in update {other} on optimizer {updates[other].optimizer} and "
                        f"in update {name} on {update.optimizer}; expected one optimizer for each part"
                    )
                if updates[other].learning_rate_scales[part] != scale:
                    raise ValueError(
                        f"part {part} has rate factor {updates[other].learning_rate_scales[part]} in update "
                        f"{other} and "
                        f"{scale} in update {name}; expected one"
                    )
                if not update.own_forward and shared.setdefault(part, name) != name:
                    raise ValueError(
                        f"part {part} learns in updates {shared[part]} and {name} from one pass; join their "
                        f"losses, or set updates.{name}.own_forward"
                    )
        if unknown := sorted({part for part, ema in self.ema.items() if ema} - set(first)):
            raise ValueError(f"ema of {unknown}, which no update learns; the updates learn {sorted(first)}")

    def _check_start(self) -> None:
        for name, source in self.used_checkpoints.items():
            if source.part:
                raise ValueError(
                    f"uses.{name} {self.uses[name]!r}: expected a phase, model.phase or weights.<id>, of "
                    "which the task takes the parts that it needs"
                )
        if "" in self.init_sources and (part := self.init_sources[""].part):
            raise ValueError(
                f"init {self.init!r} names a part, but no part that begins with it; write "
                f"init: {{{part}: {self.init}}}"
            )
        own = [source for source in self.init_sources.values() if source.phase and not source.model]
        if self.resume_optimizers and not own:
            raise ValueError(f"resume_optimizers needs a phase to start from, found init {self.init}")

    @property
    def active_updates(self) -> dict[str, Update]:
        """Those that the run file does not drop."""
        return {name: update for name, update in self.updates.items() if update is not None}

    @property
    def trainable_parts(self) -> tuple[str, ...]:
        """Parts of the net that learn, those of the first update first."""
        return tuple(
            dict.fromkeys(part for one in self.active_updates.values() for part in one.learning_rate_scales)
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Every term that is computed, over all updates, and its weight."""
        terms = [item for one in self.active_updates.values() for item in one.computed_losses.items()]
        return {name: max(loss.weight for other, loss in terms if other == name) for name, _ in terms}

    @property
    def init_sources(self) -> dict[str, WeightsSource]:
        """Part -> where it comes from; under "" the source of all parts that it brings."""
        table = {"": self.init} if isinstance(self.init, str) else self.init or {}
        return {part: WeightsSource.parse(text, all_parts=not part) for part, text in table.items() if text}

    @property
    def used_checkpoints(self) -> dict[str, WeightsSource]:
        """Name -> the checkpoint that the task is handed under it."""
        return {name: WeightsSource.parse(text, all_parts=True) for name, text in self.uses.items()}

    @property
    def required_phases(self) -> tuple[str, ...]:
        """Phases of the model whose checkpoints it reads: to start from, and to use."""
        sources = (*self.init_sources.values(), *self.used_checkpoints.values())
        return tuple(dict.fromkeys(one.phase for one in sources if one.phase and not one.model))

    @property
    def other_model_checkpoints(self) -> dict[str, WeightsSource]:
        """Role of an input -> the checkpoint of another model that it reads in it."""
        roles = {checkpoint_role("init", part): source for part, source in self.init_sources.items()}
        roles |= {checkpoint_role("uses", name): source for name, source in self.used_checkpoints.items()}
        return {role: source for role, source in roles.items() if source.model}

    @property
    def required_weights(self) -> tuple[str, ...]:
        """Ids of the released weights it reads: to start from, and to use."""
        ids = (source.released for source in (*self.init_sources.values(), *self.used_checkpoints.values()))
        return tuple(dict.fromkeys(name for name in ids if name))

    @property
    def ema_parts(self) -> dict[str, EmaSettings]:
        return {part: ema for part, ema in self.ema.items() if ema is not None}

    @property
    def samples_per_chunk(self) -> int:
        return self.chunk or self.batch


def checkpoint_role(setting: Literal["init", "uses"], name: str) -> str:
    """Role of the input that is another model's checkpoint. name: the part, or that of the use."""
    return f"{setting}.{name}"


class ReleasedWeightsInit(Struct, frozen=True):
    """How a phase starts from released weights: `Phase.init: weights.<id>` names one of the model's."""

    reader: str
    """"module:function" of ({weights id: safetensors as imported}, the model's settings, the phase) ->
    tensors by our names, and their provenance."""
    files: tuple[str, ...]
    """Ids in the weights registry."""
    parts: tuple[str, ...]
    """Of the net, that these files are sure to hold."""


def _steps(where: str, **values: tuple[float | None, int]) -> None:
    """Each is None or a whole number of steps, at least so many."""
    for name, (value, least) in values.items():
        if value is None:
            continue
        text = f"{where}.{name} {value}" if where else f"{name} {value}"
        if value != int(value):
            raise ValueError(
                f"{text}: expected a whole number of steps, not a share of a budget that may grow"
            )
        if value < least:
            raise ValueError(f"{text}: expected {least} or more")
