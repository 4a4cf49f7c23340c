"""`reenact animate`: the command, what it finds a model by, and what the video says of itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from models.reenactor import ANGLES, Edit, Reenactor, Transfer
from pipelines.animate.render import PICTURE, Made, Wish, animate, check_files
from pipelines.animate.sound import encoder_of
from pipelines.cli.options import FILE, STORE
from pipelines.errors import UserError, replaced
from pipelines.media import ffmpeg_instead
from pipelines.preprocess.clips import ClipsConfig
from pipelines.runs.progress import LOG_EVERY, REDRAW_EVERY, clock

if TYPE_CHECKING:
    from pipelines.animate.checkpoint import Trained
    from storage.files import Store

Say = Callable[[str], None]

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""IPTC's vocabulary of how a picture came to be, which C2PA uses too."""


class Ticker:
    """How far it is: one line that is written over in a terminal, now and then a line in a log."""

    def __init__(self, stream: TextIO | None = None, live: bool | None = None):
        self._stream = stream or sys.stderr
        self.live = self._stream.isatty() if live is None else live
        self._first: tuple[float, int] | None = None
        self._told = time.monotonic() if not self.live else 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)  # what came before is start-up
        if now - self._told < (REDRAW_EVERY if self.live else LOG_EVERY) and not (
            self.live and done == total
        ):
            return
        self._told = now
        began, at_first = self._first
        rate = (done - at_first) / max(1e-6, now - began)
        left = f"  {rate:.1f} frames/s  ETA {clock((total - done) / rate)}" if rate else ""
        line = f"{done:,}/{total:,} frames{left}"
        self._stream.write(f"\r\x1b[K{line}" if self.live else f"{line}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line of a terminal away."""
        if self.live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def tags_of(trained: Trained, reenactor: Reenactor, wish: Wish) -> dict[str, str]:
    """What the file says of itself: that it is synthetic, and by what."""
    from importlib.metadata import version

    labels = ", ".join(f"{part}: {what}" for part, what in sorted(reenactor.labels.items()))
    kind = "compositeWithTrainedAlgorithmicMedia" if wish.paste_back else "trainedAlgorithmicMedia"
    told = f"Synthetic media: a portrait animated by reenact {version('reenact')} with {trained.model}"
    motion = [
        wish.transfer.motion,
        *["adapt-scale"] * wish.transfer.adapt_scale,
        *["best-frame"] * wish.best_frame,
    ]
    return {
        "comment": f"{told}. The person shown did not make these movements.",
        "description": f"{told}, checkpoint {trained.name}, sha256 {trained.digest}; "
        f"labels of its weights: {labels or 'none'}",
        "digitalSourceType": f"{SOURCE_TYPE}{kind}",
        "reenact.model": trained.model,
        "reenact.checkpoint": trained.name,
        "reenact.checkpoint_sha256": trained.digest,
        "reenact.labels": labels or "none",
        "reenact.motion": ", ".join(motion),
        "reenact.edits": ", ".join(wish.edits) or "none",
    }


def device_of(wanted: str) -> str:
    """auto -> cuda where there is one. UserError where cuda is asked for and there is none."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; --device cpu is slower but works")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def checked_out(out: Path, inputs: Sequence[Path]) -> None:
    """UserError: an output that cannot be, or an input that is not there."""
    for path in inputs:
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such file")
        if os.path.exists(out) and out.samefile(path):
            raise UserError(f"--out {out} would overwrite an input")
    if out.suffix.lower() not in (".mp4", PICTURE):
        raise UserError(f"--out {out}: expected a name that ends with .mp4, or with {PICTURE} for one frame")
    if not os.path.isdir(out.absolute().parent):
        raise UserError(f"{out.absolute().parent}: no such folder")


@click.command("animate")
@click.argument("sources", nargs=-1, required=True, type=FILE, metavar="SOURCE...")
@click.option("--driving", type=FILE, metavar="FILE",
              help="Whose motion and sound to take: a video, a picture, or numbers (.npz; see the model's "
              "README). Left out: the source itself, edited.")  # fmt: skip
@click.option("--out", "-o", required=True, type=FILE, metavar="OUT.mp4", help="Or .png, of one frame.")
@click.option("--checkpoint", type=FILE, metavar="FILE", help="model.safetensors of a training phase.")
@click.option("--run", "run_file", type=FILE, metavar="RUN.yaml",
              help="The newest trained phase of this run, and its way of cropping.")  # fmt: skip
@click.option("--weights", metavar="ID", help="Released weights that were imported (reenact weights).")
@click.option("--model", metavar="NAME", help="Which model, where a run trains several.")
@click.option(
    "--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change one setting of --run (repeatable)."
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
              help="Add to a component of the drawn face's identity, by number or name "
              "(headgan; repeatable).")  # fmt: skip
@click.option("--expression-of", type=FILE, metavar="PICTURE",
              help="Take the expression of this picture (headgan).")  # fmt: skip
@click.option("--paste-back", is_flag=True, help="Show the whole portrait, not only the model's square.")
@click.option(
    "--size", type=int, help="Side in pixels that faces are cut to, as for the training clips (256)."
)
@click.option("--margin", type=float, help="Growth of the face box on each side, in boxes (0.35).")
@click.option("--lift", type=float, help="Shift of the square upwards, in boxes (0.12).")
@click.option("--detector", type=click.Choice(["dlib_ladder", "dlib_hog", "s3fd"]),
              help="Net that finds the faces (that of --run, else dlib_ladder).")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="auto: bf16 on a GPU, else fp32.")  # fmt: skip
@STORE
def command(
    sources: tuple[Path, ...],
    driving: Path | None,
    out: Path,
    device: str,
    precision: Any,
    **choice: Any,
) -> None:
    """Make portraits of one person move as a video does: its frames, times and sound, in an mp4 that says of
    itself that it is synthetic. The first SOURCE is the one that relative motion and --paste-back start from.

    \b
    Example:
      reenact animate portrait.jpg --driving talk.mp4 --out moving.mp4 --run configs/run/demo.yaml
      reenact animate portrait.jpg --frontal --turn yaw=20 --out turned.png --model headgan --run RUN.yaml
    """
    from pipelines.eval.captions import caption

    edit, lender = edit_of(choice), choice["expression_of"]
    pictures = [*sources, *([lender] if lender else [])]
    checked_out(out, [*pictures, *([driving] if driving else [])])
    check_files(pictures, driving)
    ticker, where = Ticker(), device_of(device)
    with replaced(out) as aside:  # whether it can be written is known before a model is loaded
        if driving and (instead := ffmpeg_instead()):  # raises before any work where there is none
            ticker.say(instead)
        trained = chosen(choice, ticker.say)
        reenactor = trained.load(where, precision)
        wish = wish_of(choice, edit, reenactor, framed_as(trained, choice))
        ticker.say(f"{caption(trained.model, reenactor.labels)} · {trained.name}")
        clips = wish.clips
        ticker.say(f"faces cut to {clips.size} px, margin {clips.margin}, lift {clips.lift}")
        if trained.fits != "landmarks" and "landmarks" in reenactor.reads:
            ticker.say(f"it learned from fits by {trained.fits}; here the 3D face is fitted to landmarks")
        nets = perception(nets_of(reenactor, wish, trained.landmarker), trained.store, where)
        reenactor.use({name: nets[name] for name in reenactor.needs})
        tags = tags_of(trained, reenactor, wish)
        made = animate(reenactor, sources, driving, aside, wish, nets, tags, ticker.say, ticker, where)
    ticker.clear()
    click.echo(told(out, made))


def told(out: Path, made: Made) -> str:
    """What was made, in a line."""
    width, height = made.size
    if out.suffix.lower() == PICTURE:
        return f"{out}: {width} x {height}"
    size = f"{made.frames} frame{'s' * (made.frames != 1)} of {width} x {height}"
    return f"{out}: {size}, {made.seconds:.3f} s, {made.rate}, {made.sound}"


def edit_of(choice: Mapping[str, Any]) -> Edit:
    """What --frontal, --pose, --turn, --expression and --identity ask for."""
    return Edit(
        frontal=choice["frontal"],
        pose=numbers(choice["pose"], "--pose", f"one of {', '.join(ANGLES)}"),
        turn=numbers(choice["turn"], "--turn", f"one of {', '.join(ANGLES)}"),
        expression=numbers(choice["expression"], "--expression", "a component's number or name"),
        identity=numbers(choice["identity"], "--identity", "a component's number or name"),
    )


def numbers(words: Sequence[str], option: str, names: str) -> dict[str, float]:
    """NAME=NUMBER each -> by name; the last of a name counts. UserError for other words."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"{option} {word}: expected NAME=NUMBER, the name {names}") from None
    return found


def wish_of(choice: Mapping[str, Any], edit: Edit, reenactor: Reenactor, clips: ClipsConfig) -> Wish:
    """What to make; motion follows as the model's does unless an option says how."""
    motion = choice["motion"] or reenactor.follows
    return Wish(
        transfer=Transfer(motion=motion, adapt_scale=choice["adapt_scale"], edit=edit),
        best_frame=choice["best_frame"],
        paste_back=choice["paste_back"],
        clips=clips,
        expression_of=choice["expression_of"],
    )


def nets_of(reenactor: Reenactor, wish: Wish, landmarker: str) -> dict[str, str]:
    """What `animate` and the model use -> names in models.perception.NETS."""
    nets = {"detector": wish.clips.detector} | {name: name for name in reenactor.needs}
    if wish.best_frame or "landmarks" in reenactor.reads:
        nets["landmarker"] = landmarker
    encoder = encoder_of(reenactor)
    if encoder is not None and encoder.net is not None:
        nets[encoder.net] = encoder.net
    return nets


def chosen(choice: Mapping[str, Any], say: Say) -> Trained:
    """The model asked for."""
    from pipelines.animate import checkpoint
    from storage.files import Store

    given = [name for name in ("checkpoint", "run_file", "weights") if choice[name]]
    if len(given) != 1:
        raise UserError("animate: give one of --checkpoint FILE, --run RUN.yaml, --weights ID")
    if choice["run_file"]:
        return checkpoint.of_run(choice["run_file"], choice["sets"], choice["model"], say)
    store = Store(choice["store"])
    if choice["weights"]:
        return checkpoint.of_weights(choice["weights"], choice["model"], store)
    return checkpoint.of_checkpoint(choice["checkpoint"], choice["model"], store, say)


def framed_as(trained: Trained, choice: Mapping[str, Any]) -> ClipsConfig:
    """How faces are found and cut: as for training, unless an option says otherwise."""
    changes = {
        name: choice[name] for name in ("size", "margin", "lift", "detector") if choice[name] is not None
    }
    # the CNN sees turned heads that HOG does not, and a freeze there costs more than in training
    hog = {"detector": "dlib_ladder"} if trained.clips.detector == "dlib_hog" else {}
    return replace(trained.clips, **(hog | changes))


def perception(names: Mapping[str, str], store: Store, device: str) -> dict[str, Any]:
    """Use -> name in models.perception.NETS; by their uses, the nets themselves."""
    from models.perception.interfaces import Configurable, Inference
    from pipelines.cluster.executor import load_nets

    loaded = load_nets(list(names.values()), store)
    for net in loaded.values():
        if isinstance(net, Configurable):
            net.configure(Inference(device="cuda" if device == "cuda" else "cpu"))
    return {use: loaded[name] for use, name in names.items()}
