"""Recipes: optimizer, schedule, views and arguments of a method by batch size and number of images, with sources.

A learning rate belongs to an optimizer, a batch size and a schedule, so a recipe holds all of them. There are two for
most methods: what its paper trained with, on sets of 50,000 to 1.3 million images in large batches, and what was
measured here on 10,000 small ones.
"""

from keras_ssl.recipes.plan import Made
from keras_ssl.recipes.recipe import Recipe
from keras_ssl.recipes.select import recipe

__all__ = ["Made", "Recipe", "recipe"]
