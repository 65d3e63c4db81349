"""What `fit` reports and keeps on the way: thin, over `keras_ssl.evaluate`."""

from keras_ssl.callbacks.collapse import Collapse, CollapseMonitor
from keras_ssl.callbacks.probes import KNNProbe, LinearProbe
from keras_ssl.callbacks.resume import Resume
from keras_ssl.callbacks.teacher_ema import TeacherEMA

__all__ = ["Collapse", "CollapseMonitor", "KNNProbe", "LinearProbe", "Resume", "TeacherEMA"]
