"""How deep the variables of a backbone lie, in blocks from its top: for a learning rate by layer."""

import keras

from keras_ssl.backbones import is_graph
from keras_ssl.keras_compat import sublayers

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def depths(backbone):
    """How many blocks below the top each variable of a backbone lies.

    0 is what comes after the last block, such as a ViT's last normalization; 1 is the last block, and the largest
    number is what comes before the first block, such as the embedding of patches. A block is:

    - each of several layers of one class in a model or a layer, which are made of layers with weights themselves: the
      blocks of keras-hub's ViT, DINOv2, DINOv3, SigLIP and Swin;
    - else, in a graph of layers, what lies between a fork and the addition that joins it, as in a ResNet. An attention
      and the perceptron after it are one block, as in `keras_ssl.backbones.vit`;
    - else, in a chain of layers, each that has a kernel, with what follows it.

    What lies between two blocks counts with the one above it.

    Args:
        backbone: a built Keras model.

    Returns:
        A dict of `id(variable)` to a whole number, for all variables of the backbone.
    """
    parts = _parts(backbone)
    found, above, total = {}, 0, _blocks(parts)
    for variables, block in reversed(parts):
        above += block
        for variable in variables:
            found.setdefault(id(variable), above + (above == total and not block))
    return found


def _parts(layer):
    """`(variables, whether it is a block)` of the parts of a model or layer, from its input on."""
    while len(inner := [child for child in _children(layer) if child.variables]) == 1:
        layer = inner[0]  # a backbone behind its rescaling
    for way in (_stacked, _residual):
        parts = way(layer)
        if _blocks(parts) > 1:
            return parts
    return _chain(layer)


def _blocks(parts):
    return sum(block for _, block in parts)


def _children(layer):
    """The layers directly below one, in the order in which a graph calls them, or in which they were made."""
    return layer.layers if is_graph(layer) else sublayers(layer)


def _stacked(layer):
    """The parts of a layer whose blocks are alike."""
    children = _children(layer)
    if not children:
        return [(layer.variables, False)]
    made = [type(child) for child in children if any(part.variables for part in _children(child))]
    alike = {cls for cls in made if made.count(cls) > 1 and not cls.__module__.startswith("keras.")}
    parts = []
    for child in children:
        inner = _stacked(child)
        if type(child) in alike and not _blocks(inner):
            inner = [(child.variables, True)]
        parts += inner
    # Its own first, such as a class token: what lies in a part is found there.
    inside = {id(variable) for variables, _ in parts for variable in variables}
    return [([variable for variable in layer.variables if id(variable) not in inside], False), *parts]


def _residual(model):
    """The parts of a graph: a block is what an addition joins."""
    steps = getattr(model, "operations", ()) if is_graph(model) else ()  # a sequence has no forks
    try:
        ends = _forks_and_joins(steps)
    except (AttributeError, ValueError):  # a layer that is called several times has no one place
        return []
    parts, start = [], 0
    for fork, join in ends:
        fork = max(fork + 1, start)
        between, block = steps[start:fork], steps[fork : join + 1]
        if parts and not _weights(between) and parts[-1][1] == "attends" and not _attends(block):
            parts[-1] = (parts[-1][0] + _weights(block), True)
        else:
            parts += [(_weights(between), False), (_weights(block), "attends" if _attends(block) else True)]
        start = join + 1
    return [(variables, bool(block)) for variables, block in [*parts, (_weights(steps[start:]), False)]]


def _forks_and_joins(steps):
    """The places `(fork, join)` of each addition of two branches, in order."""
    giver, before, found = {}, [], []
    for place, step in enumerate(steps):
        givers = [giver[id(tensor)] for tensor in keras.tree.flatten(step.input) if id(tensor) in giver]
        before.append({place}.union(*(before[one] for one in givers)))
        if type(step).__name__ == "Add" and len(givers) > 1:  # the layer, and the operation of x + y
            common = set.intersection(*(before[one] for one in givers))
            if common:
                found.append((max(common), place))
        for tensor in keras.tree.flatten(step.output):
            giver[id(tensor)] = place
    return found


def _weights(steps):
    return [variable for step in steps for variable in getattr(step, "variables", ())]


def _attends(steps):
    return any(isinstance(step, _ATTENTION) for step in steps)


def _chain(layer):
    """The parts of a chain: a layer that has a kernel is a block, or a model with blocks of its own."""
    parts = []
    for child in _children(layer) or [layer]:
        inner = _parts(child) if _children(child) else []
        if _blocks(inner) > 1:
            parts += inner
        elif any(len(variable.shape) > 1 for variable in child.variables) or not parts:
            parts.append((child.variables, bool(child.variables)))
        else:
            parts[-1] = (parts[-1][0] + child.variables, parts[-1][1])
    inside = {id(variable) for variables, _ in parts for variable in variables}
    return [([variable for variable in layer.variables if id(variable) not in inside], False), *parts]
