"""`reenact plan`: what a run would be refused for is said beforehand."""

from pathlib import Path

from click.testing import CliRunner

from pipelines.cli.main import main

DEMO = Path(__file__).parents[2] / "configs/run/demo.yaml"


def test_weights_that_a_run_will_be_refused_for_are_told_by_plan(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    done = CliRunner().invoke(main, ["plan", str(DEMO), "--set", "fsrt.perceptual_net=vgg19"])
    assert done.exit_code == 0
    assert "a run will not start: weights vgg19 (perceptual losses) are missing: get vgg19-" in done.stderr
    assert "a run will not start" not in CliRunner().invoke(main, ["plan", str(DEMO)]).stderr
