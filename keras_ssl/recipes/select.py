"""Chooses a recipe, the paper's or the small one, by batch size, number of images and number of epochs."""

import operator

from keras_ssl import names
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.recipes.measured import MEASURED, small
from keras_ssl.recipes.papers import NO_PAPER, PAPERS
from keras_ssl.recipes.plan import RunSpec
from keras_ssl.recipes.recipe import Recipe

SOURCES = names.RECIPES
FEWEST_IMAGES = 50_000  # CIFAR-10, the smallest data set that the papers pretrain on


def recipe(method, shape, images, batch_size, epochs=None, source="auto", value_range=(0, 255)):
    """The recipe of a method.

    ```python
    chosen = keras_ssl.recipes.recipe(keras_ssl.SimCLR, (28, 28, 1), images=10_000, batch_size=128)
    model = keras_ssl.SimCLR(backbone, views=chosen.views, **chosen.arguments)
    model.compile(chosen.optimizer)
    model.fit(images, batch_size=128, epochs=chosen.epochs)
    ```

    Args:
        method: a class of this library; a subclass of one has its parent's recipe; your own `SelfSupervisedModel` has
            the small one.
        shape: of an image, `(height, width, channels)`.
        images: number of training images.
        batch_size: images per step, over all replicas and processes.
        epochs: None for the recipe's own number.
        source: "paper", what the paper trained with; "small", what was measured here on thousands of small images;
            "auto": the paper's for at least 50,000 images and at least the smallest batch and the fewest epochs that
            its authors report, otherwise "small".
        value_range: of the images, for the views.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: for bad input, and for `source="paper"` where the paper does not state enough.
    """
    _check_method(method)
    shape = _checked_shape(shape)
    counts = {"images": images, "batch_size": batch_size, **({} if epochs is None else {"epochs": epochs})}
    counts = {name: _count(name, value) for name, value in counts.items()}
    if counts["batch_size"] > counts["images"]:
        raise ValueError(
            f"recipe: `batch_size` is {batch_size}, more than the {images} `images`: write batch_size={images} or less."
        )
    if source not in SOURCES:
        raise ValueError(f"recipe: `source` must be one of {', '.join(map(repr, SOURCES))}; it is {source!r}.")
    run = RunSpec(shape, counts["images"], counts["batch_size"], counts.get("epochs"), value_range)
    return Recipe(method, run, *_chosen(method, run, source))


def _chosen(method, run, source):
    """`(source, why, plan)`."""
    known = next((base for base in method.__mro__ if base in MEASURED or base in PAPERS), None)
    paper = PAPERS[known](run) if known in PAPERS else None
    lacking = NO_PAPER.get(known, f"{method.__name__} has no paper here")
    if source == "paper" and paper is None:
        raise ValueError(f'recipe: {lacking}: take source="small" instead of source="paper".')
    if source != "auto":
        return source, "as asked for", paper if source == "paper" else small(method, known, run)
    against = lacking if paper is None else _against(paper, run)
    if against:
        return "small", against, small(method, known, run)
    return (
        "paper",
        f"batch size, images and epochs are at least {paper.least_batch}, {FEWEST_IMAGES:,}, {paper.least_epochs}",
        paper,
    )


def _against(paper, run):
    """Why the paper's recipe does not fit this run: part of a sentence, or None."""
    if paper.epochs.value is None:
        return "the paper states no number of epochs"
    if run.batch_size < paper.least_batch:
        return f"the batch of {run.batch_size} is below {paper.least_batch}, the smallest that its authors report"
    if run.images < FEWEST_IMAGES:
        return f"{run.images:,} images are fewer than {FEWEST_IMAGES:,}, the smallest set of the papers"
    if run.epochs is None:
        return f"the paper trains for {paper.epochs.value} epochs, which must be asked for"
    if run.epochs < paper.least_epochs:
        return f"{run.epochs} epochs are fewer than {paper.least_epochs}, the shortest run that its authors report"
    return None


def _check_method(method):
    example = "keras_ssl.SimCLR"
    if not isinstance(method, type):
        written = type(method).__name__ if isinstance(method, SelfSupervisedModel) else example
        raise ValueError(f"recipe: `method` is a class, and this is {method!r}: write {written}, the class itself.")
    if not issubclass(method, SelfSupervisedModel) or method is SelfSupervisedModel:
        raise ValueError(f"recipe: `method` must be a method, such as {example}; it is {method.__name__}.")


def _checked_shape(shape):
    try:
        sides = [operator.index(side) for side in shape]
    except TypeError:
        sides = []
    if len(sides) != 3 or min(sides) < 1:
        raise ValueError(f"recipe: `shape` is (height, width, channels) of an image, in pixels; it is {shape!r}.")
    return tuple(sides)


def _count(name, value):
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"recipe: `{name}` must be a whole number, 1 or more; it is {value!r}.")
    return number
