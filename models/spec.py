"""What a model tells the pipeline of itself: the value `SPEC` in models/<name>/spec.py, listed in MODELS.

The graph, training, evaluation, `reenact animate` and `reenact weights` read the spec of a model and nothing
else of its folder. Code is named as "module:symbol" text: a spec loads neither torch nor a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Literal

from msgspec import Struct, field

from models import MODELS
from models.api import Phase, ReleasedWeightsInit
from models.errors import InvalidSettings
from models.model_config import ModelConfig

FamilyFields = Mapping[str, tuple[str, ...]]
"""Family -> the fields read from it (storage/shards.py)."""
LAST_PHASE = ""
"""In `ModelSpec.checkpoints`: the last phase that the run trains."""
RECORDINGS_TABLE = "recordings"
"""The table whose rows are the units of the families of a corpus, and of a node that names no other."""


class SeedTable(Struct, frozen=True, kw_only=True):
    """A table of units without clips: blocks of the seeds 0, 1, 2, ... of random numbers.

    A row has `first` and `count`: the first seed of a block, and how many. A node of this table yields a
    sample for each seed, under a key of its own such as "seed-000000123", which is then a row of the tables
    that tasks sample from. A tenth of the blocks, at least one of two, is held out for validation, by hash of
    the block. With more blocks only the new ones are computed, with blocks of another size all are.
    """

    blocks: str
    """Path of a setting in the model's config: how many blocks. It belongs to no settings of a node, which
    would compute all blocks again when there are more of them."""
    block_size: str
    """Path of a setting: seeds in a block. The samples of a block are one shard, and computed by one
    worker."""


class ClipPairTable(Struct, frozen=True, kw_only=True):
    """A table of units that are pairs of clips of the training corpus: a source and a driving clip of two
    people of one split, drawn by hash of (seed, clip), so that one more clip changes at most two pairs of
    each round.

    A row has `source_clip` and `driving_clip` (keys in table "clips"), `source_recording`,
    `driving_recording` and `recordings`, these two. A task that samples from the table reads them of its
    rows; a node of this table is given the row, and of the families that it reads the samples of these
    recordings.
    """

    seed: str
    """Path of a setting in the model's config. It draws the pairs."""
    rounds: str
    """Path of a setting: in each round a clip is the source of at most one pair, and drives at most one."""
    families: tuple[str, ...] = ("clips",)
    """Only clips that all of these have are paired."""


UnitTable = SeedTable | ClipPairTable


class TaskSpec(Struct, frozen=True, kw_only=True):
    """What computes the losses of a phase."""

    task: str
    """"module:class" of a `models.task.Task`."""
    settings: tuple[str, ...]
    """Paths in the model's config, such as "net.detector". The class is built from their values, each under
    the last part of its path, but for `seed` and `precision`, which the loop takes. All are in the phase's
    key."""
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tables that the task samples from besides "clips": name -> the families of `ModelSpec.reads` that are
    joined in it, by key, where the phase reads them. All other families are joined in "clips". A table of
    nothing is not there."""
    packages: tuple[str, ...] = ("torch",)
    """Third-party packages that the task computes with."""
    figures: tuple[str, ...] | None = None
    """What validation can say that only the task knows: `ValidationOutput.scores` and
    `Task.validation_metrics`, of any settings. `best` of a phase may name these and those of pictures. None =
    not told: that there is no such figure is then found at the first validation."""
    renders: bool = True
    """Whether validation has pictures (`ValidationOutput.output`), and so their figures, PSNR among them."""


class PreprocessingNet(Struct, frozen=True, kw_only=True):
    """A frozen net of preprocessing by which the training frames of a model are cut or their crops placed."""

    setting: str
    """Stage and setting that name it: "keypoints.landmarker", of the instance that the model reads, or
    "clips.detector"."""
    published: str
    """The net of the paper's authors."""
    only_where: tuple[str, str] | None = None
    """A setting and its value, where the net has this part only then."""


class CheckpointUse(Struct, frozen=True):
    """What a keyed node computes with: checkpoints of phases of the same model, loaded once in each
    worker."""

    loader: str
    """"module:function" of ({role: Path of model.safetensors}) -> object."""
    phases: Mapping[str, str]
    """Role, as the loader knows it -> phase."""


