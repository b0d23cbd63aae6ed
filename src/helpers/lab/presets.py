"""Experiments of the trainer, each of which makes one point; tests train them all."""

from .trainer import OWN, Preset

OPEN = {"skip": "no"}  # without the skip: every answer is the last layers' own
PRESETS = (
    Preset(
        "Eight points, copied",
        "Width 64 against width 4. The wide network ends on the eight points: its loss reaches the copier's. "
        "The narrow one cannot, and makes something of its own.",
        {"right": {"width": "4"}},
    ),
    Preset(
        "Five hundred points, created",
        "The same two networks and 512 points. Neither copies: 2000 steps do not tell so many points apart.",
        {"count": "512", "right": {"width": "4"}},
    ),
    Preset(
        "Depth",
        "One hidden layer against four, 64 points. Depth turns sharper corners in the same number of steps.",
        {"count": "64", "left": {"depth": "1"}, "right": {"depth": "4"}},
    ),
    Preset(
        "Handwriting",
        "relu against silu, 16 units, many points. Look at the edges: relu draws straight lines, silu round ones.",
        {"count": "512", "left": {"width": "16", "activation": "relu"}, "right": {"width": "16"}},
    ),
    Preset(
        "A bridge between modes",
        "Two clouds, a network of width 2 and one of width 64. A continuous map from one cloud of noise to two clouds "
        "of points must leave a bridge; the less a network can bend, the wider the bridge.",
        {
            "target": "two gaussians",
            "count": "256",
            "steps": "4000",
            "rate": "0.003",
            "left": {"width": "2"},
        },
    ),
    Preset(
        "Through one number",
        "Both have a layer of one unit and no skip. On the left a layer of 64 follows it and the particles end on a "
        "curve; on the right none follows, and they end on a straight line.",
        {
            "count": "256",
            "left": {"narrow": "1", **OPEN},
            "right": {"narrow": "1", "depth": "1", **OPEN},
        },
    ),
    Preset(
        "An even degree loses particles",
        "Four points that lean to the right, and polynomials of degree 2 and 3. Far out the highest power rules: an "
        "even one throws particles away on one side, an odd one calls them back. Look at the last number.",
        {
            "target": OWN,
            "points": [-0.8, 0.3, -0.8, -0.3, -0.6, 0.0, 2.0, 0.0],
            "steps": "4000",
            "left": {"kind": "polynomial", "degree": "2"},
            "right": {"kind": "polynomial", "degree": "3"},
        },
    ),
    Preset(
        "What moments can tell",
        "Degree 1 knows mean and covariance and makes an ellipse; degree 5 knows more moments and bends it.",
        {
            "count": "512",
            "steps": "8000",
            "left": {"kind": "polynomial", "degree": "1"},
            "right": {"kind": "polynomial", "degree": "5"},
        },
    ),
    Preset(
        "Deaf to the noise level",
        "The right network is not told how noisy its input is. It must guess the level from the point, and far from "
        "the data it cannot.",
        {"count": "64", "right": {"level": "not told"}},
    ),
    Preset(
        "A network for each level",
        "Twelve networks of width 16, each for one level of noise, against one that serves all. Each of the twelve "
        "gets a twelfth of the steps.",
        {
            "count": "64",
            "steps": "4000",
            "left": {"level": "one each", "width": "16"},
            "right": {"width": "64"},
        },
    ),
    Preset(
        "Without the skip",
        "With the skip a network need only learn what is left to add. Without it, it must draw the point anew, "
        "and at little noise it blurs.",
        {"count": "64", "right": OPEN},
    ),
    Preset(
        "A spiral",
        "Two hidden layers against five, 512 points of a spiral. The density shows which turns a network holds apart.",
        {
            "target": "spiral",
            "count": "512",
            "steps": "4000",
            "left": {"depth": "2"},
            "right": {"depth": "5"},
        },
    ),
)
