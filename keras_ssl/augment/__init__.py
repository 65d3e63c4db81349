"""Random views of images, series, spectrograms and volumes: layers, and the policies of the papers."""

from keras_ssl.augment.blur import RandomGaussianBlur
from keras_ssl.augment.color import RandomColorJitter, RandomGrayscale, RandomSolarization
from keras_ssl.augment.crops import dino, multi_crop, small_gray_crops, swav
from keras_ssl.augment.geometry import RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from keras_ssl.augment.layer import RandomApply, RandomLayer
from keras_ssl.augment.policies import barlow_twins, byol, mae, moco, proxy, simclr, simmim, small_gray
from keras_ssl.augment.rng import RowRNG
from keras_ssl.augment.signals import (
    RandomFrequencyMask,
    RandomJitter,
    RandomNoise,
    RandomScale,
    RandomTimeCrop,
    RandomTimeMask,
    series,
    spectrograms,
)
from keras_ssl.augment.views import Views
from keras_ssl.augment.volumetric import RandomCrop3D, RandomFlip3D, volumes

__all__ = [
    "RandomApply",
    "RandomColorJitter",
    "RandomCrop3D",
    "RandomErasing",
    "RandomFlip3D",
    "RandomFrequencyMask",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomJitter",
    "RandomLayer",
    "RandomNoise",
    "RandomResizedCrop",
    "RandomScale",
    "RandomSolarization",
    "RandomTimeCrop",
    "RandomTimeMask",
    "RowRNG",
    "Views",
    "barlow_twins",
    "byol",
    "dino",
    "mae",
    "moco",
    "multi_crop",
    "proxy",
    "series",
    "simclr",
    "simmim",
    "small_gray",
    "small_gray_crops",
    "spectrograms",
    "swav",
    "volumes",
]