class ModelNodeSpec(Struct, frozen=True, kw_only=True):
    """A node of a model's own, `<name>.<model>`: a family that it computes from others with what its phases
    have learnt, such as a latent code of each clip, or with nothing but random numbers."""

    run: str
    """"module:function" of (inputs, config, nets, runtime) -> samples of one unit, as a stage of
    preprocessing. `inputs`: by role, the unit's samples, or [its row] of a table; `nets`: by name, those of
    `nets` and `uses`; `config`: the model's section, of which only `settings` can be read."""
    units: str = RECORDINGS_TABLE
    """The table whose rows are its units: the recordings of a corpus, or one of `ModelSpec.unit_tables`."""
    reads: FamilyFields
    """Of families with the same units, and under the name of its table the columns of its row. A node of
    pairs reads families of the corpus too."""
    writes: tuple[str, ...]
    """Fields of its samples (storage/shards.py)."""
    uses: Mapping[str, CheckpointUse] = field(default_factory=dict)
    """Name among the nets -> the checkpoints that it is loaded from."""
    settings: tuple[str, ...] = ()
    """Paths in the model's config, such as "net.size"; in the node's key."""
    nets: tuple[str, ...] = ()
    """Names in models.perception.NETS."""
    packages: tuple[str, ...] = ("torch",)
    """Third-party packages that its result depends on."""
    splits: tuple[str, ...] = ()
    """Only units of these splits, train or test; empty = all."""
    pack: Literal["bucket", "unit"] = "bucket"
    """unit: each is published as soon as it is computed, where one takes minutes, as tuning a net to a source
    does."""


