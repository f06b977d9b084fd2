"""Bounds, areas, shifting, overlap, clipping, outlines of masks: against brute force and against each other."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agent.contract import Cuboid, Ellipse, Keypoint, Mask, Points, Polygon, Polyline, Rectangle, Skeleton
from agent.shapes.clipping import clip
from agent.shapes.geometry import area, bounds, corners, iou, polygon_area, shift, tight
from agent.shapes.outlines import is_simple, mask_to_polygons, polygon_to_mask

WIDTH, HEIGHT = 40, 30
number = st.floats(-30, 70, width=32)


def rows(polygon):
    return np.array(polygon.points).reshape(-1, 2)


def star(rng, centre=(20.0, 15.0), radius=25.0, count=9):
    """A simple polygon with bays, as likely as not over the picture's edge."""
    angles = np.sort(rng.uniform(0, 2 * math.pi, count))
    assume(np.diff([*angles, angles[0] + 2 * math.pi]).max() < math.pi * 0.9)
    far = rng.uniform(0.2, 1, count) * radius
    xy = np.stack([centre[0] + far * np.cos(angles), centre[1] + far * np.sin(angles)], axis=1)
    return Polygon(tuple(float(n) for n in xy.ravel()))


def blob(rng, width=60, height=50, holes=2, smallest=3):
    """A few discs with others cut out."""
    y, x = np.mgrid[:height, :width]
    bitmap = np.zeros((height, width), bool)
    for place in range(3 + holes):
        cx, cy, radius = rng.uniform(5, width - 5), rng.uniform(5, height - 5), rng.uniform(smallest, 15)
        disc = (x - cx) ** 2 + (y - cy) ** 2 <= (radius if place < 3 else radius / 2) ** 2
        bitmap = bitmap | disc if place < 3 else bitmap & ~disc
    return bitmap


def painted(polygons, width, height):
    bitmap = np.zeros((height, width), bool)
    for polygon in polygons:
        if mask := polygon_to_mask(polygon.points, width, height):
            bitmap |= whole(mask, width, height)
    return bitmap


