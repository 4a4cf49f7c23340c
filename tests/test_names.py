"""Names are the words of PyTorch, Ray, DVC and the papers: private ones that were replaced stay away."""

import ast
import keyword
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [path for top in ("pipelines", "models", "storage") for path in sorted((ROOT / top).rglob("*.py"))]
INSTEAD = {
    "judge": "discriminator",
    "judges": "discriminators",
    "judging": "discriminator",
    "judged": "real, fake, scored",
    "verdict": "classify_download_error, DiscriminatorOutputs",
    "verdicts": "classify_download_error, DiscriminatorOutputs",
    "fools": "generator_losses",
    "alone": "discriminator_warmup, Update.start",
    "told": "message, describe",
    "said": "text",
    "look": "crop_and_resize, ValidationOutput, appearance",
    "looks": "stats",
    "draw": "sample, rasterize, plot",
    "drawn": "samples, raster",
    "showing": "eval_weights",
    "shown": "image, frames",
    "heard": "audio_features",
    "hears": "speech_settings",
    "dressed": "with_landmarks",
    "taken": "select, selected",
    "joined": "concat, merged",
    "lent": "expression_from",
    "blamed": "add_path_to_errors",
    "obtain": "fetch, source",
    "lacking": "missing",
    "bring": "fetch, load",
    "brought": "fetched",
    "stated": "motion_from_arrays",
    "outlook": "UpstreamUnit",
    "wish": "Options",
    "film": "video",
    "lap": "elapsed",
    "minimise": "loss",
}
"""Word -> what the field calls it."""
FOREIGN = {"ImageDraw", "Draw", "JoinedStr"}
"""Names of other libraries."""


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what a file defines, reads or passes: functions, classes, arguments, attributes,
    variables, fields of settings, and names it imports."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield line, name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield line, name
            case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)):
                yield line, name
            case ast.alias(name=name, asname=other):
                yield line, other or name.rpartition(".")[2]


def words(identifier: str) -> list[str]:
    """FaceFrames, face_frames -> face, frames."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]


def retired(name: str) -> list[str]:
    return [f"{name}: use {INSTEAD[word]}" for word in words(name) if word in INSTEAD and name not in FOREIGN]


def test_no_name_has_a_word_that_was_replaced():
    found = {
        f"{path.relative_to(ROOT)}:{line}: {message}"
        for path in SOURCES
        for line, name in [(1, path.stem), *identifiers(ast.parse(path.read_text()))]
        for message in retired(name)
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize(
    "code", ["def told(): pass", "x.judges", "class Verdicts: pass", "f(shown_at=1)", "from a import lent"]
)
def test_a_replaced_word_is_found_wherever_it_stands(code):
    assert [message for _, name in identifiers(ast.parse(code)) for message in retired(name)]


def test_parts_of_other_words_are_none():
    assert not retired("redraw_holder")
    assert not retired("drawing")
    assert not retired("threshold")


ELSEWHERE = {
    "XDG_CACHE_HOME", "IMAGEIO_FFMPEG_EXE", "GOOGLE_APPLICATION_CREDENTIALS", "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "METRIC_RUN", "webdataset", "generator_ema",
    *keyword.kwlist,
}  # fmt: skip
"""Variables of the environment, a command's argument, a package, an example of an EMA's name."""


def documented_names(tree):
    """(line, `name` or NAME_IN_CAPITALS) of each docstring, those below values too."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                for name in re.findall(r"`(?:\w+\.)*([A-Za-z_]\w*)`|\b([A-Z]{2,}(?:_[A-Z0-9]+)+)\b", text):
                    yield node.lineno, name[0] or name[1]


def test_docstrings_name_what_there_is():
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    known = {name for tree in trees.values() for _, name in identifiers(tree)} | ELSEWHERE
    texts = {node.value for tree in trees.values() for node in ast.walk(tree)
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, tree in trees.items()
        for line, name in documented_names(tree)
        if name not in known and name not in texts and name not in {one.stem for one in SOURCES}
    ]
    assert not found, "\n".join(found)
