"""Fetching a recording's bytes: from mirrors, by http(s), by yt-dlp, in a declared order of preference.

`fetch.fetch_recording` is what a stage calls. What is requested comes from keyed settings
(`download.make_download_request`); here is only how it is transferred, so none of this is part of a key.
"""
