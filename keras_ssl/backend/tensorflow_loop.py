"""A loop whose parts are computed again for their gradient, with the memory of one part, on TensorFlow."""

import tensorflow as tf


def in_two_passes(function, weights, carried, count):
    """`checkpointed_loop` of `one_device`; its first pass keeps what parts give, its second computes gradients."""
    kinds = {}

    @tf.custom_gradient
    def run(*weights):
        # The first part stands before the loop and shows it what the others will give.
        outputs, sums, after = function(weights, carried, 0)
        starts = [tf.TensorArray(x.dtype, count, element_shape=x.shape).write(0, x) for x in carried]
        arrays = [tf.TensorArray(x.dtype, count, element_shape=x.shape).write(0, x) for x in outputs]
        kinds.update(outputs=len(outputs), sums=len(sums))

        def forward(number, arrays, sums, carried, starts):
            starts = [array.write(number, x) for array, x in zip(starts, carried)]
            outputs, summed, carried = function(weights, carried, number)
            arrays = [array.write(number, x) for array, x in zip(arrays, outputs)]
            return number + 1, arrays, [a + b for a, b in zip(sums, summed)], carried, starts

        _, arrays, sums, after, starts = tf.while_loop(
            lambda number, *_: number < count,
            forward,
            (tf.constant(1), arrays, sums, after, starts),
            parallel_iterations=1,
        )

        def gradient(*upstream):
            upstream = upstream[: kinds["outputs"]]

            def backward(number, totals):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(weights)
                    outputs, _, _ = function(weights, [array.read(number) for array in starts], number)
                wanted = [i for i, x in enumerate(outputs) if x.dtype.is_floating]
                shares = tape.gradient(
                    [outputs[i] for i in wanted],
                    weights,
                    output_gradients=[upstream[i][number] for i in wanted],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return number + 1, [total + tf.convert_to_tensor(share) for total, share in zip(totals, shares)]

            _, totals = tf.while_loop(
                lambda number, _: number < count,
                backward,
                (tf.constant(0), [tf.zeros_like(weight) for weight in weights]),
                parallel_iterations=1,
            )
            return totals

        return (*(array.stack() for array in arrays), *sums, *after), gradient

    results = list(run(*weights))
    outputs, sums = kinds["outputs"], kinds["sums"]
    return results[:outputs], results[outputs : outputs + sums], results[outputs + sums :]
