"""TensorFlow: views image by image, in a loop that XLA compiles, in a step that it does not."""

import tensorflow as tf

from keras_ssl.backend.one_device import number_of_cores

__all__ = ["loop_over_images", "loops_over_images", "take_inside"]


def loops_over_images(images):
    # Eagerly there is nothing to compile for: a few views that somebody looks at would wait for it.
    return tf.inside_function() and all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def loop_over_images(function, images, repeats):
    rows = tf.shape(images)[0] if images.shape[0] is None else images.shape[0]

    # Compiled by itself: compiled whole, a step is slower on a CPU, for XLA's convolutions are.
    @tf.function(jit_compile=True, autograph=False)
    def part(images, places):
        def one(place):
            # Not images[…]: XLA takes the bounds of a slice for constants, and compiles anew for each of their values.
            return function(tf.gather(images, place % rows), place % rows, place // rows)

        return tf.map_fn(one, places, fn_output_signature=tf.float32)

    places = tf.range(rows * repeats)
    parts = _parts(rows, repeats)
    if parts == 1:
        made = part(images, places)
    else:
        # One program, that several cores run at a time. (A program for each would be compiled as often.)
        some = tf.reshape(places, (parts, -1))
        made = tf.map_fn(
            lambda some: part(images, some), some, parallel_iterations=parts, fn_output_signature=tf.float32
        )
        made = tf.reshape(made, tf.concat([[rows * repeats], tf.shape(made)[2:]], axis=0))
    return [made[repeat * rows : (repeat + 1) * rows] for repeat in range(repeats)]


def _parts(rows, repeats):
    """Into how many parts the views are cut: one for each core, if they divide the views."""
    cores = tf.config.threading.get_inter_op_parallelism_threads() or number_of_cores()
    if not isinstance(rows, int):
        return 1
    return max(parts for parts in range(1, cores + 1) if rows * repeats % parts == 0)


def take_inside(x, indices, axis):
    return tf.gather(x, indices, axis=axis)
