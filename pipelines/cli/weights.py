"""`reenact weights`: third-party weights come in as tensors alone, trained models go out in their authors'
layout.

What a file must hold, the model that it is for knows: it declares `released` in its spec.py, and the module
that reads those files has `check(weights id, path)` and `write(tensors, about, folder)` too
(models/fsrt/released.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import click

from models import MODELS
from models.perception import WEIGHTS_CHECKS
from models.spec import load_model_spec
from models.weights import THIRD_PARTY_WEIGHTS, find_third_party_weights
from pipelines.cli.options import PATH_PARAM_TYPE, SET_OPTION, STORE_OPTION, HomePath
from pipelines.errors import UserError
from storage.content_cache import is_writable
from storage.weight_licences import ACCEPT_LICENCE_OPTION

NOTICE_PATH_TYPE = HomePath(path_type=Path, dir_okay=False)


def find_weights_file_check(weights_id: str) -> Callable[[Path], None] | None:
    """What looks at a file before it is imported under this id, by the model or the net that the weights
    are for; None where nothing looks at them.
    """
    for model in MODELS:
        for released in load_model_spec(model).released.values():
            if weights_id in released.files:
                module = released.reader.partition(":")[0]
                return partial(import_module(module).check_weights_match_id, weights_id)
    module, _, name = WEIGHTS_CHECKS.get(weights_id, "").partition(":")
    return partial(getattr(import_module(module), name), weights_id) if module else None


def export_to_released_layout(checkpoint: Path, folder: Path) -> list[Path]:
    """model.safetensors of a training phase -> files in the layout of the model's authors, in `folder`.

    Raises UserError for a file that is no whole checkpoint of ours, or of a model without released weights.
    """
    from storage import checkpoints

    if not checkpoint.is_file():
        raise UserError(f"no file {checkpoint}")
    tensors, about = checkpoints.load_checkpoint(checkpoint)
    if any(name.startswith("net.") for name in tensors):
        raise UserError(f"{checkpoint} is a state to train on from; export the model.safetensors beside it")
    tables = {name: load_model_spec(name).released for name in MODELS}
    table = tables.get(str(about.get("model")))
    if not table:
        known = ", ".join(name for name, declared in tables.items() if declared)
        raise UserError(f"{checkpoint} holds model {about.get('model')!r}; a layout is known for: {known}")
    if not is_writable(folder):
        raise UserError(f"{folder}: no files can be made there; give a folder that can be written")
    module = next(iter(table.values())).reader.partition(":")[0]
    return import_module(module).export_released_format(tensors, about, folder)


@click.group()
def weights() -> None:
    """Third-party weights in, trained models out. Files come in as tensors alone, and go out in the layout of
    the model's authors."""


@weights.command("list")
@STORE_OPTION
def weights_list(store: str) -> None:
    """Known files: licence, whether they are here, where from, who uses them.

    \b
    Example:
      reenact weights list
    """
    from pipelines.runs.weights_inventory import weights_table
    from storage.files import Store

    for line in weights_table(Store(store)):
        click.echo(line)


@weights.command("import")
@click.argument("weights_id", metavar="ID")
@click.argument("file", type=PATH_PARAM_TYPE)
@click.option(
    ACCEPT_LICENCE_OPTION,
    "accept",
    is_flag=True,
    help="You accept the licence of weights that are not for any use; the record of the import says so.",
)
@STORE_OPTION
def weights_import(weights_id: str, file: Path, accept: bool, store: str) -> None:
    """Convert a publisher's file to safetensors. Its tensors alone are taken, in a process of its own, and
    its sha256 is pinned. Where settings lie beside it (wav2vec 2.0), FILE may be the folder, or the hub's
    cache of the repository.

    \b
    Example:
      reenact weights import fsrt_vox ~/Downloads/vox256.pt --accept-licence
    """
    from storage import weight_files
    from storage.files import Store

    facts = weight_files.import_weights(
        Store(store),
        find_third_party_weights(weights_id),
        file,
        find_weights_file_check(weights_id),
        accept=accept,
    )
    tensors = f"{facts['tensors']} tensors, " if "tensors" in facts else ""
    click.echo(f"{weights_id}: {tensors}sha256 {facts['sha256'][:16]}; {facts['licence']}")
    if facts["left"]:
        click.echo(f"not imported, for nothing here needs it: {', '.join(facts['left'])}")
    if facts["as_published"] is False:
        click.echo(f"not the published {facts['file']}: its sha256 begins {facts['source_sha256'][:10]}")


@weights.command("export")
@click.argument("checkpoint", type=PATH_PARAM_TYPE, metavar="MODEL.safetensors")
@click.argument("folder", type=PATH_PARAM_TYPE, metavar="FOLDER")
def weights_export(checkpoint: Path, folder: Path) -> None:
    """Write a trained model as files that its authors' own code loads.

    \b
    Example:
      reenact weights export model.safetensors exported/
    """
    for path in export_to_released_layout(checkpoint, folder):
        click.echo(str(path))


@weights.command("verify")
@STORE_OPTION
def weights_verify(store: str) -> None:
    """Re-hash every weights file; exit 1 if one differs.

    \b
    Example:
      reenact weights verify
    """
    from storage import weight_files
    from storage.files import Store

    states = {
        name: weight_files.verify_weights(Store(store), one) for name, one in THIRD_PARTY_WEIGHTS.items()
    }
    for name, state in states.items():
        click.echo(f"{name:<{max(map(len, states))}}  {state}")
    if any(state not in ("ok", "missing") for state in states.values()):
        sys.exit(1)


@weights.command("export-notice")
@click.argument("run_file", type=PATH_PARAM_TYPE, metavar="[RUN.yaml]", required=False)
@SET_OPTION
@click.option("-o", "--out", type=NOTICE_PATH_TYPE, metavar="FILE", help="Write it there.")
@STORE_OPTION
def weights_export_notice(run_file: Path | None, sets: tuple[str, ...], out: Path | None, store: str) -> None:
    """Publisher, sha256, licence and acceptance of the weights at hand: of all, or of those that a run uses.
    The text goes along with what was made by them.

    \b
    Example:
      reenact weights export-notice configs/run/demo.yaml -o NOTICE.txt
    """
    from pipelines.runs.weights_inventory import format_weights_notice
    from storage.files import Store

    if run_file is None:
        text = format_weights_notice(Store(store), "all that are here", THIRD_PARTY_WEIGHTS.values())
    else:
        from pipelines.runs.session import open_session

        session = open_session(run_file, sets)
        text = format_weights_notice(
            session.store, f"used by run {session.config.name}", session.used_weights()
        )
    if out is None:
        click.echo(text, nl=False)
    elif not is_writable(out.parent):
        raise UserError(f"{out}: no file can be made there; give one that can be written")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        click.echo(str(out))
