"""`reenact animate`: its options, and how they name a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import click
from msgspec.structs import replace

from pipelines.cli.options import PATH_PARAM_TYPE, STORE_OPTION
from pipelines.errors import UserError, replace_output_file

if TYPE_CHECKING:
    from typing import Unpack

    from models.reenactor import MotionEdit, MotionMode, Precision, Reenactor
    from pipelines.animate.checkpoint import ModelWeightsLocation
    from pipelines.animate.render import AnimateOptions, AnimateResult
    from pipelines.preprocess.clips_config import ClipsConfig

Log = Callable[[str], None]


class AnimateArguments(TypedDict):
    """Options of the command as click hands them over; help texts are below."""

    checkpoint: Path | None
    run_file: Path | None
    weights: str | None
    model: str | None
    sets: tuple[str, ...]
    motion: MotionMode | None
    adapt_scale: bool
    best_frame: bool
    frontal: bool
    pose: tuple[str, ...]
    turn: tuple[str, ...]
    expression: tuple[str, ...]
    identity: tuple[str, ...]
    expression_of: Path | None
    paste_back: bool
    size: int | None
    margin: float | None
    lift: float | None
    detector: Literal["mp_face", "dlib_ladder", "dlib_hog", "s3fd", "mtcnn"] | None
    store: str


def check_output_and_inputs(out: Path, inputs: Sequence[Path]) -> None:
    """UserError for an output that cannot be made and for a missing input."""
    from pipelines.animate.render import PICTURE_SUFFIX

    for path in inputs:
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such file")
        if os.path.exists(out) and out.samefile(path):
            raise UserError(f"--out {out} would overwrite an input")
    if out.suffix.lower() not in (".mp4", PICTURE_SUFFIX):
        raise UserError(
            f"--out {out}: expected a name that ends with .mp4, or with {PICTURE_SUFFIX} for one frame"
        )
    if not os.path.isdir(out.absolute().parent):
        raise UserError(f"{out.absolute().parent}: no such folder")


@click.command("animate")
@click.argument("sources", nargs=-1, required=True, type=PATH_PARAM_TYPE, metavar="SOURCE...")
@click.option("--driving", type=PATH_PARAM_TYPE, metavar="FILE",
              help="Whose motion and sound to take: a video, a picture, or arrays (.npz; see the model's "
              "README). Left out: the source itself, edited.")  # fmt: skip
@click.option(
    "--out", "-o", required=True, type=PATH_PARAM_TYPE, metavar="OUT.mp4", help="Or .png, of one frame."
)
@click.option(
    "--checkpoint", type=PATH_PARAM_TYPE, metavar="FILE", help="model.safetensors of a training phase."
)
@click.option("--run", "run_file", type=PATH_PARAM_TYPE, metavar="RUN.yaml",
              help="The newest trained phase of this run, and its way of cropping.")  # fmt: skip
@click.option("--weights", metavar="ID", help="Released weights that were imported (reenact weights).")
@click.option("--model", metavar="NAME", help="Which model, where a run trains several.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="A.B=VALUE",
    help="Change one setting of --run (repeatable); without --run only perception.faces=dlib and "
    "headgan.head=NAME, the 3D head that is drawn.",
)
@click.option("--motion", type=click.Choice(["absolute", "relative"]),
              help="absolute: the driving head's own pose and place (fsrt's way); relative: its changes, "
              "with the source's own size and place (headgan's way).")  # fmt: skip
@click.option("--adapt-scale", is_flag=True, help="relative: scale the changes by the size of the faces.")
@click.option("--best-frame", is_flag=True,
              help="relative: start from the driving frame most like the source.")  # fmt: skip
@click.option("--frontal", is_flag=True, help="The head looks at the camera (headgan).")
@click.option("--pose", multiple=True, metavar="ANGLE=DEGREES",
              help="Set pitch (down), yaw (to the picture's right) or roll (to its left) "
              "(headgan; repeatable).")  # fmt: skip
@click.option("--turn", multiple=True, metavar="ANGLE=DEGREES", help="Add to an angle (headgan; repeatable).")
@click.option("--expression", multiple=True, metavar="COMPONENT=SIGMAS",
              help="Add to a component of the expression, by number or name "
              "(headgan; repeatable).")  # fmt: skip
@click.option("--identity", multiple=True, metavar="COMPONENT=SIGMAS",
              help="Add to a component of the rendered face's identity, by number or name "
              "(headgan; repeatable).")  # fmt: skip
@click.option("--expression-of", type=PATH_PARAM_TYPE, metavar="PICTURE",
              help="Take the expression of this picture (headgan).")  # fmt: skip
@click.option("--paste-back", is_flag=True, help="Show the whole portrait, not only the model's square.")
@click.option(
    "--size", type=int, help="Side in pixels that faces are cut to, as for the training clips (256)."
)
@click.option("--margin", type=float, help="Growth of the face box on each side, in boxes (0.35).")
@click.option("--lift", type=float, help="Shift of the square upwards, in boxes (0.12).")
@click.option("--detector", type=click.Choice(["mp_face", "dlib_ladder", "dlib_hog", "s3fd", "mtcnn"]),
              help="Net that finds the faces (that of --run, else mp_face).")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="auto: bf16 on a GPU, else fp32.")  # fmt: skip
@STORE_OPTION
def animate(
    sources: tuple[Path, ...],
    driving: Path | None,
    out: Path,
    device: str,
    precision: Precision,
    **arguments: Unpack[AnimateArguments],
) -> None:
    """Make portraits of one person move as a video does. Its frames, times and sound, in an mp4 whose
    metadata say that it is synthetic. The first SOURCE is the one that relative motion and --paste-back start
    from.

    \b
    Example:
      reenact animate portrait.jpg --driving talk.mp4 --out moving.mp4 --run configs/run/demo.yaml
      reenact animate portrait.jpg --frontal --turn yaw=20 --out turned.png --model headgan --run RUN.yaml
    """
    from pipelines.animate.checkpoint import check_chosen_nets
    from pipelines.animate.metadata_tags import synthetic_media_tags
    from pipelines.animate.perception import load_perception_nets, resolve_device
    from pipelines.animate.progress_line import ProgressLine
    from pipelines.animate.render import check_input_files, required_perception_nets, write_animation
    from pipelines.eval.captions import provenance_caption
    from pipelines.media import packaged_ffmpeg_reason

    edit, lender = parse_edit(arguments), arguments["expression_of"]
    pictures = [*sources, *([lender] if lender else [])]
    check_output_and_inputs(out, [*pictures, *([driving] if driving else [])])
    check_input_files(pictures, driving)
    progress, device = ProgressLine(), resolve_device(device)
    with replace_output_file(out) as aside:  # fails before a model is loaded where it cannot be written
        if driving and (note := packaged_ffmpeg_reason()):  # raises before any work where there is none
            progress.log(note)
        model = find_model_source(arguments, progress.log)
        reenactor = model.load(device, precision)
        check_chosen_nets(model, reenactor)
        clips = clips_config(model, arguments)
        options = make_animate_options(arguments, edit, reenactor, clips)
        progress.log(f"{provenance_caption(model.model, reenactor.provenance)} · {model.name}")
        for note in reenactor.notes:
            progress.log(note)
        reenactor.notes.clear()
        needed = required_perception_nets(reenactor, options, model.landmarker)
        seen_by = " + ".join(needed[use] for use in ("detector", "landmarker") if use in needed)
        progress.log(f"faces seen by {seen_by}, cut to {clips.size} px, {describe_square(clips)}")
        nets = load_perception_nets(needed, model.store, device, model.max_slip)
        reenactor.set_frozen_nets({name: nets.others[name] for name in reenactor.nets})
        tags = synthetic_media_tags(model, reenactor, options)
        result = write_animation(
            reenactor, sources, driving, aside, options, nets, tags, progress.log, progress
        )
    progress.clear()
    click.echo(format_animation_summary(out, result))


def format_animation_summary(out: Path, result: AnimateResult) -> str:
    """The file, its frames, length, rate and sound."""
    from pipelines.animate.render import PICTURE_SUFFIX

    width, height = result.size
    if out.suffix.lower() == PICTURE_SUFFIX:
        return f"{out}: {width} x {height}"
    size = f"{result.frames} frame{'s' * (result.frames != 1)} of {width} x {height}"
    return f"{out}: {size}, {result.seconds:.3f} s, {result.rate}, {result.sound}"


def parse_edit(arguments: AnimateArguments) -> MotionEdit:
    """The edit that --frontal, --pose, --turn, --expression and --identity describe."""
    from models.reenactor import ANGLES, MotionEdit

    angles, components = f"one of {', '.join(ANGLES)}", "a component's number or name"
    return MotionEdit(
        frontal=arguments["frontal"],
        pose=parse_named_numbers(arguments["pose"], "--pose", angles),
        turn=parse_named_numbers(arguments["turn"], "--turn", angles),
        expression=parse_named_numbers(arguments["expression"], "--expression", components),
        identity=parse_named_numbers(arguments["identity"], "--identity", components),
    )


def parse_named_numbers(words: Sequence[str], option: str, names: str) -> dict[str, float]:
    """NAME=NUMBER each -> by name; the last of a name counts. UserError for other words."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"{option} {word}: expected NAME=NUMBER, the name {names}") from None
    return found