class ModelSpec(Struct, frozen=True, kw_only=True):
    """All that the pipeline knows of a model. `config` in a signature is an instance of the field
    `config`."""

    name: str
    """As in MODELS."""
    config: type[ModelConfig]
    """Dataclass of the model's section in a run file. All of it has defaults."""
    phases: Mapping[str, Phase]
    """By name, in order of training: the default of `config.phases`."""
    tasks: Mapping[str, TaskSpec]
    """What computes the losses of each phase."""
    parts: Callable[[Any, Phase], tuple[str, ...]]
    """(config, phase) -> the parts of the net that the phase's task builds, and so what its checkpoint
    holds."""
    reads: Callable[[Any, Phase], FamilyFields]
    """(config, phase) -> the families and fields that this phase reads, and no others."""
    nodes: Callable[[Any], Mapping[str, ModelNodeSpec]] = lambda _: {}
    """config -> keyed nodes of its own by name, which phases, driving and later ones of them read as families
    of that name; those that nothing reads are not computed."""
    unit_tables: Mapping[str, UnitTable] = field(default_factory=dict)
    """Tables of units other than recordings, by the name that `ModelNodeSpec.units` and `reads` know."""
    frame_sides: Callable[[Any, Phase], Mapping[int, str]] = lambda *_: {}
    """(config, phase) -> sides in pixels, with what becomes of clips whose frames show fewer pixels of their
    recording: "pictures are enlarged". The run counts them; the phase reads `clip` of the clips for it."""
    nets: Callable[[Any, Phase], tuple[str, ...]] = lambda *_: ()
    """(config, phase) -> names in models.perception.NETS of the nets that the phase's losses use."""
    targets: Callable[[Any, Phase], tuple[Literal["keypoints"], ...]] = lambda *_: ()
    """(config, phase) -> families whose values the phase's losses take for the truth: a metric by the net
    that made them does not judge the model independently, and the report says so."""
    preprocessing_nets: Mapping[str, PreprocessingNet] = field(default_factory=dict)
    """By the part of a checkpoint's provenance that names it, where it is not the published one."""
    net_settings: tuple[str, ...] = ()
    """Paths in the config that `nets` depends on besides; in the key of phases that have nets."""
    extra_sections: Callable[[Any], tuple[str, ...]] = lambda _: ()
    """config -> sections of the run, such as "speech", whose settings the tasks are built from too."""
    checkpoint_record: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {}
    """{stage: settings} of `recorded_stages` -> what a checkpoint's metadata says of them, by stage:
    `animate` prepares what drives the model with that, whatever the run says."""
    recorded_stages: tuple[str, ...] = ()
    """Of `extra_sections`: those of which a checkpoint keeps a record."""
    checkpoint_choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Setting of the config, which a checkpoint's metadata holds by the same name -> the values that
    `animate --set <model>.<setting>=<value>` may give it instead: names in models.perception.NETS."""
    released: Mapping[str, ReleasedWeightsInit] = field(default_factory=dict)
    """Weights by the id that `Phase.init: weights.<id>` and `animate --weights <id>` name."""
    inference: str
    """"module:class" of a `models.reenactor.Reenactor`, which `models.loading.load_reenactor` loads."""
    inference_nets: Callable[[Any], tuple[str, ...]] = lambda _: ()
    """config -> names in models.perception.NETS of the nets that the reenactor uses."""
    driving_reads: Callable[[Any], FamilyFields]
    """config -> the families and fields that the reenactor reads of a clip that drives it."""
    driven_by: Callable[[Any], tuple[Literal["frames", "sound"], ...]] = lambda _: ("frames",)
    """config -> what it is given of what it is to do: who hears alone is no rival of who sees."""
    checkpoints: Mapping[str, str] = field(default_factory=lambda: {"renderer": LAST_PHASE})
    """Role of a checkpoint in inference -> the phase that trains it, or LAST."""
    max_sources: int | None = None
    """Most source pictures that the reenactor takes; None = any number."""
    check: Callable[[Any, Mapping[str, Any]], None] = lambda *_: None
    """(config, {stage: the settings of the stage that it reads}) raises InvalidSettings where they do not fit
    together."""

    def __post_init__(self) -> None:
        for phase in self.phases:
            if phase not in self.tasks:
                raise self._error(f"phase {phase!r} has no task; add one to tasks")
        for phase in self.tasks:
            if phase not in self.phases:
                raise self._error(f"tasks has {phase!r}, which is no phase; known: {', '.join(self.phases)}")
        for role, phase in self.checkpoints.items():
            if phase not in (LAST_PHASE, *self.phases):
                known = ", ".join(self.phases)
                raise self._error(
                    f"checkpoints takes {role!r} from {phase!r}, which is no phase; known: {known}"
                )
        for entry in (self.inference, *(task.task for task in self.tasks.values())):
            if not all(entry.partition(":")):
                raise self._error(f'found {entry!r}; expected "module:symbol"')
        for name, table in self.unit_tables.items():
            for path in unit_table_setting_paths(table).values():
                if not _has(self.config(), path):
                    known = f"{self.config.__name__} has no such setting"
                    raise self._error(f"unit_tables.{name} depends on {path!r}, but {known}")
        if self.phases:
            self._check_parts(self.config())

    def _check_parts(self, default: Any) -> None:
        """By default settings, for others may leave parts out."""
        for name, task in self.tasks.items():
            for path in task.settings:
                if not _has(default, path):
                    known = f"{self.config.__name__} has no such setting"
                    raise self._error(f"the task of phase {name!r} depends on {path!r}, but {known}")
        built = {part for phase in self.phases.values() for part in self.parts(default, phase)}
        for weights, files in self.released.items():
            if unknown := sorted(set(files.parts) - built):
                raise self._error(
                    f"released weights {weights!r} hold {', '.join(unknown)}, which the net of no phase has; "
                    f"parts gives {', '.join(sorted(built))}"
                )

    def check_driving_reads_trained(self, config: Any) -> None:
        """Raises InvalidSettings where the model is driven with what it was never trained on. One that learns
        from random numbers may be driven with anything, and so may any with what its own nodes compute of
        clips."""
        for family in self.driving_reads(config):
            if (units := self.family_unit_table_name(config, family)) != RECORDINGS_TABLE:
                raise self._error(
                    f"driving_reads names {family}, whose units are those of {units}; a model is driven with "
                    "families of clips"
                )
        phases = [config.phases.get(name) or default for name, default in self.phases.items()]
        reads = [self.reads(config, phase) for phase in phases]
        if not all(reads):
            return
        own = self.nodes(config)
        for family, fields in self.driving_reads(config).items():
            read = {field for one in reads for field in one.get(family, ())}
            if family == "clips" and any("frames" in one.get(phase.frames_from, ())
                                         for phase, one in zip(phases, reads, strict=True)):  # fmt: skip
                read.add("frames")  # a view shows those of the clips, cut in another way
            if family not in own and reads and (unread := sorted(set(fields) - read)):
                raise self._error(
                    f"driving_reads names {', '.join(unread)} of {family}, which no phase reads; add them to "
                    "reads, or leave them out"
                )

    def phase_sample_tables(self, config: Any, phase: Phase) -> dict[str, FamilyFields]:
        """The tables of a phase, as its task samples from them -> the families that are joined in each.
        Raises InvalidSettings for a table of what no phase reads, or of two values by one name."""
        reads, named = self.reads(config, phase), self.tasks[phase.name].tables
        families = [family for some in named.values() for family in some]
        known = {family for one in self.phases.values() for family in self.reads(config, one)} | set(reads)
        if unread := sorted(set(families) - known):
            raise self._error(
                f"tables of the task of phase {phase.name!r} name {', '.join(unread)}, which no phase reads; "
                f"read are {', '.join(sorted(known)) or 'none'}"
            )
        tables = {"clips": tuple(family for family in reads if family not in families)} | {
            name: tuple(family for family in some if family in reads) for name, some in named.items()
        }
        for name, some in tables.items():
            fields = [field for family in some for field in reads[family]]
            if twice := sorted({field for field in fields if fields.count(field) > 1}):
                raise self._error(
                    f"phase {phase.name!r} reads {', '.join(twice)} of several of {', '.join(some)}, which "
                    f"table {name} joins; read it of one of them, or put them into two tables"
                )
        return {name: {family: reads[family] for family in some} for name, some in tables.items() if some}

    def units_of_phase_tables(self, config: ModelConfig, phase: Phase) -> dict[str, str]:
        """The tables of a phase, as its task samples from them -> the table of units whose rows they have.
        Raises InvalidSettings where families of other units are joined in one."""
        found: dict[str, str] = {}
        for name, reads in self.phase_sample_tables(config, phase).items():
            units = {family: self.family_unit_table_name(config, family) for family in reads}
            if len(set(units.values())) > 1:
                several = ", ".join(f"{family} (of {of})" for family, of in units.items())
                raise self._error(
                    f"the task of phase {phase.name!r} joins families of several units in table {name}: "
                    f"{several}; name those of each in a table of its own, in TaskSpec.tables"
                )
            found[name] = next(iter(units.values()))
        return found

    def required_families(self, config: Any, reads: Iterable[str]) -> tuple[str, ...]:
        """These families, and those that the model's own nodes among them are made from."""
        found, own = dict.fromkeys(self._with_tables(reads)), self.nodes(config)
        for name in reversed(list(own)):  # a node reads those before it
            if name in found:
                units = own[name].units
                of_node = (*own[name].reads, *([units] if units in self.unit_tables else []))
                found |= dict.fromkeys(self._with_tables(of_node))
        return tuple(found)

    def _with_tables(self, roles: Iterable[str]) -> Iterator[str]:
        """With what tables of units among them are made from."""
        for role in roles:
            yield role
            table = self.unit_tables.get(role)
            if isinstance(table, ClipPairTable):
                yield from table.families

    def family_unit_table_name(self, config: ModelConfig, family: str) -> str:
        """The table whose rows are the units of a family, or that it is itself."""
        if family in self.unit_tables:
            return family
        node = self.nodes(config).get(family)
        return node.units if node is not None else RECORDINGS_TABLE

    def check_node_units(self, config: ModelConfig) -> None:
        """Raises InvalidSettings where a node has units that there are not, or reads what its units do not
        lead to."""
        own = self.nodes(config)
        if both := sorted(own.keys() & self.unit_tables.keys()):
            raise self._error(f"{both[0]!r} is the name of a node and of a table of units; rename one")
        for name, node in own.items():
            if node.units not in (RECORDINGS_TABLE, *self.unit_tables):
                known = ", ".join((RECORDINGS_TABLE, *self.unit_tables))
                raise self._error(
                    f"the units of node {name!r} are {node.units!r}, which is no table; known: {known}. Add "
                    "it to unit_tables"
                )
            if not set(node.splits) <= {"train", "test"}:
                found = ", ".join(node.splits)
                raise self._error(f"node {name!r} is of the splits {found}; expected train, test or both")
            self._check_node(
                name, node, {family: self.family_unit_table_name(config, family) for family in node.reads}
            )
        for name, table in self.unit_tables.items():
            for family in table.families if isinstance(table, ClipPairTable) else ():
                if self.family_unit_table_name(config, family) != RECORDINGS_TABLE:
                    raise self._error(f"unit_tables.{name}.families names {family}, which has no clips")

    def _check_node(self, name: str, node: ModelNodeSpec, units: Mapping[str, str]) -> None:
        """units: family that it reads -> the table of its units."""
        table = self.unit_tables.get(node.units)
        for family, of in units.items():
            of_clips = isinstance(table, ClipPairTable) and of == RECORDINGS_TABLE != family
            if of != node.units and not of_clips:
                raise self._error(
                    f"node {name!r} has the units of {node.units} and reads {family}, whose units are those "
                    f"of {of}; leave it out, or let the node have those units"
                )
        if node.units not in units.values():
            raise self._error(
                f"node {name!r} reads nothing of its own units; add {node.units} to its reads, with the "
                "columns that it needs"
            )
        if isinstance(table, SeedTable):
            for path in node.settings:
                if f"{table.blocks}.".startswith(f"{path}."):
                    raise self._error(
                        f"node {name!r} depends on {path}, and so on {table.blocks}, how many blocks it has: "
                        "with more, all would be computed again; name the other settings one by one"
                    )

    def phases_by_checkpoint_role(self, config: Any) -> dict[str, str]:
        """Role of a checkpoint -> the phase of this run that trains it. Raises InvalidSettings without
        one."""
        run = [name for name, phase in config.phases.items() if phase is not None]
        found = {role: phase or (run[-1] if run else "") for role, phase in self.checkpoints.items()}
        for role, phase in found.items():
            if phase not in run:
                raise InvalidSettings(
                    f"{self.name}.phases: the run leaves out {phase or 'every phase'}, whose checkpoint is "
                    f"the {role} of {self.name}; keep it, or take {self.name} out of models"
                )
        return found

    def _error(self, what: str) -> InvalidSettings:
        return InvalidSettings(
            f"SPEC of model {self.name!r} ({MODELS.get(self.name, 'not in MODELS')}): {what}"
        )


