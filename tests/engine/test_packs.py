"""Building one pack: samples leave as they come, inputs arrive as they are asked for."""

import pytest

from models.errors import InvalidSettings
from pipelines.engine import packs
from pipelines.engine.packs import LazySamples, PackJob, UnitJob, build_pack
from pipelines.errors import CodeError, Rejected, Transient, format_traceback
from storage.errors import StoreError
from storage.families import read_pack_record, read_sample
from storage.files import Store
from storage.shards import SampleRecord


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "RETRY_DELAYS", (0.0, 0.0))
    return Store(str(tmp_path / "store"))


def build(store, stage, *units, key="k", run="r"):
    jobs = tuple(UnitJob(unit, f"key-{unit}", {"listing": {"id": unit}}, {}) for unit in units)
    return build_pack(PackJob("node", "node", key, jobs, run=run), stage, store)


def two_clips(inputs):
    (row,) = inputs["listing"]
    for i in range(2):
        yield {"__key__": f"{row['id']}-{i}", "clip": {"n": i}}


def test_a_stage_may_yield_its_samples(store):
    build(store, two_clips, "a", "b")
    units = read_pack_record(store, "node", "k")
    assert [s.key for unit in units for s in unit.samples] == ["a-0", "a-1", "b-0", "b-1"]
    assert read_sample(store, "node", "k", units[0].samples[1])["clip"] == {"n": 1}


def test_a_sample_is_written_before_the_next_is_made(store, monkeypatch):
    made = []

    def stage(inputs):
        for sample in two_clips(inputs):
            made.append(sample["__key__"])
            yield sample

    written = []
    add = packs.shards.ShardWriter.add

    def noted(self, sample):
        written.append(list(made))
        return add(self, sample)

    monkeypatch.setattr(packs.shards.ShardWriter, "add", noted)
    build(store, stage, "a")
    assert written == [["a-0"], ["a-0", "a-1"]]


def test_a_unit_rejected_half_way_leaves_nothing_behind(store):
    def stage(inputs):
        for sample in two_clips(inputs):
            yield sample
            if sample["__key__"] == "bad-0":
                raise Rejected("broken", "it breaks after one clip")

    result = build(store, stage, "a", "bad", "c")
    assert [(row.unit, row.status, row.clips) for row in result.rows] == [
        ("a", "ok", 2), ("bad", "rejected", 0), ("c", "ok", 2),
    ]  # fmt: skip
    build(store, two_clips, "a", "c", key="without")
    shard, without = (store.read(f"packs/node/{key}.tar") for key in ("k", "without"))
    assert shard == without


def test_what_failed_half_way_is_tried_again_from_its_start(store):
    tries = []

    def stage(inputs):
        tries.append(1)
        yield from two_clips(inputs)
        if len(tries) < 3:
            raise Transient("the line went")

    build(store, stage, "a")
    assert len(tries) == 3
    assert [s.key for s in read_pack_record(store, "node", "k")[0].samples] == ["a-0", "a-1"]


def test_a_unit_that_keeps_failing_is_no_answer_and_publishes_nothing(store):
    def stage(inputs):
        yield from two_clips(inputs)
        raise Transient("the line went")

    result = build(store, stage, "a")
    assert "unit a: the line went" in result.failure
    assert result.rows == ()
    assert not store.exists("packs/node/k.tar")


def test_what_cannot_be_had_soon_is_left_to_a_later_run(store):
    tries = []

    def stage(inputs):
        tries.append(1)
        raise Transient("the host is closed for an hour", soon=False)
        yield

    assert "closed for an hour" in build(store, stage, "a").failure
    assert len(tries) == 1


def test_a_full_disk_stops_everything(store):
    def stage(inputs):
        raise StoreError("the disk is full")
        yield

    with pytest.raises(StoreError, match=r"^node: unit a: the disk is full$"):
        build(store, stage, "a")


@pytest.mark.parametrize("error", [ConnectionResetError("a bug"), ValueError("a bug"), RuntimeError("a bug")])
def test_no_builtin_class_is_taken_for_trouble_that_passes(store, error):
    tries = []

    def stage(inputs):
        tries.append(1)
        raise error
        yield

    with pytest.raises(CodeError, match=f"unit a: {type(error).__name__}: a bug") as failed:
        build(store, stage, "a")
    assert len(tries) == 1
    assert "in stage\n    raise error" in format_traceback(failed.value)


def test_a_users_mistake_in_a_unit_stays_one_and_names_the_unit(store):
    def stage(inputs):
        raise InvalidSettings("layer 99: this net has 12")
        yield

    with pytest.raises(InvalidSettings, match=r"^node: unit a: layer 99: this net has 12$"):
        build(store, stage, "a")


def test_a_fault_after_a_yield_is_still_a_fault_of_the_code(store):
    def stage(inputs):
        yield from two_clips(inputs)
        raise KeyError("a bug")

    with pytest.raises(CodeError, match="unit a: KeyError"):
        build(store, stage, "a")


def test_samples_are_read_when_asked_for_and_one_ahead(store, monkeypatch):
    read = []
    monkeypatch.setattr(packs, "read_sample", lambda *args: read.append(args[3].key) or args[3].key)
    samples = LazySamples(store, "n", [("p", SampleRecord(str(i), "", (), ())) for i in range(5)], ())
    assert samples.keys == ["0", "1", "2", "3", "4"]
    assert len(samples) == 5
    assert read == []
    assert samples[3] == "3"
    walk = iter(samples)
    assert next(walk) == "0"
    assert len(read) <= 3
    assert list(walk) == ["1", "2", "3", "4"]


def test_one_drivers_start_is_not_anothers_crash_and_its_end_leaves_the_others_record(store):
    kept = []

    def stage(inputs):
        kept.append(sorted(entry.name for entry in store.walk("attempts")))
        if len(kept) == 1:
            build(store, stage, "a", key="k2", run="second")  # meanwhile, in another driver
        kept.append(sorted(entry.name for entry in store.walk("attempts")))
        yield from two_clips(inputs)

    build(store, stage, "a", run="first")
    first, second = (f"attempts/node/key-a@{run}" for run in ("first", "second"))
    assert kept == [[first], [first, second], [first, second], [first]]
    assert store.walk("attempts") == []


class Cluster:
    """Machines of which some are gone; `here` is the one that works at present."""

    def __init__(self, here: str, gone: tuple[str, ...] = ()):
        self.here, self.gone = here, gone

    def is_alive(self, machine: str) -> bool:
        return machine not in self.gone


class PowerCut(BaseException):
    """Stands for a process that ends in the middle of a unit."""


@pytest.mark.parametrize(
    ("gone", "status"),
    [((), "rejected"), (("m1",), "ok"), (("m1", "m2"), "ok")],
    ids=["both live on", "one is lost", "both are lost"],
)
def test_a_machine_that_dies_under_a_unit_does_not_count_against_it(store, gone, status):
    def dying(inputs):
        raise PowerCut
        yield

    unit = UnitJob("a", "key-a", {"listing": {"id": "a"}}, {})
    job = PackJob("node", "node", "k", (unit,), run="r")
    for machine in ("m1", "m2"):
        with pytest.raises(PowerCut):
            build_pack(job, dying, store, Cluster(machine))  # pyright: ignore
    result = build_pack(job, two_clips, store, Cluster("m3", gone))  # pyright: ignore
    assert [row.status for row in result.rows] == [status]
