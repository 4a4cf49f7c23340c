"""A folder of still pictures, as sources of an evaluation: a recording of one frame each, without sound."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.errors import Rejected, Transient, UserError
from pipelines.preprocess.sources import RecordingListing, folder
from pipelines.preprocess.sources.common.files import digest_each_file
from pipelines.preprocess.sources.common.rows import BaseRecording, ListedRecording

PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff")


class PictureFolderConfig(folder.FolderConfig, frozen=True, kw_only=True):
    extensions: tuple[str, ...] = PICTURE_EXTENSIONS
    """Which files are pictures, by the end of their names; capitals count as small letters."""


def list_recordings(config: PictureFolderConfig) -> RecordingListing:
    """A row a picture, sorted by its relative path. All are held out: there is no motion to learn from."""
    listing = folder.list_recordings(config, "pictures")
    rows: list[ListedRecording] = [
        {**row, "split": "test", "sha256": "", "spec": json.dumps({"picture": row["sha256"]})}
        for row in listing.rows
    ]
    return RecordingListing(rows, listing.rejects)


def digest_external_files(config: PictureFolderConfig) -> dict[str, str]:
    """Relative name -> sha256 of every picture, and of the CSV."""
    return folder.digest_external_files(config, "pictures")


def describe_skipped_files(config: PictureFolderConfig) -> str:
    """How many files may be pictures but are none by their names; "" if there are none."""
    return folder.describe_skipped_files(config, "pictures")


def recording_images_to_video(row: BaseRecording) -> bytes:
    """A row of recordings -> its picture, upright and without transparency, as a lossless video of one frame.
    Rejected where it cannot be read."""
    from pipelines.media.image_sequence import picture_to_video
    from pipelines.media.still_image import read_picture

    path = Path(row["uri"])
    if not path.is_file() or digest_each_file([path])[path] != json.loads(row["spec"])["picture"]:
        # not a property of the recording: the file was replaced while the run was under way
        raise Transient(f"{path} changed since it was listed; run again", soon=False)
    try:
        pixels = read_picture(path).pixels
    except UserError as error:
        raise Rejected("undecodable", str(error)) from None
    return picture_to_video(pixels)
