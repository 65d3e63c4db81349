"""`python -m keras_ssl` is the command `keras-ssl`."""

from keras_ssl.cli import entry

if __name__ == "__main__":
    entry()
