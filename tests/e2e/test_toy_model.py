"""A model is added as README says ("To add"), and runs from videos to the report.

The toy (tests/e2e/toy) learns by three updates, of which one regularises every fourth step; a keyed node of
its own computes a code of each clip with the checkpoint of the first phase; the second phase trains on those.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Checkout

TOY = Path(__file__).with_name("toy")
RUN = "configs/run/toy.yaml"
LISTED = ("models/__init__.py", '= {"fsrt"', '= {"toy": "models.toy.spec:SPEC", "fsrt"')
SMALL = (
    "data.main.synthetic.identities=3", "data.main.synthetic.test_identities=1",
    "data.main.synthetic.seconds=1.6", "data.main.clips_per_shard=1", "clips.min_frames=25", "clips.size=128",
    "clips.margin=0.15", "clips.lift=0.05", "clips.iou=0.15", "runtime.log_every=1",
    "runtime.train_cpus=1", "runtime.train_workers=0", "runtime.workers=1",
    "runtime.max_rejected=0.4", "report.videos=0",
)  # fmt: skip


def files(root: Path) -> dict[str, bytes]:
    names = (p for top in ("pipelines", "models", "storage", "configs") for p in (root / top).rglob("*"))
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in names
        if p.is_file() and "__pycache__" not in p.parts
    }


def command(checkout: Checkout, name: str, *sets: str) -> str:
    done = checkout.call(name, RUN, *(word for text in (*SMALL, *sets) for word in ("--set", text)))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def states(checkout: Checkout, *sets: str) -> dict[str, str]:
    rows = (line.split() for line in command(checkout, "plan", *sets).splitlines()[1:])
    return {row[0]: row[1] for row in rows if len(row) > 1 and row[1] in ("cached", "stale", "pending")}


@pytest.fixture(scope="module")
def toy(micro, tmp_path_factory) -> Checkout:
    """A checkout with the toy, after a run of it on the clips of the micro run."""
    mine = Checkout(tmp_path_factory.mktemp("toy"))
    shutil.copytree(micro.store, mine.store, copy_function=shutil.copy2)
    mine.own_source()
    shutil.copytree(TOY, mine.source / "models/toy", ignore=shutil.ignore_patterns("*.yaml", "__pycache__"))
    shutil.copy(TOY / "toy.yaml", mine.source / RUN)
    mine.edit(*LISTED)
    (mine.home / "out.txt").write_text(command(mine, "run"))
    return mine


def test_the_toy_takes_fewer_than_150_lines_one_of_them_in_models(toy):
    before, after = files(ROOT), files(toy.source)
    assert {name for name in before if before[name] != after.get(name)} == {"models/__init__.py"}
    added = [name for name in after if name not in before]
    assert all(name.startswith("models/toy/") or name == RUN for name in added)
    assert sum(len(after[name].splitlines()) for name in added) + 1 < 150


def test_readme_names_every_file_of_a_model():
    recipe = re.search(r"- \*\*a model\*\*:.*?(?=\n- \*\*)", (ROOT / "README.md").read_text(), re.S)
    assert recipe is not None
    assert [p.stem for p in TOY.glob("*.py") if f"`{p.stem}`" not in recipe[0]] == []


def test_the_clips_of_another_run_are_not_computed_again(toy, micro):
    for node in ("download", "clips"):
        there, before = (
            {path.name for path in (one.store / "packs" / node).glob("*.tar")} for one in (toy, micro)
        )
        assert there == before


def test_the_report_has_a_column_for_the_toy_by_its_own_protocol(toy):
    out = (toy.home / "out.txt").read_text()
    assert re.search(r"^metric +toy \(ours\) +copy-source +codec$", out, re.M)
    pages = sorted(toy.store.glob("whole/report/*/report.html"), key=lambda path: path.stat().st_mtime)
    page = pages[-1].read_text()
    assert re.search(r"<t[dh][^>]*>toy\b", page)
    assert "16 px" in page


def test_the_regulariser_moves_at_every_fourth_step(toy):
    log = next(toy.store.glob("whole/train.toy.images/*/metrics.jsonl")).read_text().splitlines()
    regularised = [line["step"] for line in map(json.loads, log) if "gradient_norm/r1" in line]
    assert regularised == [4, 8]


def test_the_second_phase_learns_from_the_codes_of_the_first_ones_net(toy):
    log = next(toy.store.glob("whole/train.toy.codes/*/metrics.jsonl")).read_text().splitlines()
    assert [line["step"] for line in map(json.loads, log) if "loss/code" in line] == [1, 2, 3, 4]
    rate = "toy.phases.{}.optimizers.g.lr=0.02"
    assert states(toy, rate.format("codes"))["invert.toy"] == "cached"
    changed = states(toy, rate.format("images"))
    assert (changed["train.toy.images"], changed["invert.toy"]) == ("stale", "pending")
    assert changed["clips"] == "cached"
