"""What may be logged: values as text, within MLflow's limits and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

MAX_PARAM_LENGTH, MAX_TAG_LENGTH = 6000, 8000  # characters; MLflow cuts longer ones with a warning

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")


def redact_uris(text: str) -> str:
    """Text whose URIs have lost user, password, query and fragment: those may be secrets."""

    def strip(match: re.Match[str]) -> str:
        parts = urlsplit(match[0])
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    return _URI.sub(strip, text)


def redact_tree(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(k): redact_tree(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_tree(v) for v in value]
    return redact_uris(value) if isinstance(value, str) else value


def flatten_params(tree: object, prefix: str = "") -> dict[str, str]:
    """Nested mappings -> dotted path: text, fit for parameters. Lists are one value, as JSON."""
    if isinstance(tree, Mapping) and (tree or not prefix):
        return {
            k: v
            for name, part in tree.items()
            for k, v in flatten_params(part, f"{prefix}.{name}".lstrip(".")).items()
        }
    text = tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False, default=str)
    return {mlflow_name(prefix): truncate_text(redact_uris(text), MAX_PARAM_LENGTH)}


def mlflow_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_\-. /:]", "_", text)[:250]


def truncate_text(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def tag_texts(tags: Mapping[str, object]) -> dict[str, str]:
    return {
        mlflow_name(name): truncate_text(str(value), MAX_TAG_LENGTH)
        for name, value in tags.items()
        if value != ""
    }


def to_yaml(tree: object) -> str:
    import yaml

    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
