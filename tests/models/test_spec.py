"""What a model's spec may leave out, and what is refused with a word on where to add it."""

import subprocess
import sys
from types import ModuleType

import pytest
from msgspec import Struct, field

from models import MODELS
from models.api import Loss, Phase, ReleasedWeightsInit
from models.errors import InvalidSettings
from models.spec import FamilyFields, ModelNodeSpec, ModelSpec, TaskSpec, load_model_spec
from pipelines.engine.fingerprint import resolve_entry_point
from tests.models.one_pass import one_update

PHASES = {name: one_update(name, losses={"l1": Loss(1.0)}) for name in ("audio", "image")}


class ToyConfig(Struct, frozen=True):
    phases: dict[str, Phase | None] = field(default_factory=lambda: dict(PHASES))
    width: int = 8
    seed: int = 0
    precision: str = "fp32"


def toy(**changes) -> ModelSpec:
    """A model of two phases: one listens, one looks."""
    task = TaskSpec(task="models.toy.task:ToyTask", settings=("width", "seed", "precision"))
    values = {
        "name": "toy",
        "config": ToyConfig,
        "phases": PHASES,
        "tasks": dict.fromkeys(PHASES, task),
        "parts": lambda config, phase: ("net",),
        "reads": lambda config, phase: (
            {"speech": ("speech",)} if phase.name == "audio" else {"clips": ("frames",)}
        ),
        "nets": lambda config, phase: (),
        "inference": "models.toy.inference:load",
        "inference_nets": lambda config: (),
        "driving_reads": lambda config: {"speech": ("speech",)},
    }
    return ModelSpec(**values | changes)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_spec_whose_texts_lead_to_code(model):
    found = load_model_spec(model)
    for entry in (found.inference, *(task.task for task in found.tasks.values())):
        assert callable(resolve_entry_point(entry))
    found.check_driving_reads_trained(found.config())


