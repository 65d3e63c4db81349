"""What differs between the frameworks under Keras: one name for each, the same names for all.

`one_device` has every name, with the answer for one device and any framework. The module of the framework that Keras
runs on replaces those that differ there. The rest of the library calls these names and knows no framework.
"""

import keras

from keras_ssl.backend.one_device import *

if keras.backend.backend() == "tensorflow":
    from keras_ssl.backend.tensorflow import *
elif keras.backend.backend() == "jax":
    from keras_ssl.backend.jax import *
elif keras.backend.backend() == "torch":
    from keras_ssl.backend.torch import *
