"""Draws the pictures of docs/methods/ and the chart of docs/choosing.md, as SVG.

python tools/method_pictures.py                 all of them
python tools/method_pictures.py SimCLR chart    some
python tools/method_pictures.py --png=FOLDER    as PNG on white and on black, to look at

Boxes have a light fill and dark text, and what lies between them is a gray that is read on white and on black, so that
one file serves light and dark pages.
"""

import argparse
import itertools
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "methods" / "images"
CHART = pathlib.Path(__file__).parent.parent / "docs" / "images" / "choosing.svg"
GRAY, DARK = "#808690", "#1c2430"
FILLS = {
    "question": "#f5eec0",
    "data": "#e3e8ef",  # images, views, patches
    "net": "#bcd9f7",  # trained by the gradient
    "teacher": "#fbd9a5",  # a moving average, or frozen: no gradient
    "memory": "#dccff2",  # kept from past batches
    "loss": "#bfe6c8",
}
WIDTH, HEIGHT = 1.42, 0.52  # of a box, in inches; a column is 1.85 apart, a row 0.8
COLUMN, ROW = 1.85, 0.8


class Picture:
    """Boxes on a grid of columns and rows, row 0 at the top, and arrows between them."""

    def __init__(self):
        self.boxes, self.arrows = {}, []

    def box(self, name, column, row, text, kind="net", width=WIDTH, height=HEIGHT):
        """A box at a place of the grid; `row` may be between two, and `height` that of both."""
        self.boxes[name] = (column * COLUMN, -row * ROW, text, kind, width, height)
        return self

    def tall(self, name, column, rows, text, kind="net"):
        """One box over several rows: one network that sees each of them."""
        first, last = rows
        return self.box(name, column, (first + last) / 2, text, kind, height=HEIGHT + (last - first) * ROW)

    def arrow(self, start, end, label="", stop=False, update=False, row=None):
        """An arrow between two boxes; `row` of tall ones, `stop` where no gradient goes back, `update` after a step."""
        self.arrows.append((start, end, label, stop, update, row))
        return self

    def path(self, *names, row=None):
        for start, end in itertools.pairwise(names):
            self.arrow(start, end, row=row)
        return self

    def draw(self):
        lefts = [x - w / 2 for x, _, _, _, w, _ in self.boxes.values()]
        rights = [x + w / 2 for x, _, _, _, w, _ in self.boxes.values()]
        tops = [y + h / 2 for _, y, _, _, _, h in self.boxes.values()]
        bottoms = [y - h / 2 for _, y, _, _, _, h in self.boxes.values()]
        (left, right), (bottom, top) = (min(lefts) - 0.1, max(rights) + 0.1), (min(bottoms) - 0.1, max(tops) + 0.1)
        figure = plt.figure(figsize=(right - left, top - bottom))
        axes = figure.add_axes([0, 0, 1, 1], xlim=(left, right), ylim=(bottom, top))
        axes.axis("off")
        for x, y, text, kind, width, height in self.boxes.values():
            shape = "round,pad=0,rounding_size=0.08"
            patch = FancyBboxPatch(
                (x - width / 2, y - height / 2), width, height, shape, fc=FILLS[kind], ec=GRAY, lw=0.8
            )
            axes.add_patch(patch)
            axes.text(x, y, text, ha="center", va="center", color=DARK, fontsize=9.5, linespacing=1.15)
        for arrow in self.arrows:
            self._arrow(axes, *arrow)
        return figure

    def _arrow(self, axes, start, end, label, stop, update, row):
        (x, y, _, _, w, h), (u, v, _, _, other, tall) = self.boxes[start], self.boxes[end]
        if abs(u - x) < 0.3:  # one above the other
            down = v < y
            a, b = (x, y - h / 2 if down else y + h / 2), (x, v + tall / 2 if down else v - tall / 2)
        else:
            sign = 1 if u > x else -1
            at = -row * ROW if row is not None else None
            a = (x + sign * w / 2, _within(at if at is not None else v, y, h))
            b = (u - sign * other / 2, _within(at if at is not None else y, v, tall))
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": GRAY, "shrinkA": 0, "shrinkB": 0, "lw": 1.3}
        axes.add_patch(FancyArrowPatch(a, b, **style, linestyle=(0, (3, 2)) if update else "-"))
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        if stop:  # two short strokes across the arrow
            for shift in (-0.07, 0.0):
                across = [middle[0] + shift - 0.03, middle[0] + shift + 0.03], [middle[1] - 0.09, middle[1] + 0.09]
                axes.plot(*across, color=GRAY, lw=1.6)
        if label:
            beside = abs(u - x) < 0.3
            place = (middle[0] + 0.07, middle[1]) if beside else (middle[0], middle[1] + 0.13)
            axes.text(*place, label, ha="left" if beside else "center", va="center", color=GRAY, fontsize=8.5)


