"""Questions about small pictures of things that no bundled model has seen: a data set to learn.

`python tests/new_domain.py FOLDER` writes train.csv, test.csv and their pictures.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, SCALE = 64, 4
PLACES = ("top left", "top right", "bottom left", "bottom right")
GROUNDS = ((236, 228, 208), (208, 226, 236), (220, 236, 214), (238, 216, 224))
INKS = ((40, 40, 60), (120, 50, 30), (20, 90, 90), (90, 40, 110))

Pen = ImageDraw.ImageDraw
Box = tuple[float, float, float, float]
Scene = list[str]  # what stands at each of PLACES; "" for nothing


def _points(box: Box, *at: tuple[float, float]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0 + u * (x1 - x0), y0 + v * (y1 - y0)) for u, v in at]


def _boat(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.polygon(_points(box, (0, 0.65), (1, 0.65), (0.8, 1), (0.2, 1)), fill=ink)
    pen.polygon(_points(box, (0.5, 0), (0.5, 0.6), (0.95, 0.6)), fill=ink)


def _tree(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.polygon(_points(box, (0.5, 0), (0.95, 0.7), (0.05, 0.7)), fill=ink)
    pen.polygon(_points(box, (0.4, 0.7), (0.6, 0.7), (0.6, 1), (0.4, 1)), fill=ink)


def _house(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.polygon(_points(box, (0.5, 0), (1, 0.45), (0, 0.45)), fill=ink)
    pen.polygon(_points(box, (0.12, 0.5), (0.88, 0.5), (0.88, 1), (0.12, 1)), fill=ink)


def _fish(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.ellipse([*_points(box, (0, 0.25)), *_points(box, (0.7, 0.75))], fill=ink)
    pen.polygon(_points(box, (0.6, 0.5), (1, 0.2), (1, 0.8)), fill=ink)


def _ring(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.ellipse([*_points(box, (0.05, 0.05)), *_points(box, (0.95, 0.95))], outline=ink, width=16)


def _cross(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.line(_points(box, (0.1, 0.1), (0.9, 0.9)), fill=ink, width=16)
    pen.line(_points(box, (0.9, 0.1), (0.1, 0.9)), fill=ink, width=16)


def _ladder(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    for across in (0.2, 0.8):
        pen.line(_points(box, (across, 0), (across, 1)), fill=ink, width=10)
    for down in (0.15, 0.4, 0.65, 0.9):
        pen.line(_points(box, (0.2, down), (0.8, down)), fill=ink, width=8)


def _cup(pen: Pen, box: Box, ink: tuple[int, int, int]) -> None:
    pen.polygon(_points(box, (0.05, 0.2), (0.7, 0.2), (0.6, 1), (0.15, 1)), fill=ink)
    pen.arc(
        [*_points(box, (0.5, 0.3)), *_points(box, (1, 0.8))], start=-90, end=90, fill=ink, width=9
    )


THINGS: dict[str, Callable[[Pen, Box, tuple[int, int, int]], None]] = {
    "boat": _boat,
    "tree": _tree,
    "house": _house,
    "fish": _fish,
    "ring": _ring,
    "cross": _cross,
    "ladder": _ladder,
    "cup": _cup,
}


def make_scene(rng: random.Random) -> Scene:
    """One to three different things at different places."""
    scene = [""] * len(PLACES)
    count = rng.randint(1, 3)
    for place, thing in zip(
        rng.sample(range(len(PLACES)), count), rng.sample(list(THINGS), count), strict=True
    ):
        scene[place] = thing
    return scene


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), rng.choice(GROUNDS))
    pen = ImageDraw.Draw(image)
    half = SIDE * SCALE / 2
    for place, thing in enumerate(scene):
        if thing:
            size = half * rng.uniform(0.6, 0.85)
            x = place % 2 * half + rng.uniform(0.05, 0.95) * (half - size)
            y = place // 2 * half + rng.uniform(0.05, 0.95) * (half - size)
            THINGS[thing](pen, (x, y, x + size, y + size), rng.choice(INKS))
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def ask(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question and its answer; half are yes or no, as often one as the other."""
    there = [place for place, thing in enumerate(scene) if thing]
    kind = rng.choice(["what", "where", "is there", "is it"])
    if kind == "what":
        place = rng.randrange(len(PLACES)) if rng.random() < 0.2 else rng.choice(there)
        return f"Name the thing at the {PLACES[place]}.", scene[place] or "nothing"
    place = rng.choice(there)
    if kind == "where":
        return f"Where does the {scene[place]} stand?", PLACES[place]
    yes = rng.random() < 0.5
    if kind == "is there":
        absent = [thing for thing in THINGS if thing not in scene]
        return f"Is there a {scene[place] if yes else rng.choice(absent)}?", _word(yes)
    shown = place if yes else rng.choice([p for p in range(len(PLACES)) if p != place])
    return f"Is the {scene[place]} at the {PLACES[shown]}?", _word(yes)


def _word(yes: bool) -> str:
    return "yes" if yes else "no"


def write(folder: Path, name: str, pictures: int, questions: int, seed: int) -> Path:
    """`name`.csv in `folder`, with so many questions on each of so many pictures."""
    rng = random.Random(f"{name} {seed}")
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "question", "answer"])
        for number in range(pictures):
            scene = make_scene(rng)
            draw(scene, rng).save(folder / name / f"{number}.png")
            for _ in range(questions):
                rows.writerow([f"{name}/{number}.png", *ask(scene, rng)])
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=12000, help="to learn from")
    args = parser.parse_args()
    write(args.folder, "train", pictures=args.pictures, questions=2, seed=0)
    write(args.folder, "test", pictures=500, questions=1, seed=1)
