"""Whose fault it is that ffmpeg fails: the file's, the tool's, the machine's or our command's."""

import ffmpeg
import numpy as np
import pytest

from pipelines import media
from pipelines.errors import Rejected, Transient, UserError, error_meaning
from pipelines.media import ffmpeg_failure
from tests.media.stand_ins import REAL, answers


@pytest.fixture
def sick(tmp_path, helpers):
    """A healthy video, by the name that stand-ins fail on."""
    return helpers.write_video(tmp_path / "sick.mp4", np.full((10, 48, 64, 3), 90, np.uint8))


def only_sick(then):
    """A tool that fails in this way on one file, and reads all others."""
    return answers(else_=f'case "$*" in *sick.mp4*) {then} ;; *) exec "{REAL}" "$@" ;; esac')


def raised(path):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        media.read_frames(path, {"width": 64, "height": 48, "seconds": 1.0, "frames": 10}, (64, 48))
    return caught.value


def test_a_file_that_fails_where_a_healthy_one_does_not_is_rejected(tmp_path):
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    error = raised(tmp_path / "a.mp4")
    assert isinstance(error, Rejected)
    assert error.code == "undecodable"
    assert str(tmp_path) not in error.sentence


def test_a_file_that_is_gone_is_no_answer(tmp_path):
    error = raised(tmp_path / "none.mp4")
    assert isinstance(error, Transient)
    assert str(error) == "the recording cannot be read: No such file or directory"


@pytest.mark.parametrize("then", ["kill -9 $$", "kill -15 $$", "exit 137", "exit 143",
                                  "echo Exiting normally, received signal 15. >&2; exit 255"])  # fmt: skip
def test_a_tool_that_was_stopped_from_outside_is_no_answer(put_on_path, sick, then):
    put_on_path(only_sick(then))
    assert isinstance(raised(sick), Transient)


@pytest.mark.parametrize("then", ["exit 1", "kill -SEGV $$"])
def test_a_tool_that_ends_on_one_file_alone_rejects_it(put_on_path, sick, then):
    put_on_path(only_sick(then))
    error = raised(sick)
    assert isinstance(error, Rejected)
    assert error.code == "undecodable"


@pytest.mark.parametrize("then", ["exit 1", "kill -ILL $$", "echo Unrecognized option >&2; exit 8"])
def test_a_tool_that_fails_on_every_file_is_the_users(put_on_path, sick, then):
    path = put_on_path(answers(else_=then))
    error = raised(sick)
    assert isinstance(error, UserError)
    assert str(error).startswith(f"{path} fails on a healthy file")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "line",
    [
        "[dec:x] Decoding requested, but no decoder found for: cinepak",
        "Decoder (codec cinepak) not found for x",
    ],
)
def test_a_decoder_that_only_this_tool_lacks_is_the_users(put_on_path, sick, line):
    put_on_path(only_sick(f"echo '{line}' >&2; exit 8"))
    error = raised(sick)
    assert isinstance(error, UserError)
    assert "lacks a decoder for cinepak" in str(error)


def test_a_codec_that_nothing_here_decodes_is_the_files(put_on_path, sick):
    put_on_path(only_sick("echo 'Decoding requested, but no decoder found for: none' >&2; exit 8"))
    assert isinstance(raised(sick), Rejected)


@pytest.mark.parametrize(("has", "kind"), [(2**20, Rejected), (2**62, Transient)])
def test_out_of_memory_is_the_files_only_where_there_is_memory(put_on_path, sick, monkeypatch, has, kind):
    put_on_path(only_sick("echo 'Error: Cannot allocate memory' >&2; exit 244"))
    monkeypatch.setattr(ffmpeg_failure, "MEMORY_PROBE_BYTES", has)
    assert isinstance(raised(sick), kind)


def test_a_command_that_no_ffmpeg_takes_is_a_fault_of_the_code(sick):
    wrong = ffmpeg.output(ffmpeg.input(str(sick))["v:0"].filter("no_such"), "pipe:", format="rawvideo")
    with pytest.raises(RuntimeError, match="fails on a healthy file") as caught:
        media.run_ffmpeg(wrong, timeout=20)
    assert error_meaning(caught.value) == "fault"


def test_a_tool_that_is_gone_when_it_is_started_is_no_answer(put_on_path, sick):
    from pathlib import Path

    path = put_on_path(answers())
    assert media.ffmpeg_path() == path
    Path(path).unlink()
    error = raised(sick)
    assert isinstance(error, Transient)
    assert str(error) == "ffmpeg cannot be started: No such file or directory"


def test_a_tool_that_logs_no_times_that_are_understood_is_the_users(put_on_path, sick):
    put_on_path(answers(else_=f'exec "{REAL}" "$@" 2>/dev/null'))
    error = raised(sick)
    assert isinstance(error, UserError)
    assert "logs the times of frames in a way that is not known" in str(error)


def test_the_trial_takes_any_stream_of_a_file_and_any_span(tmp_path, helpers):
    """A stream by its number, sought to an hour, cut and resampled: what fails is the file."""
    probed = {"width": 1280, "height": 720, "seconds": 7200.0, "frames": 9, "video_index": 5,
              "start": 1.4, "interlaced": True,
              "transfer": "arib-std-b67", "audio_rate": 48_000, "audio_index": 3}  # fmt: skip
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(Rejected):
        media.read_frames(tmp_path / "a.mp4", probed, (64, 48), (101, 33, 700, 630), (3600, 3610))
    with pytest.raises(Rejected):
        media.map_frame_batches(tmp_path / "a.mp4", probed, (64, 48), 5, list, span=(3600, 3610), change=10)
    with pytest.raises(Rejected):
        media.read_sound(tmp_path / "a.mp4", probed, 90_000, 90_100)


def test_a_trial_reads_a_healthy_file_from_its_start_whatever_was_asked_for(sick):
    """Without a seek, what lies before a span is cut by a filter."""
    from pipelines.media.decoding import _ffmpeg_output

    output = _ffmpeg_output(sick, media.probe_file(sick), (32, 32), None, (300.0, 301.0), 1, seek=False)
    done = ffmpeg_failure.run_on_known_good_file(media.FfmpegOutputPipe(output, 60).command)
    assert sum(" n:" in line for line in done.log) == 4