def _within(wanted, center, height):
    """The height at which an arrow leaves a box: where it is wanted, if the box is there."""
    half = max(0.0, height / 2 - 0.26)
    return min(max(wanted, center - half), center + half)


def two_views(names=("view a", "view b")):
    """An image and its two views, in columns 0 and 1."""
    picture = Picture().box("image", 0, 0.5, "image", "data", width=0.8)
    for row, name in enumerate(names):
        picture.box(f"view {row}", 1, row, name, "data", width=0.9).arrow("image", f"view {row}")
    return picture


def shared(projector=True, names=("view a", "view b")):
    """Both views through one network."""
    picture = two_views(names).tall("backbone", 2, (0, 1), "backbone\n(what you keep)")
    last = "backbone"
    if projector:
        picture.tall("projector", 3, (0, 1), "projector").arrow(last, "projector", row=0).arrow(
            last, "projector", row=1
        )
    return picture.arrow("view 0", "backbone", row=0).arrow("view 1", "backbone", row=1)


def with_teacher(below="moving average", views=None):
    """The first view through the network, the second through its slow copy."""
    picture = views or two_views()
    for row, (kind, text) in enumerate((("net", "backbone\n(what you keep)"), ("teacher", "teacher's\nbackbone"))):
        picture.box(f"backbone {row}", 2, row, text, kind)
        picture.box(f"projector {row}", 3, row, "projector" if row == 0 else "teacher's\nprojector", kind)
        picture.path(f"view {row}", f"backbone {row}", f"projector {row}")
    picture.arrow("backbone 0", "backbone 1", below, update=True)
    return picture.arrow("projector 0", "projector 1", update=True)


def both(picture, text, column=4, rows=(0, 1), sources=("projector", "projector"), stop=(False, False)):
    """The loss of both rows."""
    picture.tall("loss", column, rows, text, "loss")
    for row, (source, stopped) in enumerate(zip(sources, stop)):
        picture.arrow(source, "loss", stop=stopped, row=row)
    return picture


def simclr():
    return both(shared(), "NT-Xent:\npartner near, all\nother views of\nthe batch far")


def byol():
    picture = with_teacher().box("predictor", 4, 0, "predictor").arrow("projector 0", "predictor")
    return both(picture, "2 − 2·cos\nand with the\nviews swapped", 5, sources=("predictor", "projector 1"), stop=(0, 1))


def barlow_twins():
    return both(shared(), "correlations of\ndimensions over\nthe batch:\nthe identity")


def vicreg():
    return both(shared(), "distance of views,\nvariance ≥ 1,\ncovariances 0")


def simsiam():
    picture = shared().box("predictor", 4, 0, "predictor").arrow("projector", "predictor", row=0)
    return both(picture, "1 − cos\nand with the\nviews swapped", 5, sources=("predictor", "projector"), stop=(0, 1))


