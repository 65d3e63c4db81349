"""TensorFlow: views image by image, in a loop that XLA compiles, in a step that it does not."""

import os

import tensorflow as tf

__all__ = ["loop_over_images", "loops_over_images", "take_inside"]


def loops_over_images(images):
    # Eagerly there is nothing to compile for: a few views that somebody looks at would wait for it.
    return tf.inside_function() and not tf.config.list_logical_devices("GPU")


def loop_over_images(function, images, repeats):
    rows = tf.shape(images)[0] if images.shape[0] is None else images.shape[0]

    # Compiled by itself: compiled whole, a step is slower on a CPU, for XLA's convolutions are.
    @tf.function(jit_compile=True, autograph=False)
    def part(images, places):
        def one(place):
            return function(images[place % rows], place % rows, place // rows)

        return tf.map_fn(one, places, fn_output_signature=tf.float32)

    places, parts = tf.range(rows * repeats), _parts(rows, repeats)
    made = [part(images, some) for some in tf.split(places, parts)] if parts > 1 else [part(images, places)]
    made = tf.concat(made, axis=0) if parts > 1 else made[0]
    return [made[repeat * rows : (repeat + 1) * rows] for repeat in range(repeats)]


def _parts(rows, repeats):
    """Into how many loops the work is cut, that run side by side: one on each core, if they divide it."""
    cores = tf.config.threading.get_inter_op_parallelism_threads() or len(os.sched_getaffinity(0))
    if not isinstance(rows, int):
        return 1
    return max(parts for parts in range(1, cores + 1) if rows * repeats % parts == 0)


def take_inside(x, indices, axis):
    return tf.gather(x, indices, axis=axis)