def whole(mask, width, height):
    bitmap = np.zeros((height, width), bool)
    rows, columns = mask.bitmap.shape
    bitmap[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.bitmap
    return bitmap


def length(polygon):
    points = rows(polygon)
    return np.hypot(*(points - np.roll(points, 1, axis=0)).T).sum()


def share(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


class TestBounds:
    def test_a_turned_rectangle(self):
        assert bounds(Rectangle(0, 0, 10, 4, rotation=90)) == pytest.approx((3, -3, 7, 7))
        assert corners(Rectangle(0, 0, 10, 4, rotation=90)) == pytest.approx([7, -3, 7, 7, 3, 7, 3, -3])
        assert bounds(Rectangle(1, 2, 3, 4)) == (1, 2, 3, 4)

    def test_a_turn_is_clockwise_as_cvat_draws_it(self):
        left_end = corners(Rectangle(0, 0, 10, 0.001, rotation=30))[:2]
        assert left_end[1] < 0, "y points down, so the left end goes up"

    @given(st.floats(-360, 360), st.floats(1, 20), st.floats(1, 20))
    def test_a_turned_ellipse_touches_its_bounds(self, turn, rx, ry):
        angle = np.linspace(0, 2 * math.pi, 2000)
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        x, y = rx * np.cos(angle), ry * np.sin(angle)
        xs, ys = 5 + x * cos - y * sin, 7 + x * sin + y * cos
        expected = (xs.min(), ys.min(), xs.max(), ys.max())
        assert bounds(Ellipse(5, 7, rx, ry, turn)) == pytest.approx(expected, abs=1e-3)

    def test_masks_by_their_pixels_and_skeletons_by_what_is_seen(self):
        bitmap = np.zeros((10, 12), bool)
        bitmap[2:4, 5] = True
        assert bounds(Mask(bitmap, 100, 50)) == (105, 52, 106, 54)
        points = (Keypoint("a", 1, 2), Keypoint("b", 3, 9), Keypoint("c", 99, 99, outside=True))
        assert bounds(Skeleton(points)) == (1, 2, 3, 9)
        assert bounds(Cuboid((1.0, 2.0) * 7 + (5.0, 9.0))) == (1, 2, 5, 9)

    def test_a_tight_mask_lets_go_of_the_frame(self):
        bitmap = np.zeros((500, 500), bool)
        bitmap[7:9, 3:6] = True
        small = tight(Mask(bitmap, 10, 20))
        assert (small.left, small.top, small.bitmap.shape) == (13, 27, (2, 3))
        assert small.bitmap.base is None
        assert tight(small) is small
        assert tight(Mask(np.zeros((4, 4), bool))) is None


class TestArea:
    def test_of_each_shape(self):
        assert area(Rectangle(1, 1, 4, 3, rotation=45)) == 6
        assert area(Rectangle(4, 3, 1, 1)) == 0
        assert area(Ellipse(0, 0, 2, 3)) == pytest.approx(6 * math.pi)
        assert area(Polygon((0, 0, 4, 0, 4, 3))) == 6
        assert area(Mask(np.eye(5, dtype=bool))) == 5
        assert (
            area(Points((1.0, 2.0))) is area(Polyline((0, 0, 1, 1))) is area(Skeleton((Keypoint("a", 1, 1),))) is None
        )

    @given(st.randoms(use_true_random=False), number, number)
    def test_survives_shifting(self, random, dx, dy):
        polygon = star(np.random.default_rng(random.getrandbits(32)))
        assert area(shift(polygon, dx, dy)) == pytest.approx(area(polygon), rel=1e-9)


@pytest.mark.parametrize(
    "shape",
    [
        Rectangle(1, 2, 3, 4, 10.0), Ellipse(5, 5, 2, 1), Polygon((1, 2, 3, 4, 5, 1)), Polyline((1, 2, 3, 4)),
        Points((1.0, 2.0)), Cuboid(tuple(map(float, range(16)))), Mask(np.ones((3, 2), bool), 4, 5),
        Skeleton((Keypoint("a", 1, 2), Keypoint("b", 4, 3))),
    ],
    ids=lambda shape: shape.type,
)  # fmt: skip
def test_every_shape_can_be_shifted(shape):
    moved = shift(shape, 10, 20)
    left, top, right, bottom = bounds(shape)
    assert bounds(moved) == pytest.approx((left + 10, top + 20, right + 10, bottom + 20))
    assert type(moved) is type(shape)
    if isinstance(shape, Rectangle):
        assert moved.rotation == 10


@given(st.lists(st.tuples(number, number, number, number), min_size=1, max_size=5))
def test_overlap_of_rectangles(boxes):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes], np.float64)
    table = iou(boxes, boxes)
    assert table.shape == (len(boxes), len(boxes))
    assert ((table >= 0) & (table <= 1 + 1e-9)).all()
    assert np.allclose(table, table.T)
    for place, (left, top, right, bottom) in enumerate(boxes):
        if (right - left) * (bottom - top) > 1e-6:
            assert table[place, place] == pytest.approx(1)
    assert iou(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0]])) == pytest.approx(1 / 3)