def beside_memory(picture, text, memory, sources=("projector 0", "projector 1"), push=None):
    """The loss of two rows and of what is kept from past batches, in a third row."""
    picture.tall("loss", 4, (0, 2), text, "loss").box("memory", 3, 2, memory, "memory", width=1.6)
    for row, source in enumerate(sources):
        picture.arrow(source, "loss", stop=row == 1, row=row)
    if push:
        picture.arrow(push, "memory", "push", update=True)
    return picture.arrow("memory", "loss", row=2)


def moco():
    text = "InfoNCE:\nthe key near, all\nkeys of the\nqueue far"
    return beside_memory(with_teacher(), text, "queue of\npast keys", push="projector 1")


def moco_v3():
    picture = with_teacher().box("predictor", 4, 0, "predictor").arrow("projector 0", "predictor")
    text = "InfoNCE: own key\nnear, keys of the\nbatch far; and\nswapped"
    return both(picture, text, 5, sources=("predictor", "projector 1"), stop=(0, 1))


def nnclr():
    picture = shared().box("predictor", 4, 0, "predictor").arrow("projector", "predictor", row=0)
    picture.box("nearest", 4, 1, "its nearest in\nthe queue", "memory").arrow("projector", "nearest", row=1)
    return both(
        picture, "InfoNCE: the\nneighbor near,\nother images far", 5, sources=("predictor", "nearest"), stop=(0, 1)
    )


def tico():
    return beside_memory(
        with_teacher(), "1 − cos, and\naway from the\nlarge directions\nof C", "C: running mean\nof z zᵀ"
    )


def mmcr():
    picture = shared(names=("view 1", "… view v"))
    picture.tall("mean", 4, (0, 1), "centroid of\nan image's\nviews")
    picture.arrow("projector", "mean", row=0).arrow("projector", "mean", row=1)
    return picture.box("loss", 5, 0.5, "nuclear norm of\nall centroids:\nlarge", "loss", height=0.75).arrow(
        "mean", "loss"
    )


def lejepa():
    picture = shared(names=("view 1", "… view v"))
    picture.box("mean", 4, 0, "distance to the\nmean of views", "loss").arrow("projector", "mean", row=0)
    return picture.box("sigreg", 4, 1, "SIGReg: Gaussian\nin all directions", "loss").arrow(
        "projector", "sigreg", row=1
    )


def swav():
    picture = shared().tall("prototypes", 4, (0, 1), "prototypes\n(trained)")
    picture.arrow("projector", "prototypes", row=0).arrow("projector", "prototypes", row=1)
    picture.box("softmax", 5, 0, "softmax").box("sinkhorn", 5, 1, "dealt evenly\n(Sinkhorn)", "teacher")
    picture.arrow("prototypes", "softmax", row=0).arrow("prototypes", "sinkhorn", row=1)
    return both(picture, "cross-entropy\nand with the\nviews swapped", 6, sources=("softmax", "sinkhorn"), stop=(0, 1))


def dino():
    picture = with_teacher()
    picture.box("p0", 4, 0, "prototypes,\nsoftmax").box("p1", 4, 1, "less the center,\nsharpened", "teacher")
    picture.arrow("projector 0", "p0").arrow("projector 1", "p1")
    return both(picture, "cross-entropy\nand with the\nviews swapped", 5, sources=("p0", "p1"), stop=(0, 1))


def ibot():
    picture = Picture().box("image", 0, 0.5, "image", "data", width=0.7)
    picture.box("view 0", 1, 0, "view, patches\nhidden", "data", width=1.2).box(
        "view 1", 1, 1, "the same view,\nwhole", "data", width=1.2
    )
    picture = with_teacher(views=picture.arrow("image", "view 0").arrow("image", "view 1"))
    picture.box("p0", 4, 0, "prototypes,\nsoftmax").box("p1", 4, 1, "less the center,\nsharpened", "teacher")
    picture.arrow("projector 0", "p0").arrow("projector 1", "p1")
    text = "cross-entropy\nof hidden patches;\nof images across\nthe views (DINO)"
    return both(picture, text, 5, sources=("p0", "p1"), stop=(0, 1))