def make_animate_options(
    arguments: AnimateArguments, edit: MotionEdit, reenactor: Reenactor, clips: ClipsConfig
) -> AnimateOptions:
    """What to render; without --motion, in the model's own way."""
    from models.reenactor import MotionTransfer
    from pipelines.animate.render import AnimateOptions

    motion = arguments["motion"] or reenactor.default_motion
    return AnimateOptions(
        transfer=MotionTransfer(motion=motion, adapt_scale=arguments["adapt_scale"], edit=edit),
        best_frame=arguments["best_frame"],
        paste_back=arguments["paste_back"],
        clips=clips,
        expression_of=arguments["expression_of"],
    )


def find_model_source(arguments: AnimateArguments, log: Log) -> ModelWeightsLocation:
    """The model that --checkpoint, --run or --weights names."""
    from pipelines.animate import checkpoint
    from storage.files import Store

    path, run_file, weights = arguments["checkpoint"], arguments["run_file"], arguments["weights"]
    if sum(map(bool, (path, run_file, weights))) != 1:
        raise UserError("animate: give one of --checkpoint FILE, --run RUN.yaml, --weights ID")
    name, store = arguments["model"], Store(arguments["store"])
    if run_file:
        return checkpoint.model_source_from_run(run_file, arguments["sets"], name, log)
    if weights:
        found = checkpoint.model_source_from_released(weights, name, store)
    else:
        assert path is not None
        found = checkpoint.model_source_from_checkpoint(path, name, store, log)
    return checkpoint.apply_settings_without_run(found, arguments["sets"], store)


def describe_square(clips: ClipsConfig) -> str:
    """What is cut about a face's box."""
    if clips.rules == "steady":
        return f"margin {clips.margin}, lift {clips.lift}"
    return f"by {clips.rules} rules, increase {clips.increase:.3g}"


def clips_config(model: ModelWeightsLocation, arguments: AnimateArguments) -> ClipsConfig:
    """How faces are found and cut: as for training, unless an option says otherwise. UserError for an option
    that the run's rules do not know."""
    for name in ("margin", "lift"):
        if arguments[name] is not None and model.clips.rules != "steady":
            raise UserError(
                f"--{name}: this run cuts faces by clips.rules {model.clips.rules}, which know only "
                "--set clips.increase=NUMBER, growth on each side"
            )
    # the CNN sees turned heads that HOG does not, and a freeze there costs more than in training
    detector = "dlib_ladder" if model.clips.detector == "dlib_hog" else model.clips.detector
    return replace(
        model.clips,
        detector=arguments["detector"] or detector,
        **{name: value for name in ("size", "margin", "lift") if (value := arguments[name]) is not None},
    )