class TestClip:
    def test_what_is_inside_is_the_same_thing(self):
        for shape in (Rectangle(0, 0, 40, 30), Polygon((0, 0, 40, 0, 40, 30)), Points((40.0, 30.0))):
            assert clip(shape, WIDTH, HEIGHT)[0] is shape

    def test_rectangles(self):
        assert clip(Rectangle(-5, -5, 50, 10), WIDTH, HEIGHT) == [Rectangle(0, 0, 40, 10)]
        assert clip(Rectangle(-5, -5, 0, 10), WIDTH, HEIGHT) == []
        assert clip(Rectangle(41, 5, 50, 10), WIDTH, HEIGHT) == []

    def test_turned_ones_keep_their_form(self):
        over = Rectangle(-15, 5, 5, 15, rotation=45)
        assert clip(over, WIDTH, HEIGHT) == [over]
        assert clip(Rectangle(-50, 5, -30, 15, rotation=45), WIDTH, HEIGHT) == []
        assert clip(Ellipse(1, 1, 5, 5), WIDTH, HEIGHT) == [Ellipse(1, 1, 5, 5)]
        assert clip(Ellipse(-1, 1, 5, 5), WIDTH, HEIGHT) == []
        cuboid = Cuboid((-5.0, 3.0) * 4 + (5.0, 9.0) * 4)
        assert clip(cuboid, WIDTH, HEIGHT) == [cuboid]
        assert clip(shift(cuboid, -20, 0), WIDTH, HEIGHT) == []

    def test_points_and_skeletons(self):
        assert clip(Points((1.0, 2.0, 50.0, 2.0)), WIDTH, HEIGHT) == [Points((1.0, 2.0))]
        assert clip(Points((50.0, 2.0)), WIDTH, HEIGHT) == []
        (left,) = clip(Skeleton((Keypoint("a", 1, 2), Keypoint("b", 50, -2))), WIDTH, HEIGHT)
        assert left.elements == (Keypoint("a", 1, 2), Keypoint("b", 40, 0, outside=True))
        assert clip(Skeleton((Keypoint("b", 50, -2),)), WIDTH, HEIGHT) == []
        assert clip(Skeleton((Keypoint("b", 5, 2, outside=True),)), WIDTH, HEIGHT) == []

    def test_a_line_that_comes_back_is_two(self):
        line = Polyline((5.0, 5.0, 5.0, -5.0, 15.0, -5.0, 15.0, 5.0, 16.0, 6.0))
        assert clip(line, WIDTH, HEIGHT) == [Polyline((5, 5, 5, 0)), Polyline((15, 0, 15, 5, 16, 6))]
        assert clip(Polyline((-5.0, 10.0, 50.0, 10.0)), WIDTH, HEIGHT) == [Polyline((0, 10, 40, 10))]
        assert clip(Polyline((-5.0, 3.0, 3.0, -15.0)), WIDTH, HEIGHT) == [], "it passes by the corner"

    @given(st.lists(st.tuples(number, number), min_size=2, max_size=6))
    def test_lines_lie_inside_and_on_the_line(self, points):
        line = Polyline(tuple(n for point in points for n in point))
        for part in clip(line, WIDTH, HEIGHT):
            left, top, right, bottom = bounds(part)
            assert left >= -1e-3
            assert top >= -1e-3
            assert right <= WIDTH + 1e-3
            assert bottom <= HEIGHT + 1e-3
            for x, y in rows(part):
                assert min(distance(x, y, *a, *b) for a, b in pairwise(points)) < 1e-3

    def test_a_bay_over_the_edge_makes_two_polygons(self):
        comb = Polygon((5, 10, 5, -5, 25, -5, 25, 10, 20, 10, 20, -2, 10, -2, 10, 10))
        parts = clip(comb, WIDTH, HEIGHT)
        assert sorted(bounds(part) for part in parts) == [(5, 0, 10, 10), (20, 0, 25, 10)]
        assert sum(area(part) for part in parts) == 100

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=200)
    def test_polygons_are_simple_and_exactly_what_is_inside(self, random):
        rng = np.random.default_rng(random.getrandbits(32))
        polygon = star(rng, (rng.uniform(-5, 45), rng.uniform(-5, 35)), count=int(rng.integers(4, 14)))
        assume(is_simple(rows(polygon)))
        parts = clip(polygon, WIDTH, HEIGHT)
        assert all(is_simple(rows(part).round(9)) for part in parts)
        # The same polygon painted on a larger canvas, of which the picture is a part.
        moved = polygon_to_mask(shift(polygon, 40, 40).points, 130, 120)
        inside = whole(moved, 130, 120)[40 : 40 + HEIGHT, 40 : 40 + WIDTH] if moved else np.zeros((HEIGHT, WIDTH), bool)
        assert (painted(parts, WIDTH, HEIGHT) == inside).mean() > 0.999
        window = abs(sum(area(part) for part in parts) - inside.sum())
        assert window <= 0.75 * sum(len(part.points) / 2 * 5 for part in parts) + 20

    @given(st.randoms(use_true_random=False), st.integers(-40, 30), st.integers(-40, 30))
    def test_masks_lose_what_is_outside(self, random, left, top):
        mask = Mask(blob(np.random.default_rng(random.getrandbits(32))), left, top)
        canvas = np.zeros((200, 200), bool)
        canvas[60 + top : 60 + top + 50, 60 + left : 60 + left + 60] = mask.bitmap
        expected = canvas[60 : 60 + HEIGHT, 60 : 60 + WIDTH]
        parts = clip(mask, WIDTH, HEIGHT)
        assert (len(parts) == 1) == expected.any()
        if parts:
            assert (whole(parts[0], WIDTH, HEIGHT) == expected).all()


def distance(x, y, ax, ay, bx, by):
    """From a point to a stretch of a line."""
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = 0 if length == 0 else min(1, max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length))
    return math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))