def pairs(picture, names):
    for row, name in enumerate(names):
        picture.box(f"view {row}", 0, row, name, "data", width=1.1)
    last = len(names) - 1
    picture.tall("backbone", 1.1, (0, last), "backbone\n(what you keep)")
    for row in range(len(names)):
        picture.arrow(f"view {row}", "backbone", row=row)
    return picture


def siamese():
    picture = pairs(Picture(), ("image or view", "another"))
    picture.tall("distance", 2.1, (0, 1), "distance d").arrow("backbone", "distance", row=0)
    picture.arrow("backbone", "distance", row=1)
    picture.box("same", 3.25, 0, "of a kind: d²", "loss", width=1.8).arrow("distance", "same", row=0)
    text = "different:\nmax(0, margin − d)²"
    return picture.box("different", 3.25, 1, text, "loss", width=1.8).arrow("distance", "different", row=1)


def triplet():
    picture = pairs(Picture(), ("anchor", "positive", "negative"))
    picture.tall("loss", 2.25, (0, 2), "d(anchor, positive)\n+ margin\n≤ d(anchor, negative)", "loss")
    picture.boxes["loss"] = (*picture.boxes["loss"][:4], 1.8, picture.boxes["loss"][5])
    for row in range(3):
        picture.arrow("backbone", "loss", row=row)
    return picture


def mae():
    picture = Picture().box("image", 0, 0, "image,\nin patches", "data", width=1.0)
    picture.box("seen", 1, 0, "25 % of them", "data", width=1.1).box("hidden", 1, 1, "75 %: hidden", "data", width=1.1)
    picture.box("backbone", 2, 0, "backbone\n(what you keep)").box("decoder", 3, 0, "light decoder,\nmask tokens")
    picture.path("image", "seen", "backbone", "decoder").arrow("image", "hidden")
    picture.tall("loss", 4, (0, 1), "squared error\nof the hidden\npixels", "loss").arrow("decoder", "loss", row=0)
    return picture.arrow("hidden", "loss", row=1)


def simmim():
    picture = Picture().box("image", 0, 0, "image", "data", width=0.8)
    picture.box("seen", 1, 0, "60 % behind\nmask tokens", "data", width=1.2)
    picture.box("hidden", 1, 1, "its pixels", "data", width=1.2)
    picture.box("backbone", 2, 0, "backbone\n(what you keep)").box("decoder", 3, 0, "one linear\nlayer")
    picture.path("image", "seen", "backbone", "decoder").arrow("image", "hidden")
    picture.tall("loss", 4, (0, 1), "absolute error\nof the hidden\npixels", "loss").arrow("decoder", "loss", row=0)
    return picture.arrow("hidden", "loss", row=1)


def distill():
    picture = (
        Picture().box("image", 0, 0.5, "image", "data", width=0.8).box("view", 1, 0.5, "one view", "data", width=0.9)
    )
    picture.arrow("image", "view").box("student", 2, 0, "student\n(what you keep)").box("projector", 3, 0, "projector")
    picture.box("teacher", 2, 1, "teacher,\nfrozen", "teacher").arrow("view", "student").arrow("view", "teacher")
    picture.arrow("student", "projector")
    text = "as near to past\nimages as the\nteacher is; and\nthe same features"
    return beside_memory(picture, text, "queue of teacher's\nembeddings", ("projector", "teacher"))


def question(start, column_text, head, answer, views=None):
    """A pretext task: what is shown, the network, the question."""
    picture = Picture().box("image", 0, 0.5, start, "data", width=0.8)
    if views is None:
        picture.box("shown", 1, 0.5, column_text, "data", width=1.5, height=0.62).box(
            "backbone", 2, 0.5, "backbone\n(what you keep)"
        )
        picture.path("image", "shown", "backbone")
    else:
        for row, text in enumerate(views):
            picture.box(f"shown {row}", 1, row, text, "data", width=1.2).arrow("image", f"shown {row}")
        picture.tall("backbone", 2, (0, 1), "backbone\n(what you keep)")
        picture.arrow("shown 0", "backbone", row=0).arrow("shown 1", "backbone", row=1)
    picture.box("head", 3, 0.5, head).arrow("backbone", "head", row=0.5)
    return picture.box("loss", 4, 0.5, answer, "loss", height=0.75).arrow("head", "loss")


