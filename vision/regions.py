"""Which part of which original image a crop shows."""

from __future__ import annotations

from collections.abc import Sequence

from mm.geometry import WHOLE, Region
from mm.origins import Cropped
from mm.trace import Branch
from mm.types import Features, Image
from mm.vlm import CropRule

from .crop import in_original


def original(
    images: Sequence[Image], image: Image, region: Region, rule: CropRule
) -> tuple[Image, Region]:
    """`region` of `image`, as a region of the image it comes from.

    A crop comes from the image that its origin names, as long as that one is among `images`.

    Raises:
        ValueError: the region lies in the grey of a letterboxed crop.
    """
    parent = _parent(images, image)
    if parent is None or not isinstance(image.origin, Cropped):
        return image, region
    square = image.size[0] == image.size[1]  # only such a crop may have grey beside it
    how = rule if square else "vlm_r3"
    outer = in_original(region, image.origin.region, parent.size, how)
    return original(images, parent, outer, rule)


def copy_of(images: Sequence[Image], index: int) -> int:
    """Which of the prompt's images of the same pixels `images[index]` is, or was cropped from."""
    image = images[index]
    if isinstance(image.origin, Cropped) and _parent(images, image):
        return image.origin.copy
    return sum(other.id == image.id for other in images[:index])


def source_of(images: Sequence[Image], image: Image) -> Image:
    """What `image` was cut from, through any number of crops; `image` itself where it is no crop.

    Only images among `images` are found.
    """
    while (parent := _parent(images, image)) is not None:
        image = parent
    return image


def regions_of(branch: Branch) -> list[tuple[int, Region]]:
    """What was looked at again, in order: the index of an image of the prompt, and the part of it.

    Images that are not crops of a prompt's image (a depth map, a frame) are left out.
    """
    prompt = branch.sample.images
    found = []
    for seen in branch.looks:
        source, region = _traced((*prompt, *branch.images), seen)
        cut = seen if isinstance(seen, Features) else seen.origin
        same = [index for index, image in enumerate(prompt) if image.id == source.id]
        if same and isinstance(cut, Features | Cropped):
            found.append((same[min(cut.copy, len(same) - 1)], region))
    return found


def _traced(images: Sequence[Image], seen: Image | Features) -> tuple[Image, Region]:
    """The image that was looked at in the end, and where."""
    image, region = (seen.image, seen.region) if isinstance(seen, Features) else (seen, WHOLE)
    while isinstance(image.origin, Cropped) and (parent := _parent(images, image)):
        region = region.within(image.origin.region)
        image = parent
    return image, region


def _parent(images: Sequence[Image], image: Image) -> Image | None:
    if not isinstance(image.origin, Cropped):
        return None
    parent = image.origin.parent
    return next((i for i in images if i.id == parent and i.id != image.id), None)