class TestOutlines:
    def test_a_box_is_a_box(self):
        bitmap = np.zeros((10, 12), bool)
        bitmap[2:7, 3:9] = True
        (polygon,) = mask_to_polygons(Mask(bitmap, 100, 200), 0)
        assert sorted(map(tuple, rows(polygon))) == [(103, 202), (103, 207), (109, 202), (109, 207)]

    @pytest.mark.parametrize("tolerance", [0, 1, 50])
    def test_a_single_pixel_is_a_polygon(self, tolerance):
        (polygon,) = mask_to_polygons(Mask(np.ones((1, 1), bool)), tolerance)
        assert area(polygon) == 1
        assert mask_to_polygons(Mask(np.zeros((3, 3), bool))) == []

    def test_specks_are_noise_beside_something_larger(self):
        bitmap = np.zeros((20, 20), bool)
        bitmap[2:12, 2:12] = True
        bitmap[15, 15] = True
        bitmap[14:18, 2:5] = True
        bitmap[5, 5] = False
        assert [area(polygon) for polygon in mask_to_polygons(Mask(bitmap), 0)] == [100, 12]

    def test_a_ring_is_one_polygon_with_a_slit(self):
        bitmap = np.ones((20, 20), bool)
        bitmap[5:15, 5:15] = False
        (polygon,) = mask_to_polygons(Mask(bitmap), 1)
        assert is_simple(rows(polygon))
        assert area(polygon) == bitmap.sum() - 5
        assert len(polygon.points) <= 24

    def test_parts_that_touch_at_a_corner_are_joined(self):
        bitmap = np.zeros((8, 8), bool)
        bitmap[:4, :4] = bitmap[4:, 4:] = True
        (polygon,) = mask_to_polygons(Mask(bitmap), 0)
        assert is_simple(rows(polygon))
        assert area(polygon) == 33

    @given(st.randoms(use_true_random=False), st.sampled_from([0, 0.3, 0.5, 1]))
    @settings(max_examples=60, deadline=None)
    def test_there_and_back(self, random, tolerance):
        bitmap = blob(np.random.default_rng(random.getrandbits(32)), smallest=8)
        polygons = mask_to_polygons(Mask(bitmap), tolerance)
        assert all(is_simple(rows(polygon)) for polygon in polygons)
        again = painted(polygons, 60, 50)
        # Slits, specks, and what the tolerance takes from the line around.
        assert (bitmap ^ again).sum() <= 60 + tolerance * 0.5 * sum(map(length, polygons))
        assert abs(sum(area(polygon) for polygon in polygons) - bitmap.sum()) <= 60 + 0.06 * bitmap.sum()
        if bitmap.sum() > 600:
            assert share(bitmap, again) > 0.9

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=60, deadline=None)
    def test_without_holes_nearly_everything_comes_back(self, random):
        bitmap = blob(np.random.default_rng(random.getrandbits(32)), 120, 100, holes=0, smallest=13)
        polygons = mask_to_polygons(Mask(bitmap), 1.0)
        # The line may leave the outline by a pixel, which is much of a blob some 20 pixels across.
        assert share(bitmap, painted(polygons, 120, 100)) >= 0.94
        exact = mask_to_polygons(Mask(bitmap), 0)
        assert share(bitmap, painted(exact, 120, 100)) > 0.995

    def test_small_parts_keep_their_form(self):
        y, x = np.mgrid[:12, :12]
        disc = (x - 5.5) ** 2 + (y - 5.5) ** 2 <= 25
        for tolerance, least in ((1, 0.9), (3, 0.75)):
            (polygon,) = mask_to_polygons(Mask(disc), tolerance)
            assert share(disc, painted([polygon], 12, 12)) > least
        large = mask_to_polygons(Mask(np.kron(disc, np.ones((9, 9), bool))), 9)
        assert len(large[0].points) < 30

    @given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.9))
    @example(0, 0.5)
    @settings(max_examples=60, deadline=None)
    def test_noise_gives_simple_polygons_too(self, seed, density):
        bitmap = np.random.default_rng(seed).random((40, 40)) < density
        for tolerance in (0, 1.0, 3.0):
            assert all(is_simple(rows(polygon)) for polygon in mask_to_polygons(Mask(bitmap), tolerance))

    def test_a_large_noisy_mask_is_bounded_in_time(self):
        bitmap = np.random.default_rng(0).random((600, 800)) < 0.7
        polygons = mask_to_polygons(Mask(bitmap), 1.0)
        assert sum(area(polygon) for polygon in polygons) == pytest.approx(bitmap.size, rel=0.5)


