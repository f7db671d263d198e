"""Make the bundled model again from nothing, in stages that resume where they were stopped.

    python -m training.bundle                       # all stages, into runs/bundle, then export
    python -m training.bundle --stage vision        # one stage

Stages: `shards` (draw the training images), `vision`, `language`, `memories` (what the encoder
sees at full resolution), `replay`, `export` (to --to), `extend` (depth maps and clips, from --to
to --to), `polish` (verdicts above all, likewise), `depth` (the depth model, beside --to), `siglip`
(what finds frames by a question, likewise), `latents` (what reads depth into a few vectors,
likewise). `full`, which no other needs, trains an adapter for the
exported model, to --adapter. Each saves its state in --folder; run the command again after an
interruption and it goes on from there.
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path

import torch
from rich.progress import track

from mm.local.torch_warmup import warm_up
from mm.tokens.builder import TokenBuilder
from mm.tokens.loading import load_builder
from training.tabletop.examples import write_examples
from video.siglip import TINY as TINY_SIGLIP
from vision.depth_source import TINY as TINY_DEPTH

from .assemble import Model, export, grown, parts
from .depth_network import make_depth_model
from .depth_stage import export_depth, train_depth
from .enlarged import SCENES as ENLARGED
from .enlarged import SIDES, Enlarged, write_enlarged
from .extend_stage import EXTEND, POLISH, Course, Material, train_extend
from .full_stage import export_adapter, train_full
from .language_stage import batches, train_language
from .latents_stage import export_latents, train_tiny_latents
from .memories import Memories, write_memories
from .replay_stage import blend, train_replay
from .shards import Shards, draw_shards
from .siglip_stage import export_siglip, ids_by, load_tokenizer, make_siglip, train_siglip
from .stage import load_checkpoint
from .vision_stage import train_vision

SHARDS = 24
BYTES_PER_SHARD = 460_000_000
VISION_STEPS = 600
LANGUAGE_STEPS = 1440
MEMORIES = 4500
REPLAY_STEPS = 480
EXTEND_STEPS = 900
POLISH_STEPS = 320
DEPTH_STEPS = 960
SIGLIP_STEPS = 1500
LATENTS_ROWS = 10_000
FULL_STEPS = 600


def main() -> None:
    """Run the stages that the command line names."""
    args = _arguments()
    warm_up()
    torch.set_num_threads(args.threads)
    for stage in MADE if args.stage == "all" else (args.stage,):
        STAGES[stage](args)


def _vision(args: argparse.Namespace) -> None:
    model, _ = parts()
    shards = Shards(args.folder / "shards")
    train_vision(model.model.visual, shards, args.folder, steps=args.vision_steps)


def _language(args: argparse.Namespace) -> None:
    model, builder = parts()
    _load_encoder(model, args.folder)
    made = partial(batches, Shards(args.folder / "shards"), builder)
    train_language(model, made, args.folder, steps=args.language_steps)


def _memories(args: argparse.Namespace) -> None:
    model, _ = _after("language", args.folder)
    _remember(model, args)


def _replay(args: argparse.Namespace) -> None:
    model, builder = _after("language", args.folder)
    shards, memories = Shards(args.folder / "shards"), Memories(args.folder / "memories")
    train_replay(model, builder, shards, memories, args.folder, steps=args.replay_steps)


def _export(args: argparse.Namespace) -> None:
    model, builder = _after("language", args.folder)
    blend(model, _state(args.folder / "replay.pt", "replay")["model"])
    export(model, builder, args.to)
    write_examples(args.examples)


def _extend(args: argparse.Namespace) -> None:
    _further(args, EXTEND, args.extend_steps)


def _polish(args: argparse.Namespace) -> None:
    _further(args, POLISH, args.polish_steps)


def _further(args: argparse.Namespace, course: Course, steps: int) -> None:
    model, builder = grown(args.to)
    _remember(model, args)
    shards, memories = Shards(args.folder / "shards"), Memories(args.folder / "memories")
    given = Material(shards, memories, _enlarge(model, args), builder)
    train_extend(model, given, args.folder, steps=steps, course=course)
    export(model, builder, args.to)


def _depth(args: argparse.Namespace) -> None:
    model = make_depth_model()
    train_depth(model, args.folder, steps=args.depth_steps)
    export_depth(model, args.to.parent / TINY_DEPTH)


def _siglip(args: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(args.to)
    model = make_siglip(tokenizer)
    train_siglip(model, ids_by(tokenizer), args.folder, steps=args.siglip_steps)
    export_siglip(model, args.to, args.to.parent / TINY_SIGLIP)


def _latents(args: argparse.Namespace) -> None:
    trained = train_tiny_latents(args.to, args.folder, rows=args.latents_rows)
    export_latents(trained, args.to.name, args.to.parent / f"{args.to.name}-latents")


def _full(args: argparse.Namespace) -> None:
    model = Model.from_pretrained(args.to, dtype=torch.float32)
    _remember(model, args)
    shards, memories = Shards(args.folder / "shards"), Memories(args.folder / "memories")
    builder = load_builder(str(args.to))
    adapted = train_full(model, builder, shards, memories, args.folder, steps=args.full_steps)
    export_adapter(adapted, args.adapter, str(args.to.resolve()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.bundle", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--folder", type=Path, default=Path("runs/bundle"), help="stage files")
    parser.add_argument("--to", type=Path, default=Path("mm/bundled/tiny"), help="what ships")
    parser.add_argument("--examples", type=Path, default=Path("app/examples"))
    parser.add_argument("--shards", type=int, default=SHARDS, help="of 1000 scenes, 0.4 GB each")
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    parser.add_argument("--memories", type=int, default=MEMORIES, help="scenes, 0.6 MB each")
    parser.add_argument("--replay-steps", type=int, default=REPLAY_STEPS)
    parser.add_argument("--enlarged", type=int, default=ENLARGED, help="scenes, 0.8 MB each")
    parser.add_argument("--extend-steps", type=int, default=EXTEND_STEPS)
    parser.add_argument("--polish-steps", type=int, default=POLISH_STEPS)
    parser.add_argument("--depth-steps", type=int, default=DEPTH_STEPS)
    parser.add_argument("--siglip-steps", type=int, default=SIGLIP_STEPS)
    parser.add_argument("--latents-rows", type=int, default=LATENTS_ROWS)
    parser.add_argument("--full-steps", type=int, default=FULL_STEPS)
    parser.add_argument("--adapter", type=Path, default=Path("runs/bundle/tiny-full"))
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _draw(args: argparse.Namespace) -> None:
    folder, count = args.folder / "shards", args.shards
    folder.mkdir(parents=True, exist_ok=True)
    missing = count - len([p for p in folder.glob("*.tiles.npy") if ".part" not in p.name])
    free = shutil.disk_usage(folder).free
    if missing * BYTES_PER_SHARD > free:
        raise SystemExit(
            f"{missing} shards need {missing * BYTES_PER_SHARD / 1e9:.0f} GB in {folder}, "
            f"{free / 1e9:.0f} GB are free; draw fewer with --shards"
        )
    for _ in track(draw_shards(folder, range(count)), "drawing", total=max(missing, 0)):
        pass


def _remember(model: Model, args: argparse.Namespace) -> None:
    files = write_memories(model.model.visual, args.folder / "memories", args.memories)
    for _ in track(files, "remembering", total=None):
        pass


def _enlarge(model: Model, args: argparse.Namespace) -> Enlarged:
    files = write_enlarged(model.model.visual, args.folder / "enlarged", args.enlarged)
    for _ in track(files, "enlarging", total=len(SIDES)):
        pass
    return Enlarged(args.folder / "enlarged")


def _after(stage: str, folder: Path) -> tuple[Model, TokenBuilder]:
    """`tiny` as it was when `stage` ended."""
    model, builder = parts()
    model.load_state_dict(_state(folder / f"{stage}.pt", stage)["model"])
    return model, builder


def _load_encoder(model: Model, folder: Path) -> None:
    both = _state(folder / "vision.pt", "vision")["model"]
    weights = {k.removeprefix("visual."): v for k, v in both.items() if k.startswith("visual.")}
    model.model.visual.load_state_dict(weights)


def _state(path: Path, stage: str) -> dict:
    state = load_checkpoint(path)
    if state is None:
        raise SystemExit(f"{path} is not there; run --stage {stage} first")
    return state


MADE = {
    "shards": _draw,
    "vision": _vision,
    "language": _language,
    "memories": _memories,
    "replay": _replay,
    "export": _export,
    "extend": _extend,
    "polish": _polish,
    "depth": _depth,
    "siglip": _siglip,
    "latents": _latents,
}
"""What makes the model that ships."""

STAGES = {**MADE, "full": _full}


if __name__ == "__main__":
    main()
