"""`python -m keras_ssl.testing package.module:make_model`."""

import sys

from keras_ssl.testing.everywhere import main

if __name__ == "__main__":
    sys.exit(main())
