"""A method as somebody writes it who has read the page on methods and no more: VICReg, on a network of their choice."""

import keras
from keras import ops

import keras_ssl
from keras_ssl import augment, distribute
from keras_ssl.testing import tiny_backbone


@keras.saving.register_keras_serializable("strangers")
class VICReg(keras_ssl.SelfSupervisedModel):
    """Variance, invariance, covariance (Bardes et al. 2022).

    Args:
        backbone: a Keras model.
        views: the random views.
        projector: a Keras model on top of the pooled features.
        **kwargs: of `SelfSupervisedModel`.
    """

    terms = ("invariance", "variance", "covariance")
    batch_dependent = True

    def __init__(self, backbone, views=None, projector=None, **kwargs):
        super().__init__(backbone, views=views, **kwargs)
        self.projector = projector

    def default_views(self):
        layers = [augment.RandomResizedCrop(28), augment.RandomHorizontalFlip(), augment.RandomColorJitter(0.4)]
        return augment.Views(layers, layers)

    def build_heads(self, width):
        if not self.projector.built:
            self.projector.build((None, width))

    def embed(self, views, training):
        a, b = views
        return {"a": self.project(a, training), "b": self.project(b, training)}

    def objective(self, outputs, batch):
        a, b = (distribute.gather(outputs[name]) for name in ("a", "b"))
        rows, width = a.shape[0], a.shape[1]
        variance = covariance = 0.0
        for z in (a, b):
            z = z - ops.mean(z, axis=0)
            deviation = ops.sqrt(ops.sum(z * z, axis=0) / (rows - 1) + 1e-4)
            variance = variance + ops.mean(ops.relu(1.0 - deviation)) / 2.0
            matrix = ops.matmul(ops.transpose(z), z) / (rows - 1)
            covariance = covariance + ops.sum((matrix * (1.0 - ops.eye(width))) ** 2) / width
        return {
            "invariance": 25.0 * ops.mean((a - b) ** 2),
            "variance": 25.0 * variance,
            "covariance": covariance,
        }, {}


def rough():
    """On ReLU and batch normalization, as anybody would."""
    layers = keras.layers
    backbone = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 127.5, -1),
            *[
                layer
                for width in (16, 32, 32)
                for layer in (layers.Conv2D(width, 3, 2), layers.BatchNormalization(), layers.ReLU())
            ],
        ]
    )
    # Three times, for a network that is rough whatever the last bits are: ten steps amplify rounding to 0.04 in weights
    # where 1e-5 is allowed. With one they came to more than that on some days alone.
    hidden = [layer for _ in range(3) for layer in (layers.Dense(64), layers.BatchNormalization(), layers.ReLU())]
    return VICReg(backbone, projector=keras.Sequential([*hidden, layers.Dense(32)]))


def smooth():
    """On the network that the page advises."""
    return VICReg(tiny_backbone(), projector=keras.Sequential([keras.layers.Dense(32, "gelu"), keras.layers.Dense(32)]))
