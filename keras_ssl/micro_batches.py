"""Large batches on small memory: embeddings of the whole batch, gradients micro-batch by micro-batch.

A contrastive loss needs the embeddings of all images at once, but not their activations. So the micro-batches go
through the network one after another and only their embeddings stay; the loss is taken of all of them; and each
micro-batch goes through once more for its share of the gradient. The result is the gradient of the whole batch, which
a mean over small batches (accumulation) never is.

Reference: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021 (GradCache).
"""

import keras
from keras import ops

from keras_ssl import backend, batch_norm, distribute


def embed(model, function, rows, size):
    """`function(rows)` of the whole batch, with the activations of one micro-batch in memory at a time.

    What the layers change on the way is defined so that it does not depend on the order: every micro-batch starts from
    the step's floating-point state, and the state afterwards is the mean over the micro-batches of all replicas. So
    batch normalization sees ghost batches of one micro-batch, and its statistics move once a step. Integers, the states
    of seed generators, go from one micro-batch to the next.

    Args:
        model: whose variables `function` uses and changes.
        function: from a part of `rows` to a dict of tensors with as many rows.
        rows: a tree of arrays whose first axis is the batch.
        size: rows a micro-batch on each device; it must divide the rows of a device.

    Returns:
        What `function(rows)` returns.
    """
    trainable, others = model.trainable_variables, model.non_trainable_variables
    start = backend.read_values(others)
    integers = [place for place, variable in enumerate(others) if "int" in variable.dtype]
    changed, structure = [], []
    total = ops.shape(keras.tree.flatten(rows)[0])[0]
    shards = backend.shards()
    count = total // (shards * size)

    def once(weights, carried, number):
        state = list(start)
        for place, value in zip(integers, carried):
            state[place] = value
        mapping = [*zip(trainable, weights), *zip(others, state)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            before = [scope.get_current_value(variable) for variable in others]
            outputs = function(keras.tree.map_structure(lambda x: _part(x, number, size, shards), rows))
        if scope.losses:
            raise ValueError(
                "micro_batch_size: a layer of the model adds losses of its own (add_loss or activity_regularizer), "
                "which are of the whole batch and can't be taken of its parts: leave one of the two out."
            )
        after = [scope.get_current_value(variable) for variable in others]
        changed[:] = [i for i in range(len(others)) if i not in integers and after[i] is not before[i]]
        structure[:] = [outputs]
        return keras.tree.flatten(outputs), [after[i] for i in changed], [after[i] for i in integers]

    outputs, sums, carried = backend.checkpointed_loop(
        once, backend.read_values(trainable), [start[i] for i in integers], count
    )
    for place, value in zip(changed, sums):
        parts = ops.cast(count * distribute.replicas(), value.dtype)
        mean = distribute.global_sum(ops.stop_gradient(value)) / parts
        others[place].assign(ops.cast(mean, others[place].dtype))
    for place, value in zip(integers, carried):
        others[place].assign(value)
    outputs = [_joined(parts, shards) for parts in outputs]
    return keras.tree.pack_sequence_as(structure[0], outputs)


def check_size(size, batch_size, replicas):
    """Refuses a size that does not divide what each replica gets of a batch."""
    if batch_size is not None and batch_size % (size * replicas):
        each = f" on each of {replicas} replicas" if replicas > 1 else ""
        raise ValueError(
            f"`micro_batch_size` is {size}{each}, which does not divide the batch of {batch_size} images: "
            f"make the batch a multiple of {size * replicas}."
        )


def check_batch_norm(model, size):
    """Refuses batch normalization over the micro-batches of several JAX devices, which would be another model's.

    There a micro-batch is one array over all devices, and the layers would normalize all of it.
    """
    layers = batch_norm.layers_without_groups(model) if backend.shards() > 1 else []
    if layers:
        raise ValueError(
            f"`micro_batch_size` on {backend.shards()} JAX devices: batch normalization ({layers[0].name} and "
            f"{len(layers) - 1} more layers) would see {backend.shards()} micro-batches together, and on one "
            f"device one. Call keras_ssl.batch_norm.use_ghost_batches(model, images={size}) before compile, or use "
            "another normalization."
        )


def _part(x, number, size, shards):
    """The rows of one micro-batch: `size` of each device's block of rows, so that no row changes its device."""
    if shards == 1:  # not x[a:b], whose length a compiler could not tell
        return ops.slice(x, [number * size, *[0] * (len(x.shape) - 1)], (size, *x.shape[1:]))
    blocks = ops.reshape(x, (shards, -1, size, *x.shape[1:]))
    return ops.reshape(blocks[:, number], (shards * size, *x.shape[1:]))


def _joined(parts, shards):
    """`(count, shards · size, …)` as rows in the order of the batch."""
    shape = tuple(parts.shape[2:])
    if shards == 1:
        return ops.reshape(parts, (-1, *shape))
    blocks = ops.reshape(parts, (parts.shape[0], shards, parts.shape[1] // shards, *shape))
    return ops.reshape(ops.moveaxis(blocks, 0, 1), (-1, *shape))
