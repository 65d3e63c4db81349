"""Pictures of a run: each function returns a matplotlib figure, and nothing is shown or written.

`width` is in inches. At 96 pixels per inch no text is smaller than 12 pixels, whatever the width: a narrow figure shows
fewer things, not smaller ones.
"""

from keras_ssl.evaluate.plots.curves import curves, loss_correlation
from keras_ssl.evaluate.plots.grids import (
    MOST_CHOSEN,
    chosen,
    groups,
    neighbors,
    pretext_task,
    put_back,
    views,
    views_of,
)
from keras_ssl.evaluate.plots.maps import cross_correlation, embedding_map, project, similarity_matrix

__all__ = [
    "MOST_CHOSEN",
    "chosen",
    "cross_correlation",
    "curves",
    "embedding_map",
    "groups",
    "loss_correlation",
    "neighbors",
    "pretext_task",
    "project",
    "put_back",
    "similarity_matrix",
    "views",
    "views_of",
]