def rotation():
    return question("image", "turned by 0°, 90°,\n180°, 270°", "classifier", "which turn?\n(chance: 1 of 4)")


def distortion():
    return question("image", None, "regression", "where did the\ncorners go?", ("image", "distorted"))


def exemplar():
    return question("image", "one strong view", "classifier", "which image\nis it? (chance:\n1 of all)")


def relative_patch():
    return question("image", None, "classifier", "which of eight\nneighbors?", ("middle patch", "a neighbor"))


def jigsaw():
    return question("image", "pieces in one of\nK orders", "classifier", "which order?\n(chance: 1 of K)")


def chart():
    """How to choose a method: questions from top to bottom, answers to the right."""
    wide = {"width": 2.5, "height": 0.56}
    questions = [
        ("Do you know which images\nbelong together?", "yes", "Triplet, Siamese\nwith labels or pairs"),
        (
            "Is there a trained network\nfor such images?",
            "yes",
            "Distill it into yours, or\ncontinue its training (DINO)",
        ),
        ("Do you know views that keep\nwhat an image shows?", "no", "MAE, SimMIM with a ViT;\nRotation, Distortion"),
        ("Must the backbone be a ViT?", "yes", "minutes: MAE; hours:\nDINO, iBOT, MoCoV3"),
        ("Do batches of 128 or more\nfit into memory?", "no", "MoCo, TiCo; SimCLR with\nmicro_batch_size"),
        ("SimCLR\n(begin here)", None, None),
    ]
    picture = Picture()
    for row, (text, answer, then) in enumerate(questions):
        picture.box(f"q{row}", 0, row * 1.1, text, "question" if answer else "loss", **wide)
        if answer:
            picture.box(f"a{row}", 1.9, row * 1.1, then, "loss", **wide).arrow(f"q{row}", f"a{row}", answer)
        if row:
            before = "no" if questions[row - 1][1] == "yes" else "yes"
            picture.arrow(f"q{row - 1}", f"q{row}", before)
    picture.box("more", 1.9, 5.5, "then compare: VICReg,\nLeJEPA, NNCLR, BYOL", "loss", **wide)
    return picture.arrow("q5", "more")


PICTURES = {
    "BYOL": byol,
    "BarlowTwins": barlow_twins,
    "DINO": dino,
    "Distill": distill,
    "Distortion": distortion,
    "Exemplar": exemplar,
    "IBOT": ibot,
    "Jigsaw": jigsaw,
    "LeJEPA": lejepa,
    "MAE": mae,
    "MMCR": mmcr,
    "MoCo": moco,
    "MoCoV3": moco_v3,
    "NNCLR": nnclr,
    "RelativePatch": relative_patch,
    "Rotation": rotation,
    "Siamese": siamese,
    "SimCLR": simclr,
    "SimMIM": simmim,
    "SimSiam": simsiam,
    "SwAV": swav,
    "TiCo": tico,
    "Triplet": triplet,
    "VICReg": vicreg,
    "chart": chart,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PICTURES)}; all by default")
    parser.add_argument("--png", type=pathlib.Path, help="a folder for PNG on white and on black")
    options = parser.parse_args()
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "keras_ssl"})
    plt.rcParams.update({"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"]})
    for name in options.names or PICTURES:
        figure = PICTURES[name]().draw()
        if options.png:
            options.png.mkdir(parents=True, exist_ok=True)
            for color in ("white", "black"):
                figure.savefig(options.png / f"{name}_{color}.png", dpi=80, facecolor=color)
        else:
            path = CHART if name == "chart" else FOLDER / f"{name}.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        plt.close(figure)


if __name__ == "__main__":
    main()