def load_model_spec(name: str) -> ModelSpec:
    """The spec of a model by its name in MODELS. Raises InvalidSettings, which says where it is missing."""
    if name not in MODELS:
        raise InvalidSettings(
            f"no model {name!r}; known: {', '.join(MODELS)}. To add one: a line in MODELS, models/__init__.py"
        )
    module, _, symbol = MODELS[name].partition(":")
    try:
        spec = getattr(import_module(module), symbol)
    except TypeError as error:
        if not str(error).startswith(("Missing required argument", "Unexpected keyword argument")):
            raise
        raise InvalidSettings(
            f"model {name!r}: {MODELS[name]}: {error}; models/spec.py says what each is"
        ) from None
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise InvalidSettings(
            f"model {name!r}: no module {error.name}; add it, with the value {symbol}"
        ) from None
    except AttributeError:
        raise InvalidSettings(
            f"model {name!r}: {module} has no {symbol}; add a ModelSpec of that name"
        ) from None
    if not isinstance(spec, ModelSpec) or spec.name != name:
        found = spec.name if isinstance(spec, ModelSpec) else type(spec).__name__
        raise InvalidSettings(
            f"model {name!r}: {MODELS[name]} is {found!r}; expected ModelSpec(name={name!r}, ...)"
        )
    return spec


def units_table_role(table: str) -> str:
    """Of a table that a task samples from: in what role its phase reads the table of its units, unless these
    are recordings."""
    return f"units.{table}"


def unit_table_setting_paths(table: UnitTable) -> dict[str, str]:
    """What a table of units is made by -> the path of its setting in the model's config."""
    if isinstance(table, SeedTable):
        return {"blocks": table.blocks, "block_size": table.block_size}
    return {"seed": table.seed, "rounds": table.rounds}


def _has(config: Any, path: str) -> bool:
    for part in path.split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True
