"""Drawn fundus photographs with the five grades of diabetic retinopathy: made-up pictures, no patient in them.

    draw(seed, index, grade) -> uint8 [320,320,3]

Deterministic in (seed, index, grade). Everything is composed as light: an illuminated orange-red ground is
multiplied by vessels and blood (which absorb) and blended with disc, exudate and cotton wool (which reflect).
Lesion counts of neighbouring grades overlap, so no classifier can be perfect. Numpy and Pillow only.

    python tools/fundus.py OUT.png [SEED]           # contact sheet, one row a grade
    python tools/fundus.py OUT_DIR SEED COUNT       # so many drawings, the grades in turn, and labels.csv (path, label)
"""
from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 320   # side in pixels
SCALE = 2    # shapes are drawn this much larger, then reduced
GRADES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")

# Lesion counts by grade, uniform on [low, high]. Ranges touch or overlap between neighbours.
MICROANEURYSMS = ((0, 0), (1, 9), (4, 16), (9, 24), (6, 22))
HAEMORRHAGES = ((0, 0), (0, 3), (1, 9), (6, 22), (5, 20))
EXUDATE_CLUSTERS = ((0, 0), (0, 0), (0, 2), (0, 4), (0, 3))
COTTON_WOOL = ((0, 0), (0, 0), (0, 1), (0, 3), (0, 5))
PIGMENT = (0, 2)  # faint harmless specks at every grade


@dataclasses.dataclass
class Eye:
    """Geometry in units of the enlarged canvas, and the generator that all choices come from."""

    rng: np.random.Generator
    centre: np.ndarray   # of the field of view
    radius: float
    disc: np.ndarray
    disc_radius: float
    fovea: np.ndarray
    side: int            # +1: the disc lies right of the fovea

    def place(self, reach: float = 0.88, clear: float = 1.5) -> np.ndarray:
        """A point in the field of view that is off the optic disc."""
        while True:
            angle, r = self.rng.uniform(0, 2 * np.pi), self.radius * reach * np.sqrt(self.rng.uniform())
            point = self.centre + r * np.array([np.cos(angle), np.sin(angle)])
            if np.hypot(*(point - self.disc)) > clear * self.disc_radius:
                return point


class Layer:
    """A coverage mask in [0,1], drawn enlarged."""

    def __init__(self) -> None:
        self.image = Image.new("L", (SIZE * SCALE, SIZE * SCALE))
        self.pen = ImageDraw.Draw(self.image)
        self.empty = True

    def blob(self, rng: np.random.Generator, centre: np.ndarray, radius: float, rough: float = 0.2, shade: float = 1.0,
             stretch: float = 1.0, angle: float = 0.0) -> None:
        """A closed outline around a circle or ellipse, disturbed by a few random harmonics."""
        a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        r = np.ones_like(a)
        for k in (2, 3, 5):
            r += rough * rng.normal() / k * np.cos(k * a + rng.uniform(0, 2 * np.pi))
        x, y = radius * stretch * r * np.cos(a), radius / stretch * r * np.sin(a)
        c, s = np.cos(angle), np.sin(angle)
        points = np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], 1)
        self.pen.polygon([tuple(p) for p in points], fill=int(255 * shade))
        self.empty = False

    def path(self, points: list[tuple[float, float]], widths: list[float], shade: float) -> None:
        fill = int(255 * shade)
        for p, q, w in zip(points, points[1:], widths, strict=False):
            self.pen.line([p, q], fill=fill, width=max(1, round(w)))
            if w > 3:
                self.pen.ellipse([q[0] - w / 2 + 0.7, q[1] - w / 2 + 0.7, q[0] + w / 2 - 0.7, q[1] + w / 2 - 0.7], fill=fill)
        self.empty = False

    def mask(self, blur: float = 0.0) -> np.ndarray:
        """[SIZE,SIZE] float32; blur in final pixels."""
        image = self.image.reduce(SCALE)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        return np.asarray(image, np.float32) / 255


def smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """[SIZE,SIZE] about N(0,1), smooth over SIZE/cells pixels."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def vessel(eye: Eye, layer: Layer, start: np.ndarray, heading: float, width: float, bend: float, length: float,
           shade: float, depth: int = 0) -> None:
    """A wandering line that thins, and branches to either side. Lengths in units of the field's radius."""
    rng, r = eye.rng, eye.radius
    step = 0.035 * r
    point, points, widths, wander = start.astype(float), [tuple(start)], [], 0.0
    for i in range(int(length / 0.035)):
        wander = 0.8 * wander + rng.normal(0, 0.03 + 0.012 * depth)
        heading += bend + wander
        bend *= 0.965
        point = point + step * np.array([np.cos(heading), np.sin(heading)])
        if np.hypot(*(point - eye.centre)) > 1.05 * r or np.hypot(*(point - eye.fovea)) < 0.16 * r:
            break
        points.append(tuple(point))
        widths.append(width)
        width *= 0.982
        if depth < 3 and i > 1 and width > 1.0 and rng.uniform() < (0.13, 0.10, 0.07)[depth]:
            turn = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
            share = rng.uniform(0.5, 0.75)
            vessel(eye, layer, point, heading + turn, width * share, -turn * 0.045, length * rng.uniform(0.3, 0.6), shade, depth + 1)
            heading -= 0.12 * turn
            width *= 0.93
    if widths:
        layer.path(points, widths, shade)


def vessels(eye: Eye) -> tuple[Layer, Layer]:
    """Arteries and veins: one of each per quadrant, the temporal pairs arching round the fovea."""
    rng, layers = eye.rng, (Layer(), Layer())
    temporal = np.pi if eye.side > 0 else 0.0
    for kind, (layer, shade, width) in enumerate(zip(layers, (0.75, 1.0), (0.020, 0.029), strict=True)):
        for up in (-1, 1):
            sign = up * (1 if eye.side < 0 else -1)  # rotation that turns an arcade toward the temporal side
            base = temporal + sign * (rng.uniform(1.1, 1.4) + 0.2 * kind)
            start = eye.disc + eye.disc_radius * rng.normal(0, 0.15, 2)
            vessel(eye, layer, start, base, width * eye.radius, -sign * rng.uniform(0.05, 0.068), 2.2, shade)
            base = temporal + np.pi - sign * rng.uniform(0.5, 1.2)
            vessel(eye, layer, start, base, 0.72 * width * eye.radius, sign * rng.uniform(-0.02, 0.03), 1.2, shade)
        base = temporal + rng.uniform(-0.6, 0.6)
        vessel(eye, layer, eye.disc.copy(), base, 0.3 * width * eye.radius, rng.uniform(-0.03, 0.03), 0.6, shade, 1)
    return layers


def tuft(eye: Eye, layer: Layer, centre: np.ndarray, reach: float) -> None:
    """New vessels: a tangle of fine, tightly curling lines."""
    rng = eye.rng
    for _ in range(rng.integers(14, 24)):
        heading, curl = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.35)
        point, points = centre + rng.normal(0, 0.25 * reach, 2), []
        for _ in range(rng.integers(8, 16)):
            points.append(tuple(point))
            heading += curl + rng.normal(0, 0.3)
            point = point + 0.14 * reach * np.array([np.cos(heading), np.sin(heading)])
        layer.path(points, [rng.choice([2.0, 2.5, 3.0])] * len(points), 0.95)


@dataclasses.dataclass
class Lesions:
    dots: Layer
    blood: Layer
    exudate: Layer
    wool: Layer
    tufts: Layer


