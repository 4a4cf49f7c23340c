"""A file of timed characters, from whatever recogniser the user runs: what was said when in each recording.

JSON, recording id -> [[character, seconds], ...]: each character's start, counted from the recording's first
frame; it holds until the next one starts. a to z count as they are, a space or anything else as no letter.

    {"id0001-abc": [["h", 0.52], ["e", 0.58], ["y", 0.64], [" ", 0.71]]}
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from functools import lru_cache
from typing import TypeGuard

from models.perception.speech.headgan_audio import CharacterOnset
from pipelines.errors import UserError
from pipelines.preprocess.sources.common.files import find_metadata_file

TRANSCRIPTS_SETTING = "speech.NAME.transcripts"


def read_character_onsets(path: str, recording: str, start: float, seconds: float) -> list[CharacterOnset]:
    """What is said in `seconds` of a recording from `start` on, in its own time; the character that holds at
    the start comes first. A recording that the file does not name says nothing.
    """
    tokens = read_transcripts(path).get(recording, [])
    first = bisect_left([at for _, at in tokens], start)
    holds = max(0, first - 1)
    return [CharacterOnset(character, at - start) for character, at in tokens[holds:] if at < start + seconds]


@lru_cache(maxsize=2)
def read_transcripts(path: str) -> dict[str, list[tuple[str, float]]]:
    """Recording id -> characters and their seconds, in order of time. Raises UserError that says where the
    file is not as the head of this module describes it.
    """
    try:
        data = json.loads(find_metadata_file(path, TRANSCRIPTS_SETTING).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{TRANSCRIPTS_SETTING} {path!r} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise UserError(
            f"{TRANSCRIPTS_SETTING} {path!r}: found {type(data).__name__}, expected recording id -> tokens"
        )
    return {recording: _check_tokens(path, recording, tokens) for recording, tokens in data.items()}


def _check_tokens(path: str, recording: str, tokens: object) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for place, token in enumerate(tokens if isinstance(tokens, list) else [tokens]):
        if not _is_token(token) or (found and token[1] < found[-1][1]):
            raise UserError(
                f"{TRANSCRIPTS_SETTING} {path!r}: {recording}, token {place} is {json.dumps(token)[:60]}; "
                "expected "
                "[one character, seconds], in order of time"
            )
        found.append((token[0], float(token[1])))
    return found


def _is_token(token: object) -> TypeGuard[tuple[str, float]]:
    return (
        isinstance(token, list)
        and len(token) == 2
        and isinstance(token[0], str)
        and len(token[0]) == 1
        and isinstance(token[1], int | float)
        and not isinstance(token[1], bool)
        and math.isfinite(token[1])
    )
