"""Images on their way into `fit`: where they come from, in what form, and in what batches."""

from keras_ssl.data.arrays import ArrayBatches
from keras_ssl.data.lazy import ImageFiles
from keras_ssl.data.sources import NAMES, load
from keras_ssl.data.split import Data, Split, hold_out
from keras_ssl.data.streams import StreamBatches

__all__ = ["NAMES", "ArrayBatches", "Data", "ImageFiles", "Split", "StreamBatches", "hold_out", "load"]