@pytest.mark.parametrize("model", MODELS)
def test_a_spec_imports_neither_torch_nor_numpy(model):
    program = (
        f"import sys; from models.spec import load_model_spec; load_model_spec({model!r})\n"
        "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {}}, r"SPEC of model 'toy' .*: phase 'audio' has no task; add one to tasks"),
        (
            {"phases": {"image": PHASES["image"]}},
            r"tasks has 'audio', which is no phase; known: image",
        ),
        (
            {"checkpoints": {"renderer": "C2"}},
            r"takes 'renderer' from 'C2', which is no phase; known: audio, im",
        ),
        ({"inference": "models.toy.inference"}, r"found 'models.toy.inference'; expected \"module:symbol\""),
        (
            {"released": {"toy_vox": ReleasedWeightsInit("a:b", ("toy_vox",), ("net", "flow"))}},
            r"'toy_vox' hold flow, which the net of no phase has; parts gives net",
        ),
        (
            {"tasks": dict.fromkeys(PHASES, TaskSpec(task="a:b", settings=("net.size",)))},
            r"task of phase 'audio' depends on 'net.size', but ToyConfig has no such setting",
        ),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(InvalidSettings, match=message):
        toy(**changes)


def test_a_model_is_driven_with_what_its_phases_read():
    toy().check_driving_reads_trained(ToyConfig())
    deaf = toy(driving_reads=lambda config: {"speech": ("speech", "pitch")})
    with pytest.raises(InvalidSettings, match=r"driving_reads names pitch of speech, which no phase reads"):
        deaf.check_driving_reads_trained(ToyConfig())


def test_the_checkpoint_of_a_model_is_that_of_the_last_phase_of_the_run():
    dropped = ToyConfig(phases={"audio": PHASES["audio"], "image": None})
    assert toy().phases_by_checkpoint_role(ToyConfig()) == {"renderer": "image"}
    assert toy().phases_by_checkpoint_role(dropped) == {"renderer": "audio"}


def test_a_model_of_several_checkpoints_says_which_phase_trains_each():
    both = toy(checkpoints={"audio": "audio", "renderer": "image"})
    assert both.phases_by_checkpoint_role(ToyConfig()) == {"audio": "audio", "renderer": "image"}
    dropped = ToyConfig(phases={"audio": None, "image": PHASES["image"]})
    with pytest.raises(
        InvalidSettings, match=r"leaves out audio, whose checkpoint is the audio of toy; keep it"
    ):
        both.phases_by_checkpoint_role(dropped)


def test_a_run_without_any_phase_of_a_model_is_refused():
    with pytest.raises(InvalidSettings, match=r"toy.phases: the run leaves out every phase"):
        toy().phases_by_checkpoint_role(ToyConfig(phases=dict.fromkeys(PHASES)))


BOTH = {"clips": ("frames",), "codes": ("codes",)}


def tables_of(tables: dict[str, tuple[str, ...]], reads: FamilyFields = BOTH) -> dict[str, FamilyFields]:
    task = TaskSpec(task="models.toy.task:ToyTask", settings=("seed", "precision"), tables=tables)
    made = toy(tasks=dict.fromkeys(PHASES, task), reads=lambda config, phase: reads)
    return made.phase_sample_tables(ToyConfig(), PHASES["image"])


def test_families_are_joined_in_the_table_of_clips_unless_the_task_wants_another():
    assert tables_of({}) == {"clips": BOTH}
    assert tables_of({"codes": ("codes",)}) == {
        "clips": {"clips": ("frames",)}, "codes": {"codes": ("codes",)},
    }  # fmt: skip
    assert tables_of({"all": tuple(BOTH)}) == {"all": BOTH}


def test_a_phase_that_reads_nothing_has_no_table():
    assert tables_of({}, {}) == {}


def test_a_table_of_what_no_phase_reads_is_refused():
    with pytest.raises(InvalidSettings, match=r"'image' name code, which no phase reads; read are clips, co"):
        tables_of({"codes": ("code",)})


def test_two_values_of_one_name_in_a_table_are_refused():
    frames = {"clips": ("frames",), "views.vox512": ("frames",)}
    with pytest.raises(InvalidSettings, match=r"reads frames of several of clips, views.vox512, which tab"):
        tables_of({}, frames)
    assert set(tables_of({"large": ("views.vox512",)}, frames)) == {"clips", "large"}


def test_a_node_of_the_models_own_is_made_of_what_it_reads():
    code = ModelNodeSpec(run="a:b", reads={"keypoints": ("landmarks",)}, writes=("codes",))
    tuned = ModelNodeSpec(run="a:b", reads={"code": ("codes",), "clips": ("frames",)}, writes=("codes",))
    made = toy(nodes=lambda config: {"code": code, "tuned": tuned})
    assert made.required_families(ToyConfig(), ["speech"]) == ("speech",)
    assert set(made.required_families(ToyConfig(), ["tuned"])) == {"tuned", "code", "keypoints", "clips"}


# --- loading ------------------------------------------------------------------------------------------------
def listed(monkeypatch, module: str, **symbols) -> None:
    """MODELS with a line for toy, and the module it names."""
    monkeypatch.setitem(MODELS, "toy", f"{module}:SPEC")
    made = ModuleType(module)
    vars(made).update(symbols)
    monkeypatch.setitem(sys.modules, module, made)


def test_a_line_in_models_adds_a_model(monkeypatch):
    listed(monkeypatch, "toy_spec", SPEC=toy())
    assert load_model_spec("toy").config is ToyConfig


def test_an_unknown_model_is_told_where_models_are_listed():
    with pytest.raises(InvalidSettings, match=r"no model 'toy'; known: fsrt, headgan.* a line in MODELS"):
        load_model_spec("toy")


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ({}, r"model 'toy': toy_spec has no SPEC; add a ModelSpec of that name"),
        ({"SPEC": {}}, r"toy_spec:SPEC is 'dict'; expected ModelSpec\(name='toy'"),
        ({"SPEC": toy(name="other")}, r"toy_spec:SPEC is 'other'; expected ModelSpec\(name='toy'"),
    ],
)
def test_a_module_without_a_spec_of_the_model_is_refused(monkeypatch, symbols, message):
    listed(monkeypatch, "toy_spec", **symbols)
    with pytest.raises(InvalidSettings, match=message):
        load_model_spec("toy")


def test_a_missing_module_is_named(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", "models.toy.spec:SPEC")
    with pytest.raises(
        InvalidSettings, match=r"model 'toy': no module models.toy; add it, with the value SPEC"
    ):
        load_model_spec("toy")


def test_a_missing_field_is_named(monkeypatch, tmp_path):
    (tmp_path / "half_spec.py").write_text(
        "from models.spec import ModelSpec, TaskSpec\n"
        "SPEC = ModelSpec(name='toy', config=object, phases={}, tasks={})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODELS, "toy", "half_spec:SPEC")
    with pytest.raises(
        InvalidSettings, match=r"half_spec:SPEC: Missing .* 'parts'; models/spec.py says what each"
    ):
        load_model_spec("toy")
