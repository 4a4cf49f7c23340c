"""`reenact shards`: list and draw what a shard holds, and check it. Any tar on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.cli.options import PATH_PARAM_TYPE, HomePath

SHEET_SAMPLES = 6
"""Samples on a sheet, unless one is named."""
SHARD_PATH_TYPE = HomePath(path_type=Path, dir_okay=False, exists=True)


@click.group()
def shards() -> None:
    """WebDataset shards: look inside, check."""


@shards.command("inspect")
@click.argument("path", type=SHARD_PATH_TYPE)
@click.option("--sample", metavar="KEY", help="Only this sample.")
@click.option("--sheet", type=PATH_PARAM_TYPE, metavar="FILE.png",
              help="Draw frames with boxes, landmarks and the fitted mesh, and the sound.")  # fmt: skip
@click.option("--with", "others", type=SHARD_PATH_TYPE, multiple=True, metavar="SHARD",
              help="A shard of another family with the same clips; a store finds it by itself.")  # fmt: skip
@click.option("--mesh", type=SHARD_PATH_TYPE, metavar="MODEL.npz",
              help="The morphable model of the fit; the embedded head if not given.")  # fmt: skip
def inspect(
    path: Path, sample: str | None, sheet: Path | None, others: tuple[Path, ...], mesh: Path | None
) -> None:
    """Print a shard's samples and the fields of one. With types, shapes and ranges.

    \b
    Example:
      reenact shards inspect .reenact/store/packs/clips/3f2a.tar --sheet sheet.png
    """
    from pipelines.shards.inspect import describe_shard, group_members_by_sample, read_contact_sheet_fields

    for line in describe_shard(path, sample):
        click.echo(line)
    if sheet is None:
        return
    from pipelines.shards.contact_sheet import write_sheet

    keys = [sample] if sample else list(group_members_by_sample(path))[:SHEET_SAMPLES]
    notes = write_sheet(sheet, [read_contact_sheet_fields(path, key, others) for key in keys], mesh)
    click.echo(f"\ndrew {len(keys)} samples to {sheet}")
    for line in notes:
        click.echo(f"  {line}")


@shards.command("validate")
@click.argument("paths", type=SHARD_PATH_TYPE, nargs=-1, required=True, metavar="PATH...")
def validate(paths: tuple[Path, ...]) -> None:
    """Check shards as any reader meets them. A line for each fault, exit 1 if there is one.

    \b
    Example:
      reenact shards validate .reenact/store/packs/*/*.tar
    """
    from pipelines.shards.validate import validate_shard

    wrong = False
    for path in paths:
        report = validate_shard(path)
        wrong |= bool(report.faults)
        for fault in report.faults:
            click.echo(f"{path}: {fault}")
        if not report.faults:
            index = "with its index" if report.indexed else "no index beside it"
            click.echo(f"{path}: ok, {report.samples:,} samples, {index}")
    sys.exit(1 if wrong else 0)
