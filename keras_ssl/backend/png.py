"""Pictures that Pillow does not read whole: TensorFlow does, which is installed with each backend of Keras here."""


def decode_png(content):
    """The pixels of a PNG file with 16 bits a color, uint16 `(height, width, channels)`: Pillow keeps 8 of them."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        return tf.io.decode_png(content, dtype=tf.uint16).numpy()
