"""`reenact pairs`: what other code needs to be compared with the models of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.options import PATH_PARAM_TYPE, RUN_FILE_ARGUMENT, SET_OPTION, format_command

if TYPE_CHECKING:
    from storage.families import Artifact


@click.command()
@RUN_FILE_ARGUMENT
@click.option("--out", "folder", type=PATH_PARAM_TYPE, required=True, metavar="FOLDER", help="A new folder.")
@click.option("--protocol", metavar="P", help="Which of the run's protocols, where it has several.")
@click.option("--method", metavar="M", help="The frames of this method instead: a model, codec, ...")
@SET_OPTION
def pairs(
    run_file: Path, folder: Path, protocol: str | None, method: str | None, sets: tuple[str, ...]
) -> None:
    """Write out the pairs of a finished run. For methods of other code: sources, driving frames, sound.

    Their frames, a folder of pictures or a video for each NAME in pairs.csv, then stand in the run's tables
    as `eval: {methods: {theirs: {folder: FRAMES}}}`.

    \b
    Example:
      reenact pairs configs/run/demo.yaml --protocol self --out pairs
    """
    from pipelines.eval import pair_export as export
    from pipelines.eval.pairs import PAIR_LIST_FILE, PAIRS_FILE, pair_file_name, read_pairs
    from pipelines.runs.published_pairs import PublishedPairs, choose_protocol
    from pipelines.runs.session import open_session

    session = open_session(run_file, sets)
    name = choose_protocol(session.config, protocol)
    published = PublishedPairs(session, name, method)

    def artifact(node: str) -> Artifact:
        return published.artifact(node, lambda only: format_command("run", run_file, sets, "--only", only))

    table = artifact(published.pairs_node)
    listed = read_pairs(table.path(PAIRS_FILE))
    if method is None:
        families = {role: artifact(node).open_family() for role, node in published.input_nodes.items()}
        inputs = export.PairInputs(size=session.config.eval.active_protocols[name].size, **families)
        write, missing = partial(export.export_pair_inputs, inputs=inputs, folder=folder), "sound"
    else:
        generated = artifact(published.method_node).open_family()
        write, missing = partial(export.export_pair_frames, generated=generated, folder=folder), "frames"
    export.make_export_folder(folder)
    export.export_pair_list(table.path(PAIR_LIST_FILE), folder)
    with click.progressbar(listed, label="pairs") as bar:
        without = [pair_file_name(pair.id) for pair in bar if not write(pair)]
    for line in export.describe_export(name, len(listed), folder, missing, without):
        click.echo(line)
