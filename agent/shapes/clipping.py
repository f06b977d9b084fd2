"""What of a shape lies in a picture. Pure functions, coordinates in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from agent.contract import Cuboid, Ellipse, Keypoint, Mask, Points, Polygon, Polyline, Rectangle, Shape, Skeleton
from agent.shapes.geometry import bounds, polygon_area, tight

Point: TypeAlias = tuple[float, float]


def clip(shape: Shape, width: float, height: float) -> list[Shape]:
    """The parts of a shape inside a picture of width x height: none, one, or several of a polygon or a line.

    Turned rectangles and cuboids keep their form if their bounds reach into the picture, ellipses if their centre is
    in it: CVAT lets these stand over the edge. Points of skeletons that are not in it are marked as outside.
    """
    if isinstance(shape, Mask):
        return _clip_mask(shape, int(width), int(height))
    if isinstance(shape, Skeleton):
        return _clip_skeleton(shape, width, height)
    left, top, right, bottom = bounds(shape)
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return [shape]
    if isinstance(shape, Points):
        inside = [(x, y) for x, y in pairs(shape.points) if _inside(x, y, width, height)]
        return [Points(_flat(inside))] if inside else []
    if isinstance(shape, Ellipse):
        return [shape] if _inside(shape.x, shape.y, width, height) else []
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return []
    if isinstance(shape, Polygon):
        return [Polygon(_flat(part)) for part in _clip_polygon(pairs(shape.points), width, height)]
    if isinstance(shape, Polyline):
        return [Polyline(_flat(part)) for part in _clip_line(pairs(shape.points), width, height)]
    if isinstance(shape, Cuboid) or shape.rotation:
        return [shape]
    return [Rectangle(max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))]


def pairs(points: Sequence[float]) -> list[Point]:
    """(x, y) of each point."""
    return list(zip(points[0::2], points[1::2], strict=True))


def _flat(points: Sequence[Point]) -> tuple[float, ...]:
    return tuple(number for point in points for number in point)


def _inside(x: float, y: float, width: float, height: float) -> bool:
    return 0 <= x <= width and 0 <= y <= height


def _clip_mask(mask: Mask, width: int, height: int) -> list[Shape]:
    rows, columns = mask.bitmap.shape
    left, top = max(mask.left, 0), max(mask.top, 0)
    right, bottom = min(mask.left + columns, width), min(mask.top + rows, height)
    if left >= right or top >= bottom:
        return []
    part = mask.bitmap[top - mask.top : bottom - mask.top, left - mask.left : right - mask.left]
    found = tight(mask if part.shape == mask.bitmap.shape else Mask(part, left, top))
    return [] if found is None else [found]


def _clip_skeleton(skeleton: Skeleton, width: float, height: float) -> list[Shape]:
    elements = tuple(_clip_element(element, width, height) for element in skeleton.elements)
    if all(element.outside for element in elements):
        return []
    return [skeleton] if elements == skeleton.elements else [Skeleton(elements)]


def _clip_element(element: Keypoint, width: float, height: float) -> Keypoint:
    if _inside(element.x, element.y, width, height):
        return element
    x, y = min(max(element.x, 0.0), width), min(max(element.y, 0.0), height)
    return replace(element, x=x, y=y, outside=True)


# ------------------------------------------------------------------------ lines


def _clip_line(points: Sequence[Point], width: float, height: float) -> Iterator[list[Point]]:
    """The stretches of a line inside the picture (Liang and Barsky, 1984, segment by segment)."""
    part: list[Point] = []
    for start, end in pairwise(points):
        if (seen := _seen_part(start, end, width, height)) is None:
            continue
        if part and part[-1] != seen[0]:
            if len(part) > 1:
                yield part
            part = []
        part = part or [seen[0]]
        if seen[1] != part[-1]:
            part.append(seen[1])
    if len(part) > 1:
        yield part


def _seen_part(start: Point, end: Point, width: float, height: float) -> tuple[Point, Point] | None:
    (x, y), dx, dy = start, end[0] - start[0], end[1] - start[1]
    first, last = 0.0, 1.0
    for step, room in ((-dx, x), (dx, width - x), (-dy, y), (dy, height - y)):
        if step == 0:
            if room < 0:
                return None
        elif step < 0:
            first = max(first, room / step)
        else:
            last = min(last, room / step)
    if first > last:
        return None
    # The very points where nothing is cut, so that stretches join again.
    return (
        start if first == 0 else (x + first * dx, y + first * dy),
        end if last == 1 else (x + last * dx, y + last * dy),
    )


# --------------------------------------------------------------------- polygons


def _clip_polygon(points: list[Point], width: float, height: float) -> list[list[Point]]:
    """The parts of a simple polygon inside the picture, each simple: cut off at one edge after the other."""
    parts = [points]
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        parts = [cut for part in parts for cut in _cut_off(part, axis, limit, sign)]
    clean = [[point for place, point in enumerate(part) if point != part[place - 1]] for part in parts]
    return [part for part in clean if len(part) >= 3 and polygon_area(_flat(part)) > 0]


def _cut_off(points: list[Point], axis: int, limit: float, sign: int) -> list[list[Point]]:
    """The parts of a polygon on one side of a line along an axis.

    Sutherland and Hodgman's way (1974) would join the parts by edges on the line that lie on each other. So: the
    chains of points on this side end at crossings with the line; between the first and the second crossing along the
    line the polygon's inside is, between the third and the fourth, and so on; there the chains are joined.
    """
    within = [sign * (point[axis] - limit) >= 0 for point in points]
    if all(within):
        return [points]
    chains = _chains(points, within, axis, limit)
    # (place along the line, chain, whether the chain ends here)
    crossings = sorted((chain[end][1 - axis], i, bool(end)) for i, chain in enumerate(chains) for end in (0, -1))
    partner: dict[tuple[int, bool], tuple[int, bool]] = {}
    for (_, i, i_ends), (_, j, j_ends) in zip(crossings[0::2], crossings[1::2], strict=True):
        partner[i, i_ends], partner[j, j_ends] = (j, j_ends), (i, i_ends)
    if any(partner[i, True][1] for i in range(len(chains))):
        # Only a polygon that crosses itself joins two ends.
        return [[point for chain in chains for point in chain]]
    parts, left = [], dict.fromkeys(range(len(chains)))
    while left:
        number, part = next(iter(left)), list[Point]()
        while number in left:
            del left[number]
            part += chains[number]
            number = partner[number, True][0]
        parts.append(part)
    return parts


def _chains(points: list[Point], within: list[bool], axis: int, limit: float) -> list[list[Point]]:
    """The runs of points within, each with the crossings where it begins and ends."""
    chains: list[list[Point]] = []
    count = len(points)
    start = next((i for i in range(count) if within[i] and not within[i - 1]), None)
    if start is None:
        return chains
    for step in range(count):
        here, before, after = (start + step) % count, (start + step - 1) % count, (start + step + 1) % count
        if not within[here]:
            continue
        if not within[before]:
            chains.append([_crossing(points[before], points[here], axis, limit)])
        chains[-1].append(points[here])
        if not within[after]:
            chains[-1].append(_crossing(points[here], points[after], axis, limit))
    return chains


def _crossing(one: Point, other: Point, axis: int, limit: float) -> Point:
    share = (limit - one[axis]) / (other[axis] - one[axis])
    along = one[1 - axis] + share * (other[1 - axis] - one[1 - axis])
    return (limit, along) if axis == 0 else (along, limit)
