"""Which ffmpeg is used, by what it can do."""

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.errors import UserError
from pipelines.media import ffmpeg_tool
from tests.media.stand_ins import DECODERS, REAL, answers

LACKING = {
    "an old release": (answers("4.2.2-static"), "is ffmpeg 4.2.2-static, expected 5.1 or newer"),
    "an old release with an epoch": (answers("7:4.4.2-0ubuntu0.22.04.1"), "expected 5.1 or newer"),
    "no zscale": (
        answers(filters=[f for f in ffmpeg_tool.REQUIRED_FFMPEG_FILTERS if f != "zscale"]),
        "(ffmpeg 7.1.1) lacks filter zscale",
    ),
    "no patented decoders": (
        answers(decoders=DECODERS.replace(" h264 ", " libopenh264 ").replace(" hevc ", " x ")),
        "(ffmpeg 7.1.1) lacks decoder h264, decoder hevc",
    ),
    "an old build of no number": (
        answers("N-90000-gabc", else_="echo \"Unrecognized option 'fps_mode'.\" >&2; exit 1"),
        "(ffmpeg N-90000-gabc) does not know -fps_mode: Unrecognized option 'fps_mode'.",
    ),
    "another architecture": ("\x7fELF nothing", "does not run (Exec format error)"),
    "a program that ends at once": ("#!/bin/sh\nexit 127\n", "does not run (it states no version)"),
    "garbage": ("#!/bin/sh\nhead -c 500 /dev/urandom\n", "does not run (it states no version)"),
}


@pytest.mark.parametrize(("script", "says"), LACKING.values(), ids=LACKING)
def test_the_packaged_ffmpeg_takes_the_place_of_one_that_lacks_something(put_on_path, script, says):
    path = put_on_path(script)
    found = ffmpeg_tool.find_ffmpeg()
    assert found.path == REAL
    assert found.instead.startswith(f"{path} ")
    assert says in found.instead
    assert found.instead.endswith(": the ffmpeg of imageio-ffmpeg is used instead")
    assert "\n" not in found.instead


def test_an_ffmpeg_that_hangs_is_left_alone(put_on_path, monkeypatch):
    monkeypatch.setattr(ffmpeg_tool, "FFMPEG_CHECK_TIMEOUT", 0.2)
    path = put_on_path("#!/bin/sh\nexec sleep 60\n")
    assert ffmpeg_tool.inspect_ffmpeg(path) == ("", "does not run (no answer to -filters in 0.2 s)")


@pytest.mark.parametrize(
    "version", ["5.1", "n7.1-2-gabc", "6.1.1-3ubuntu5", "N-118000-gabc", "2026-01-04-git-3b9d4b1"]
)
def test_an_able_ffmpeg_on_path_is_used(put_on_path, version):
    path = put_on_path(answers(version))
    found = ffmpeg_tool.find_ffmpeg()
    assert (found.path, found.instead) == (path, "")
    assert found.version == f"ffmpeg version {version} Copyright"


def test_with_none_on_path_the_packaged_one_is_used_without_a_word(tmp_path, monkeypatch, put_on_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    ffmpeg_tool.find_ffmpeg.cache_clear()
    assert (ffmpeg_tool.find_ffmpeg().path, ffmpeg_tool.find_ffmpeg().instead) == (REAL, "")


def test_a_package_that_brings_none_does_not_stand_in_with_the_one_on_path(put_on_path, monkeypatch):
    path = put_on_path(answers(decoders=DECODERS.replace(" h264 ", " x ")))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "ffmpeg")  # what it finds then
    with pytest.raises(UserError, match=rf"{path} \(ffmpeg 7\.1\.1\) lacks decoder h264; install"):
        ffmpeg_tool.find_ffmpeg()


def test_where_all_lack_something_each_is_named(put_on_path, monkeypatch):
    path = put_on_path(answers("4.4"))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(UserError) as caught:
        ffmpeg_tool.find_ffmpeg()
    assert str(caught.value) == (
        f"no ffmpeg that can be used: {path} is ffmpeg 4.4, expected 5.1 or newer; "
        "/nowhere/ffmpeg does not run (No such file or directory); "
        "install a full build of ffmpeg 5.1 or newer"
    )


def test_plan_says_which_ffmpeg_is_used_in_one_line(put_on_path, tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    put_on_path(answers("4.2.2"))
    done = CliRunner().invoke(main, ["plan", "configs/run/demo.yaml"])
    assert done.exit_code == 0, done.output
    assert done.output.count("is used instead") == 1


def test_plan_ends_with_one_line_where_no_ffmpeg_can_be_used(put_on_path, tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", put_on_path(answers("4.2.2")))
    done = CliRunner().invoke(main, ["plan", "configs/run/demo.yaml"])
    assert done.exit_code == 2
    assert done.output.startswith("error: no ffmpeg that can be used: ")
    assert done.output.count("\n") == 1


def test_an_able_tool_is_asked_once_until_its_file_changes(put_on_path, tmp_path):
    log = tmp_path / "asked"

    def version(of: str) -> str:
        put_on_path(answers(of).replace("#!/bin/sh", f"#!/bin/sh\necho asked >> {log}"))
        return ffmpeg_tool.find_ffmpeg().version

    assert version("7.1") == "ffmpeg version 7.1 Copyright"
    ffmpeg_tool.find_ffmpeg.cache_clear()
    log.unlink()
    assert ffmpeg_tool.find_ffmpeg().version == "ffmpeg version 7.1 Copyright"
    assert not log.exists()
    assert version("7.1.1") == "ffmpeg version 7.1.1 Copyright"
