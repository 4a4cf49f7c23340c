"""URIs of stores and servers: joined, printed, and rejected where they hold a password.

A URI is printed, written into the ledger and handed to other machines as part of a job's environment, so
credentials come from the environment or from a file instead.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

from storage.errors import InvalidInput

_SECRET = re.compile(r"pass|pwd|secret|token|credential|signature|(^|[^a-z])(sig|sas|auth)$|key$")
"""Names of query parameters whose values are credentials."""
_USER_IS_SECRET = ("s3", "http", "https")
"""Elsewhere a name alone is none: abfs://container@account, hdfs://user@host, postgresql://user@host."""
_INSTEAD = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, which names a file",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, which names a file",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    "abfss": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    "http": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "https": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "postgresql": "PGPASSWORD, or the file ~/.pgpass",
    "mysql": "the file that ?read_default_file= names",
}


_HOME = re.compile(r"((?:sqlite|file):/*)?(~[^/]*)(/.*)?", re.DOTALL)


def expand_home(path: str) -> str:
    """A path or URI in which a leading ~ or ~NAME is that user's home: shells expand it neither behind a "="
    nor in a file. InvalidInput where there is no such home; a name that begins so is written ./~NAME."""
    if not (found := _HOME.fullmatch(path)):
        return path
    scheme, name, rest = found[1], found[2], found[3] or ""
    home = os.path.expanduser(name)
    if home == name:
        raise InvalidInput(f"{path}: no home folder is known for {name}; write ./{path} for a name with ~")
    if not scheme:
        return home + rest
    return f"{'sqlite:///' if scheme.startswith('sqlite') else 'file://'}{quote(home)}{rest}"


ExpandedPath = Annotated[str, "~ expanded"]
"""Type of a setting that is a path, or may be one: ~ is expanded when a configuration is loaded."""


def absolute_uri(uri: str) -> str:
    """A store's folder as an absolute path, ~ expanded; a URI as it is."""
    uri = expand_home(uri)
    return uri if "://" in uri else os.path.abspath(uri)


def format_store_option(uri: str) -> str:
    """What a printed command needs in order to find this store, quoted for a shell; "" where it is the one
    that commands take anyway. A store's URI holds nothing secret (`reject_credentials`); what its query says
    is needed to find it."""
    if uri == absolute_uri(os.environ.get("REENACT_STORE") or ".reenact/store"):
        return ""
    near = uri.removeprefix(os.path.abspath("") + os.sep)
    return f" --store {shlex.quote(uri if near.startswith(('~', '-')) else near)}"


def reject_credentials(uri: str, name: str) -> None:
    """Refuse a URI that holds credentials; `name` is what the message calls it, which repeats no part of the
    URI but its scheme. A path of this machine passes."""
    if "://" not in uri:
        return
    scheme = uri.partition("://")[0].lower()
    instead = _INSTEAD.get(scheme.partition("+")[0], "the environment or a file that its library reads")
    advice = f"remove it; credentials come from {instead}"
    try:
        parts = urlsplit(uri)
        port, user, password = parts.port, parts.username, parts.password
    except ValueError:
        # a password with a "/" in it ends the host for a parser, and reads as its port
        raise InvalidInput(f"{name}: not a {scheme}:// URI, or a password stands in it: {advice}") from None
    if password is not None or (user is not None and scheme in _USER_IS_SECRET):
        raise InvalidInput(f"{name}: the {scheme}:// URI holds a user name or password; {advice}")
    if port is not None and "@" in parts.path:
        raise InvalidInput(f"{name}: the {scheme}:// URI seems to hold a password before its @; {advice}")
    for field, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET.search(field.lower()):
            raise InvalidInput(f"{name}: the {scheme}:// URI holds {field} in its query; {advice}")
    if parts.fragment:
        raise InvalidInput(f"{name}: the {scheme}:// URI holds a '#', which means nothing here; write it %23")


def join_uri(uri: str, path: str) -> str:
    """The URI of a path below another: a query such as ?endpoint_override=... stays at the end."""
    base, mark, query = uri.partition("?")
    return f"{base.rstrip('/')}/{quote(path)}{mark}{query}"


def public_uri(uri: str) -> str:
    """The URI without what may be secret: user, password, query."""
    if "://" not in uri:
        return uri
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if not parts.scheme or (port is not None and "@" in parts.path):  # a password with a "/" in it
        return f"{uri.partition('://')[0]}://..."
    return f"{parts.scheme}://{parts.hostname or ''}{f':{port}' if port else ''}{parts.path}"
