"""One HTML page about a trained model, from the command or from a notebook."""

from keras_ssl.report.about import RunInfo
from keras_ssl.report.html import HtmlPage
from keras_ssl.report.page import write

__all__ = ["HtmlPage", "RunInfo", "write"]
