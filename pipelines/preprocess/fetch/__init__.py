"""Bringing a recording's bytes here: mirrors, plain http(s), yt-dlp, in a declared order of preference.

`obtain.obtain` is what a stage calls. Nothing here decides what is asked for (that is `download.Wanted`, made
from keyed settings), only how it travels; so none of it is part of a key.
"""
