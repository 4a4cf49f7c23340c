"""`reenact animate`: the command, what it finds a model by, and what the video says of itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from models.animation import Reenactor, Transfer
from pipelines.animate import Wish, animate
from pipelines.preprocess.clips import ClipsConfig
from pipelines.progress import LOG_EVERY, REDRAW_EVERY, clock

if TYPE_CHECKING:
    from pipelines.trained import Trained
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
    }


def device_of(wanted: str) -> str:
    """auto -> cuda where there is one. ValueError where cuda is asked for and there is none."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU here; --device cpu is slower but works")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def checked_out(out: Path, inputs: Sequence[Path]) -> None:
    """ValueError, FileNotFoundError: an output that cannot be, or an input that is not there."""
    for path in inputs:
        if not path.is_file():
            raise FileNotFoundError(2, "no such file", str(path))
        if out.exists() and out.samefile(path):
            raise ValueError(f"--out {out} would overwrite an input")
    if out.suffix.lower() != ".mp4":
        raise ValueError(f"--out {out}: expected a name that ends with .mp4")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(2, "no such folder", str(out.absolute().parent))


FILE = click.Path(path_type=Path)


@click.command("animate")
@click.argument("sources", nargs=-1, required=True, type=FILE, metavar="SOURCE...")
@click.option("--driving", required=True, type=FILE, metavar="VIDEO", help="Whose motion and sound to take.")
@click.option("--out", "-o", required=True, type=FILE, metavar="OUT.mp4")
@click.option("--checkpoint", type=FILE, metavar="FILE", help="model.safetensors of a training phase.")
@click.option("--run", "run_file", type=FILE, metavar="RUN.yaml",
              help="The newest trained phase of this run, and its way of cropping.")  # fmt: skip
@click.option("--weights", metavar="ID", help="Released weights that were imported (reenact weights).")
@click.option("--model", metavar="NAME", help="Which model, where a run trains several.")
@click.option(
    "--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change one setting of --run (repeatable)."
)
@click.option("--motion", type=click.Choice(["absolute", "relative"]), default="absolute", show_default=True,
              help="absolute: the driving head's own pose; relative: its change since frame 0.")  # fmt: skip
@click.option("--adapt-scale", is_flag=True, help="relative: scale the changes by the size of the faces.")
@click.option("--best-frame", is_flag=True,
              help="relative: start from the driving frame most like the source.")  # fmt: skip
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
@click.option("--store", default=".reenact/store", envvar="REENACT_STORE", show_default=True,
              help="Where imported weights are.")  # fmt: skip
def command(
    sources: tuple[Path, ...],
    driving: Path,
    out: Path,
    motion: Any,
    adapt_scale: bool,
    best_frame: bool,
    paste_back: bool,
    device: str,
    precision: Any,
    **choice: Any,
) -> None:
    """Make portraits of one person move as a video does: its frames, times and sound, in an mp4 that says of
    itself that it is synthetic. The first SOURCE is the one that relative motion and --paste-back start from.

    \b
    Example:
      reenact animate portrait.jpg --driving talk.mp4 --out moving.mp4 --run configs/run/demo.yaml
    """
    from pipelines.eval.scoring import caption

    transfer = Transfer(motion=motion, adapt_scale=adapt_scale)
    wish = Wish(transfer=transfer, best_frame=best_frame, paste_back=paste_back)
    checked_out(out, [*sources, driving])
    ticker = Ticker()
    trained = chosen(choice, ticker.say)
    clips = framed_as(trained, choice)
    wish = replace(wish, clips=clips)
    reenactor = trained.load(device_of(device), precision)
    ticker.say(f"{caption(trained.model, reenactor.labels)} · {trained.name}")
    ticker.say(f"faces cut to {clips.size} px, margin {clips.margin}, lift {clips.lift}")
    nets = perception(clips.detector, best_frame, trained.store, device_of(device))
    aside = out.with_name(f".{out.stem}.partial.mp4")
    try:
        tags = tags_of(trained, reenactor, wish)
        made = animate(reenactor, sources, driving, aside, wish, nets, tags, ticker.say, ticker)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    width, height = made.size
    ticker.clear()
    click.echo(
        f"{out}: {made.frames} frames of {width} x {height}, {made.seconds:.3f} s, {made.rate}, {made.sound}"
    )


def chosen(choice: Mapping[str, Any], say: Say) -> Trained:
    """The model asked for."""
    from pipelines import trained
    from storage.files import Store

    given = [name for name in ("checkpoint", "run_file", "weights") if choice[name]]
    if len(given) != 1:
        raise ValueError("animate: give one of --checkpoint FILE, --run RUN.yaml, --weights ID")
    if choice["run_file"]:
        return trained.of_run(choice["run_file"], choice["sets"], choice["model"], say)
    store = Store(choice["store"])
    if choice["weights"]:
        return trained.of_weights(choice["weights"], choice["model"], store)
    return trained.of_checkpoint(choice["checkpoint"], choice["model"], store, say)


def framed_as(trained: Trained, choice: Mapping[str, Any]) -> ClipsConfig:
    """How faces are found and cut: as for training, unless an option says otherwise."""
    changes = {
        name: choice[name] for name in ("size", "margin", "lift", "detector") if choice[name] is not None
    }
    # the CNN sees turned heads that HOG does not, and a freeze there costs more than in training
    hog = {"detector": "dlib_ladder"} if trained.clips.detector == "dlib_hog" else {}
    return replace(trained.clips, **(hog | changes))


def perception(detector: str, landmarks: bool, store: Store, device: str) -> dict[str, Any]:
    """The nets that `animate` takes."""
    from models.perception.interfaces import Configurable, Inference
    from pipelines.executor import load_nets

    names = {"detector": detector} | ({"landmarker": "dlib68"} if landmarks else {})
    loaded = load_nets(list(names.values()), store)
    for net in loaded.values():
        if isinstance(net, Configurable):
            net.configure(Inference(device="cuda" if device == "cuda" else "cpu"))
    return {use: loaded[name] for use, name in names.items()}