class TestSimple:
    @pytest.mark.parametrize(
        ("points", "simple"),
        [
            ([(0, 0), (4, 0), (4, 4), (0, 4)], True),
            ([(0, 0), (4, 4), (4, 0), (0, 4)], False),
            ([(0, 0), (4, 0), (2, 0)], False),
            ([(0, 0), (4, 0), (4, 4), (2, 0), (0, 4)], False),
            ([(0, 0), (2, 0), (4, 0), (4, 4)], True),
            ([(0, 0), (4, 0), (4, 4), (0, 0), (-4, 4)], False),
            ([(0, 0), (4, 0)], False),
        ],
    )
    def test_known_ones(self, points, simple):
        assert is_simple(np.array(points)) is simple

    @given(st.integers(0, 2**32 - 1))
    @settings(deadline=None)
    def test_against_all_pairs(self, seed):
        rng = np.random.default_rng(seed)
        points = rng.integers(0, 12, (int(rng.integers(3, 9)), 2))
        assert is_simple(points) is all_pairs_simple([tuple(map(int, point)) for point in points])


def all_pairs_simple(points):
    """The slow truth, in whole numbers."""
    edges = list(zip(points, points[1:] + points[:1], strict=True))
    if len(set(points)) != len(points):
        return False
    for i, (a, b) in enumerate(edges):
        for j in range(i + 1, len(edges)):
            c, d = edges[j]
            shared = {a, b} & {c, d}
            if shared:
                (corner,) = shared if len(shared) == 1 else (None,)
                one, other = ({a, b} - shared).pop(), ({c, d} - shared).pop()
                if side(corner, one, other) == 0 and dot(corner, one, other) > 0:
                    return False
            elif meet(a, b, c, d):
                return False
    return True


def side(a, b, p):
    value = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
    return (value > 0) - (value < 0)


def dot(o, a, b):
    return (a[0] - o[0]) * (b[0] - o[0]) + (a[1] - o[1]) * (b[1] - o[1])


def meet(a, b, c, d):
    s1, s2, s3, s4 = side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)
    if s1 == s2 == s3 == s4 == 0:
        return all(max(min(a[k], b[k]), min(c[k], d[k])) <= min(max(a[k], b[k]), max(c[k], d[k])) for k in (0, 1))
    return s1 * s2 <= 0 and s3 * s4 <= 0


class TestPainting:
    def test_pixels_whose_centres_are_inside(self):
        mask = polygon_to_mask((1.4, 1.4, 3.6, 1.4, 3.6, 2.6, 1.4, 2.6), 10, 10)
        assert (mask.left, mask.top, mask.bitmap.tolist()) == (1, 1, [[True] * 3] * 2)
        assert polygon_to_mask((1.6, 1.6, 2.4, 1.6, 2.4, 2.4), 10, 10) is None
        assert polygon_to_mask((-9, -9, -1, -9, -1, -1), 10, 10) is None

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=60, deadline=None)
    def test_against_a_test_of_every_pixel(self, random):
        rng = np.random.default_rng(random.getrandbits(32))
        polygon = Polygon(tuple(float(n) for n in rng.uniform(-10, 45, int(rng.integers(3, 9)) * 2)))
        expected = np.zeros((HEIGHT, WIDTH), bool)
        xs, ys = rows(polygon).T
        nx, ny = np.roll(xs, -1), np.roll(ys, -1)
        for row in range(HEIGHT):
            for column in range(WIDTH):
                px, py = column + 0.5, row + 0.5
                crossing = (ys > py) != (ny > py)
                with np.errstate(divide="ignore", invalid="ignore"):
                    at = xs + (py - ys) / (ny - ys) * (nx - xs)
                expected[row, column] = (at[crossing] <= px).sum() % 2 == 1
        mask = polygon_to_mask(polygon.points, WIDTH, HEIGHT)
        got = whole(mask, WIDTH, HEIGHT) if mask else np.zeros((HEIGHT, WIDTH), bool)
        assert (got == expected).all()


def test_area_of_polygons():
    assert polygon_area((0, 0, 0, 2, 2, 2, 2, 0)) == 4
