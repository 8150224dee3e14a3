"""The object classes of the miniature world, drawn with Pillow: each a few shapes in a unit square."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import ImageDraw

Point = tuple[float, float]
Paint = tuple[int, int, int]

DARK: Paint = (45, 45, 52)
LIGHT: Paint = (245, 245, 240)


@dataclass(frozen=True)
class Style:
    """How shapes are drawn; widths in fractions of the object's size.

    Attributes:
        outline: width of the outline: wide enough to separate an object from a background of its own colour.
        inverted: whether outlines are light by day and dark by night, and not the other way round.
        contour: width of the line in the object's colour, in place of filled shapes; 0 for filled ones.
    """

    outline: float = 0.045
    inverted: bool = False
    contour: float = 0.0


STYLES = {
    "filled": Style(),
    "bold": Style(outline=0.1, inverted=True),
    "contour": Style(outline=0.17, contour=0.095),
}  # training shows the first alone


@dataclass(frozen=True)
class Pen:
    """Draws shapes of the unit square ((0, 0) top left) onto a canvas, scaled, rotated and moved to the object."""

    canvas: ImageDraw.ImageDraw
    centre: Point
    size: float
    turn: float  # radians
    colour: Paint
    outline: Paint
    style: Style = STYLES["filled"]

    def place(self, points: list[Point]) -> list[Point]:
        """Maps points of the unit square to canvas pixels."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        placed = []
        for x, y in points:
            dx, dy = (x - 0.5) * self.size, (y - 0.5) * self.size
            placed.append((self.centre[0] + dx * cos - dy * sin, self.centre[1] + dx * sin + dy * cos))
        return placed

    def polygon(self, points: list[Point], paint: Paint | None = None) -> None:
        """Draws a polygon with an outline, filled unless the style has contours alone.

        Args:
            points: its corners.
            paint: the fill; None means the object's colour.
        """
        self.cover(points, paint)
        closed = [*points, points[0], points[1]]
        self._stroke(closed, self.outline, self.style.outline)
        if self.style.contour:
            self._stroke(closed, paint or self.colour, self.style.contour)

    def cover(self, points: list[Point], paint: Paint | None = None) -> None:
        """Fills a polygon without an outline, over what was drawn; nothing in a style of contours.

        Args:
            points: its corners.
            paint: the fill; None means the object's colour.
        """
        if not self.style.contour:
            self.canvas.polygon(self.place(points), fill=paint or self.colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, paint: Paint | None = None) -> None:
        """Draws a filled ellipse with an outline.

        Args:
            x: the horizontal position of its centre.
            y: the vertical position of its centre.
            rx: half its width.
            ry: half its height.
            paint: the fill; None means the object's colour.
        """
        self.polygon(_arc(x, y, rx, ry, 0, 360), paint)

    def line(self, points: list[Point], paint: Paint | None = None, width: float = 0.07) -> None:
        """Draws a line.

        Args:
            points: the points that it connects.
            paint: its colour; None means that of outlines.
            width: its width, in object sizes.
        """
        self.canvas.line(self.place(points), fill=paint or self.outline, width=max(1, round(self.size * width)))

    def _stroke(self, points: list[Point], paint: Paint, width: float) -> None:
        placed = self.place(points)
        self.canvas.line(placed, fill=paint, width=max(1, round(self.size * width)), joint="curve")


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Returns points along an arc of an ellipse; `start` and `end` are degrees clockwise from the right."""
    steps = 28
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def house(pen: Pen) -> None:
    pen.polygon([(0.15, 0.45), (0.85, 0.45), (0.85, 0.95), (0.15, 0.95)])
    pen.polygon([(0.05, 0.47), (0.5, 0.05), (0.95, 0.47)])
    pen.polygon([(0.42, 0.65), (0.6, 0.65), (0.6, 0.95), (0.42, 0.95)], LIGHT)


def tree(pen: Pen) -> None:
    pen.polygon([(0.43, 0.6), (0.57, 0.6), (0.57, 0.98), (0.43, 0.98)], DARK)
    pen.polygon([(0.5, 0.02), (0.88, 0.38), (0.7, 0.38), (0.95, 0.72), (0.05, 0.72), (0.3, 0.38), (0.12, 0.38)])


def sun(pen: Pen) -> None:
    for ray in range(8):
        angle = math.radians(ray * 45)
        cos, sin = math.cos(angle), math.sin(angle)
        pen.line([(0.5 + 0.3 * cos, 0.5 + 0.3 * sin), (0.5 + 0.5 * cos, 0.5 + 0.5 * sin)], pen.colour, 0.11)
    pen.ellipse(0.5, 0.5, 0.27, 0.27)


def moon(pen: Pen) -> None:
    pen.polygon(_arc(0.5, 0.5, 0.46, 0.46, 50, 310) + _arc(0.72, 0.5, 0.36, 0.36, 285, 75))


def car(pen: Pen) -> None:
    pen.polygon([(0.22, 0.5), (0.34, 0.26), (0.68, 0.26), (0.8, 0.5)], LIGHT)
    pen.polygon([(0.02, 0.5), (0.92, 0.48), (0.98, 0.75), (0.02, 0.75)])
    pen.ellipse(0.25, 0.76, 0.13, 0.13, DARK)
    pen.ellipse(0.75, 0.76, 0.13, 0.13, DARK)


def boat(pen: Pen) -> None:
    pen.line([(0.48, 0.04), (0.48, 0.68)], DARK)
    pen.polygon([(0.54, 0.08), (0.54, 0.58), (0.92, 0.58)], LIGHT)
    pen.polygon([(0.02, 0.66), (0.98, 0.66), (0.78, 0.94), (0.22, 0.94)])


def fish(pen: Pen) -> None:
    pen.polygon([(0.68, 0.5), (0.98, 0.22), (0.98, 0.78)])
    pen.ellipse(0.4, 0.5, 0.37, 0.25)
    pen.ellipse(0.2, 0.45, 0.05, 0.05, DARK)


def flower(pen: Pen) -> None:
    pen.line([(0.5, 0.5), (0.5, 1.0)], DARK, 0.08)
    for petal in range(5):
        angle = math.radians(petal * 72 - 90)
        pen.ellipse(0.5 + 0.22 * math.cos(angle), 0.36 + 0.22 * math.sin(angle), 0.15, 0.15)
    pen.ellipse(0.5, 0.36, 0.11, 0.11, LIGHT)


def bird(pen: Pen) -> None:
    pen.polygon([(0.04, 0.32), (0.3, 0.5), (0.1, 0.62)])
    pen.ellipse(0.48, 0.55, 0.3, 0.21)
    pen.ellipse(0.76, 0.32, 0.16, 0.16)
    pen.polygon([(0.88, 0.28), (1.0, 0.35), (0.88, 0.4)], DARK)
    pen.line([(0.44, 0.75), (0.42, 0.98)], DARK, 0.06)
    pen.line([(0.56, 0.75), (0.58, 0.98)], DARK, 0.06)


def cat(pen: Pen) -> None:
    pen.polygon([(0.12, 0.05), (0.4, 0.25), (0.6, 0.25), (0.88, 0.05), (0.92, 0.5), (0.08, 0.5)])
    pen.ellipse(0.5, 0.58, 0.43, 0.36)
    pen.ellipse(0.34, 0.52, 0.07, 0.08, DARK)
    pen.ellipse(0.66, 0.52, 0.07, 0.08, DARK)
    pen.polygon([(0.44, 0.66), (0.56, 0.66), (0.5, 0.74)], LIGHT)


def star(pen: Pen) -> None:
    points = []
    for corner in range(10):
        radius = 0.5 if corner % 2 == 0 else 0.2
        angle = math.radians(corner * 36 - 90)
        points.append((0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle)))
    pen.polygon(points)


def heart(pen: Pen) -> None:
    steps = [math.radians(degree) for degree in range(0, 360, 10)]
    pen.polygon(
        [
            (
                0.5 + 0.03 * 16 * math.sin(t) ** 3,
                0.47 - 0.03 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
            )
            for t in steps
        ]
    )


def ball(pen: Pen) -> None:
    pen.ellipse(0.5, 0.5, 0.46, 0.46)
    pen.line(_arc(0.5, 0.5, 0.18, 0.45, 90, 270), LIGHT, 0.07)
    pen.line(_arc(0.5, 0.5, 0.18, 0.45, -90, 90), LIGHT, 0.07)


def cup(pen: Pen) -> None:
    pen.ellipse(0.8, 0.48, 0.17, 0.19)
    pen.ellipse(0.8, 0.48, 0.08, 0.1, LIGHT)
    pen.polygon([(0.1, 0.18), (0.78, 0.18), (0.7, 0.88), (0.18, 0.88)])
    pen.ellipse(0.44, 0.18, 0.34, 0.08, LIGHT)


def umbrella(pen: Pen) -> None:
    pen.line([(0.5, 0.4), (0.5, 0.92), (0.64, 0.96), (0.68, 0.84)], DARK)
    pen.polygon(_arc(0.5, 0.5, 0.48, 0.44, 180, 360))


def mushroom(pen: Pen) -> None:
    pen.polygon([(0.38, 0.5), (0.62, 0.5), (0.68, 0.95), (0.32, 0.95)], LIGHT)
    pen.polygon(_arc(0.5, 0.52, 0.46, 0.44, 180, 360))
    pen.ellipse(0.35, 0.34, 0.07, 0.07, LIGHT)
    pen.ellipse(0.63, 0.3, 0.08, 0.08, LIGHT)


def apple(pen: Pen) -> None:
    pen.line([(0.5, 0.3), (0.58, 0.05)], DARK)
    pen.ellipse(0.35, 0.58, 0.29, 0.35)
    pen.ellipse(0.65, 0.58, 0.29, 0.35)
    pen.cover(_arc(0.5, 0.6, 0.32, 0.28, 0, 360))
    pen.polygon([(0.58, 0.2), (0.86, 0.06), (0.78, 0.26)], LIGHT)


def flag(pen: Pen) -> None:
    pen.line([(0.12, 0.04), (0.12, 1.0)], DARK, 0.08)
    pen.polygon([(0.15, 0.06), (0.96, 0.06), (0.78, 0.3), (0.96, 0.54), (0.15, 0.54)])


DRAWINGS = {
    drawing.__name__: drawing
    for drawing in (
        house, tree, sun, moon, car, boat, fish, flower, bird,
        cat, star, heart, ball, cup, umbrella, mushroom, apple, flag,
    )
}  # fmt: skip
