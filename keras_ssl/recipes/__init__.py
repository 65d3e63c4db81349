"""Recipes: what a method is trained with, by batch size and number of images, and where each figure is from.

A learning rate belongs to an optimizer, a batch size and a schedule, so a recipe holds all of them. There are two for
most methods: what its paper trained with, on sets of 50,000 to 1.3 million images in large batches, and what was
measured here on 10,000 small ones.
"""

from keras_ssl.recipes.recipe import Recipe
from keras_ssl.recipes.select import recipe

__all__ = ["Recipe", "recipe"]
