"""What a shard holds, as text and as fields to draw. Any tar on this machine.

A shard is read here as anybody would: members in order, `{key}.{field}.{ext}`, without its index. Fields that
other families hold of the same clip come from shards named with --with, or from the store the shard lies in.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UserError

CONTACT_SHEET_FIELDS = (
    "frames", "frame_at", "affine", "sound", "clip", "crop", "boxes", "landmarks", "iris", "face_box",
    "id_coeffs", "exp_coeffs", "scale", "rotation", "translation", "fit_error",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TarMember:
    key: str
    field: str
    extension: str
    offset: int
    size: int


def list_members(path: Path) -> Iterator[TarMember]:
    """A shard's members in order. ValueError for what is no shard; faults inside are the validator's."""
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                key, _, rest = info.name.partition(".")
                field, _, extension = rest.partition(".")
                yield TarMember(key, field, extension, info.offset_data, info.size)
    except tarfile.TarError as error:
        validate = f"reenact shards validate {shlex.quote(str(path))}"
        raise UserError(f"{path} cannot be read as a tar: {error}; `{validate}`") from None


def read_member(path: Path, member: TarMember) -> bytes:
    with path.open("rb") as stream:
        stream.seek(member.offset)
        return stream.read(member.size)


def group_members_by_sample(path: Path) -> dict[str, list[TarMember]]:
    """Key -> members, in order."""
    found: dict[str, list[TarMember]] = {}
    for member in list_members(path):
        found.setdefault(member.key, []).append(member)
    return found


# --- text ---------------------------------------------------------------------------------------------------
def describe_shard(path: Path, key: str | None) -> Iterator[str]:
    """Every sample as a line, and the fields of the one named, else of the first."""
    found = group_members_by_sample(path)
    detailed = resolve_sample_key(path, found, key)
    yield f"{path.name}: {len(found):,} samples, {format_size(path.stat().st_size)}"
    for one, held in found.items():
        if key is None or one == key:
            total = sum(m.size for m in held)
            yield f"  {one}  {format_size(total)}  {', '.join(m.field for m in held)}"
    if detailed is not None:
        yield f"\n{detailed}"
        for member in found[detailed]:
            text = describe_member(path, member)
            yield f"  {member.field:<12} {member.extension:<5} {format_size(member.size):>9}  {text}"


def resolve_sample_key(path: Path, found: dict[str, list[TarMember]], key: str | None) -> str | None:
    if key is not None and key not in found:
        raise UserError(f"{path.name} has no sample {key!r}; it has {', '.join(list(found)[:3])}, ...")
    return key if key is not None else next(iter(found), None)


def format_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def describe_member(path: Path, member: TarMember) -> str:
    """Type, shape and range of a field; of text, the values."""
    from storage import frame_codec, shards

    if member.field not in shards.FIELD_EXTENSIONS:
        return "a field this version does not know"
    if shards.is_large_field(member.field):
        return "a video file"
    data = read_member(path, member)
    if member.field == "frames":
        count = len(frame_codec.frame_byte_offsets(member.extension, data)) - 1
        return describe_array(frame_codec.decode_frames(member.extension, data, [0])).replace(
            "(1,", f"({count},"
        )
    value = shards.decode_field(member.field, data, member.extension)
    if not isinstance(value, dict):
        return describe_array(value)
    return ", ".join(
        f"{name} {describe_array(inner) if hasattr(inner, 'dtype') else repr(inner)}"
        for name, inner in value.items()
    )


def describe_array(array: np.ndarray) -> str:
    shape = ",".join(map(str, array.shape))
    text = f"{array.dtype} ({shape}{',' if array.ndim == 1 else ''})"
    if array.dtype.kind not in "fiu" or array.dtype == np.uint8 or not array.size:
        return text
    missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
    if missing == array.size:
        return f"{text}, all NaN"
    return f"{text}, {np.nanmin(array):.4g} to {np.nanmax(array):.4g}" + (
        f", {missing:,} NaN" if missing else ""
    )


# --- fields of one clip, wherever they are ------------------------------------------------------------------
def read_contact_sheet_fields(path: Path, key: str, others: Sequence[Path]) -> dict[str, Any]:
    """The fields that a sheet draws, decoded: of the shard itself, of the others, of its store."""
    found: dict[str, Any] = {"__key__": key}
    for shard in (path, *others):
        _take(found, shard, key)
    for shard in _beside(path, key):
        _take(found, shard, key)
    return found


def _take(found: dict[str, Any], shard: Path, key: str) -> None:
    """Add a shard's fields of this sample that are not there yet; of frames, those that are drawn. A view's
    own `frame_at` and `affine` go with its frames only."""
    from pipelines.shards.contact_sheet import sheet_frames
    from storage import frame_codec, shards

    others = {"frame_at", "affine"} if "frames" in found else set()

    for member in list_members(shard):
        if (
            member.key != key
            or member.field not in CONTACT_SHEET_FIELDS
            or member.field in found.keys() | others
        ):
            continue
        data = read_member(shard, member)
        if member.field == "frames":
            found["count"] = len(frame_codec.frame_byte_offsets(member.extension, data)) - 1
            found["indices"] = sheet_frames(found["count"])
            found["frames"] = frame_codec.decode_frames(member.extension, data, found["indices"].tolist())
        else:
            found[member.field] = shards.decode_field(member.field, data, member.extension)


def _beside(path: Path, key: str) -> Iterator[Path]:
    """Shards of the other families of the store (if the shard lies in one) that hold this clip: by the newest
    manifest that lists its recording."""
    from storage import locations
    from storage.families import read_node_manifest, read_pack_record
    from storage.files import Store

    node, root = path.parent.name, path.resolve().parents[2]
    if (
        path.resolve() != root / locations.pack_path(node, path.stem)
        or not path.with_suffix(".parquet").exists()
    ):
        return
    store = Store(str(root))
    held = {s.key: unit.unit for unit in read_pack_record(store, node, path.stem) for s in unit.samples}
    for other in store.list_folders("manifests"):
        if other in (node, "download") or key not in held:
            continue
        for entry in sorted(store.list(locations.manifests_folder(other)), key=lambda e: -e.mtime):
            rows = read_node_manifest(store, other, Path(entry.name).stem)
            packs = [row.pack for row in rows if row.unit == held[key] and row.status == "ok"]
            if packs and store.exists(locations.pack_path(other, packs[0])):
                yield store.fetch(locations.pack_path(other, packs[0]))
                break
