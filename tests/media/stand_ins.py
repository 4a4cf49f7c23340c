"""Stand-ins for the ffmpeg on PATH: real processes that answer as old, small or broken builds do."""

import imageio_ffmpeg

from pipelines.media import ffmpeg_tool

REAL = imageio_ffmpeg.get_ffmpeg_exe()
DECODERS = "\n".join(f" V....D {name}   a decoder" for name in ffmpeg_tool.REQUIRED_FFMPEG_DECODERS)


def answers(
    version="7.1.1",
    filters=ffmpeg_tool.REQUIRED_FFMPEG_FILTERS,
    decoders=DECODERS,
    else_=f'exec "{REAL}" "$@"',
):
    """A script that says so of itself, and otherwise does what `else_` says."""
    listed = "\n".join(f" ... {name}   V->V   a filter" for name in filters)
    return f"""#!/bin/sh
case "$1" in
-filters) echo 'ffmpeg version {version} Copyright' >&2; echo 'Filters:\n{listed}' ;;
-decoders) echo 'Decoders:\n{decoders}' ;;
*) {else_} ;;
esac
"""
