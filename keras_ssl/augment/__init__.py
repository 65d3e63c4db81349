"""Random views of images: layers, and the policies of the papers."""

from keras_ssl.augment.blur import RandomGaussianBlur
from keras_ssl.augment.color import RandomColorJitter, RandomGrayscale, RandomSolarization
from keras_ssl.augment.geometry import RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from keras_ssl.augment.layer import RandomApply, RandomLayer
from keras_ssl.augment.policies import barlow_twins, byol, proxy, simclr, small_gray
from keras_ssl.augment.rng import RowRNG
from keras_ssl.augment.views import Views

__all__ = [
    "RandomApply",
    "RandomColorJitter",
    "RandomErasing",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomLayer",
    "RandomResizedCrop",
    "RandomSolarization",
    "RowRNG",
    "Views",
    "barlow_twins",
    "byol",
    "proxy",
    "simclr",
    "small_gray",
]