def lesions(eye: Eye, grade: int) -> Lesions:
    rng, r = eye.rng, eye.radius
    out = Lesions(Layer(), Layer(), Layer(), Layer(), Layer())

    def count(table: tuple[tuple[int, int], ...]) -> int:
        low, high = table[grade]
        return int(rng.integers(low, high + 1))

    for _ in range(count(MICROANEURYSMS)):
        out.dots.blob(rng, eye.place(), r * rng.uniform(0.010, 0.017), rough=0.1, shade=rng.uniform(0.55, 1.0))
    for _ in range(rng.integers(PIGMENT[0], PIGMENT[1] + 1)):
        out.dots.blob(rng, eye.place(), r * rng.uniform(0.009, 0.02), rough=0.2, shade=rng.uniform(0.15, 0.4))
    for _ in range(count(HAEMORRHAGES)):
        flame = rng.uniform() < 0.3
        out.blood.blob(rng, eye.place(), r * rng.uniform(0.022, 0.05), rough=0.45, shade=rng.uniform(0.75, 1.0),
                       stretch=rng.uniform(1.5, 2.0) if flame else rng.uniform(1.0, 1.3), angle=rng.uniform(0, np.pi))
    for _ in range(count(EXUDATE_CLUSTERS)):
        centre, spread = eye.place(0.65), r * rng.uniform(0.06, 0.14)
        for _ in range(rng.integers(6, 22)):
            out.exudate.blob(rng, centre + rng.normal(0, spread, 2), r * rng.uniform(0.009, 0.022), rough=0.4, shade=rng.uniform(0.7, 1.0))
    for _ in range(count(COTTON_WOOL)):
        out.wool.blob(rng, eye.place(0.75), r * rng.uniform(0.035, 0.065), rough=0.5, shade=rng.uniform(0.6, 0.9))
    if grade == 4:
        on_disc, elsewhere, boat = rng.uniform(size=3) < (0.45, 0.5, 0.45)
        if on_disc:
            tuft(eye, out.tufts, eye.disc + rng.normal(0, 0.3 * eye.disc_radius, 2), 1.1 * eye.disc_radius)
        if elsewhere or not (on_disc or boat):
            for _ in range(rng.integers(1, 4)):
                tuft(eye, out.tufts, eye.place(0.8), r * rng.uniform(0.06, 0.15))
        if boat:  # preretinal blood settles with a level upper edge
            c, w = eye.place(0.6), r * rng.uniform(0.08, 0.24)
            out.blood.pen.chord([c[0] - w, c[1] - 0.7 * w, c[0] + w, c[1] + 0.7 * w], 0, 180, fill=245)
            out.blood.empty = False
        if rng.uniform() < 0.5:
            out.blood.blob(rng, eye.place(0.75), r * rng.uniform(0.05, 0.11), rough=0.5)
    return out


def inside(d: np.ndarray, edge: float, sharpness: float) -> np.ndarray:
    """1 within `edge`, 0 beyond, a logistic between."""
    return 0.5 - 0.5 * np.tanh(np.float32(0.5 * sharpness) * (d - np.float32(edge)))


def planar(colour: tuple[float, float, float]) -> np.ndarray:
    return np.float32(colour)[:, None, None]


def blend(image: np.ndarray, mask: np.ndarray, colour: tuple[float, float, float], strength: float = 1.0) -> np.ndarray:
    return image + np.float32(strength) * mask * (planar(colour) - image)


def absorb(image: np.ndarray, mask: np.ndarray, loss: tuple[float, float, float]) -> np.ndarray:
    return image * (1 - mask * planar(loss))


def new_eye(rng: np.random.Generator) -> Eye:
    big = SIZE * SCALE
    radius = big * rng.uniform(0.475, 0.53)
    centre = big / 2 + rng.normal(0, 0.008 * big, 2)
    side = int(rng.choice([-1, 1]))
    fovea = centre + radius * np.array([-side * rng.uniform(-0.08, 0.16), rng.uniform(-0.07, 0.07)])
    disc = fovea + radius * np.array([side * rng.uniform(0.58, 0.72), rng.uniform(-0.12, 0.04)])
    return Eye(rng, centre, radius, disc, radius * rng.uniform(0.125, 0.155), fovea, side)


