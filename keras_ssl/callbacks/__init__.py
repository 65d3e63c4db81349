"""Callbacks for `fit`: probes, the collapse monitor, the teacher's schedule, and resuming."""

from keras_ssl.callbacks.collapse import Collapse, CollapseMonitor
from keras_ssl.callbacks.probes import KNNProbe, LinearProbe
from keras_ssl.callbacks.resume import Resume
from keras_ssl.callbacks.teacher_ema import TeacherEMA

__all__ = ["Collapse", "CollapseMonitor", "KNNProbe", "LinearProbe", "Resume", "TeacherEMA"]