def draw(seed: int, index: int, grade: int) -> np.ndarray:
    if grade not in range(len(GRADES)):
        raise ValueError(f"grade must be 0 to {len(GRADES) - 1}, got {grade!r}")
    rng = np.random.default_rng([seed, index, grade])
    eye = new_eye(rng)
    grid = (np.arange(SIZE, dtype=np.float32) + 0.5) * SCALE

    def distance(point: np.ndarray, stretch: float = 1.0) -> np.ndarray:
        """[SIZE,SIZE] from `point`, in units of the field's radius."""
        dx = (grid - np.float32(point[0])) * np.float32(stretch / eye.radius)
        dy = (grid - np.float32(point[1])) * np.float32(1 / eye.radius)
        return np.sqrt(dx[None, :] ** 2 + dy[:, None] ** 2)

    # Ground: colour, uneven illumination, pigment texture.
    red = rng.uniform(0.66, 0.92)
    ground = (red, red * rng.uniform(0.36, 0.52), red * rng.uniform(0.16, 0.34))
    tilt, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.16)
    off = (grid[:, None] - eye.centre.astype(np.float32)) * np.float32(slope / eye.radius) * np.float32([np.cos(tilt), np.sin(tilt)])
    across = off[None, :, 0] + off[:, None, 1]
    rho = distance(eye.centre)
    light = (1 + across) * (1 - np.float32(rng.uniform(0.12, 0.4)) * rho * rho)
    light = light * (1 + 0.035 * smooth_noise(rng, 6) + 0.025 * smooth_noise(rng, 18) + 0.02 * smooth_noise(rng, 70))
    image = np.maximum(planar(ground) * light, 0)  # [3,SIZE,SIZE]
    image *= 1 + smooth_noise(rng, 5) * planar((0.010, 0.035, 0.042))

    # Fovea and optic disc (pale rim, paler cup, a soft halo).
    depth, spread = rng.uniform(0.25, 0.5), rng.uniform(0.10, 0.15)
    image = absorb(image, np.exp(-((distance(eye.fovea) / spread) ** 2) / 2), (0.55 * depth, depth, 0.8 * depth))
    image = absorb(image, np.exp(-((distance(eye.fovea) / 0.28) ** 2) / 2), (0.04, 0.10, 0.08))
    d = distance(eye.disc, 1.08) / (eye.disc_radius / eye.radius)
    gain = red / 0.8
    image = blend(image, np.exp(-((d / 1.45) ** 2)), (0.95 * gain, 0.58 * gain, 0.35 * gain), 0.25)
    image = blend(image, inside(d, 1, 14), (0.98 * gain, 0.70 * gain, 0.42 * gain), rng.uniform(0.7, 0.9))
    image = blend(image, inside(d, rng.uniform(0.35, 0.55), 10), (1.03 * gain, 0.88 * gain, 0.64 * gain), 0.65)

    arteries, veins = vessels(eye)
    marks = lesions(eye, grade)
    image = absorb(image, arteries.mask(0.4), (0.20, 0.46, 0.36))
    image = absorb(image, veins.mask(0.4), (0.34, 0.60, 0.48))
    if not marks.exudate.empty:
        image = blend(image, marks.exudate.mask(0.4), (1.0 * gain, 0.86 * gain, 0.42 * gain), 0.9)
    if not marks.wool.empty:
        image = blend(image, marks.wool.mask(1.8), (0.97 * gain, 0.86 * gain, 0.70 * gain), 0.8)
    if not marks.tufts.empty:
        image = absorb(image, marks.tufts.mask(0.3), (0.35, 0.66, 0.55))
    if not marks.dots.empty:
        image = absorb(image, marks.dots.mask(0.3), (0.42, 0.72, 0.60))
    if not marks.blood.empty:
        image = absorb(image, marks.blood.mask(0.8) * (0.88 + 0.08 * smooth_noise(rng, 60)), (0.50, 0.80, 0.68))

    # Camera: focus, field stop, exposure, sensor noise.
    field = inside(rho, 1, rng.uniform(90, 250))
    image = (image * field + np.float32(0.012)) * np.float32(rng.uniform(0.85, 1.12))
    image = image + np.float32(rng.uniform(0.004, 0.014)) * rng.standard_normal(image.shape, np.float32)
    out = Image.fromarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy())
    return np.asarray(out.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.6))))


def contact_sheet(seed: int, columns: int = 5) -> Image.Image:
    sheet = Image.new("RGB", (columns * SIZE, len(GRADES) * SIZE))
    for grade in range(len(GRADES)):
        for i in range(columns):
            sheet.paste(Image.fromarray(draw(seed, i, grade)), (i * SIZE, grade * SIZE))
    return sheet


def labelled_folder(folder: Path, seed: int, count: int) -> None:
    """OUT_DIR/0000.png .. and labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(f"{i:04d}.png", i % len(GRADES)) for i in range(count)]
    for i, (name, grade) in enumerate(rows):
        Image.fromarray(draw(seed, i, grade)).save(folder / name)
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((name, GRADES[grade]) for name, grade in rows)])


if __name__ == "__main__":
    if len(sys.argv) == 4:
        labelled_folder(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    elif len(sys.argv) in (2, 3):
        contact_sheet(int(sys.argv[2]) if len(sys.argv) == 3 else 0).save(sys.argv[1])
    else:
        sys.exit(__doc__)
