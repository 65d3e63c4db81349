"""`check_method`: the contract that every method passes, ours and yours, as scikit-learn's `check_estimator`.

```python
def make_model():
    return MyMethod(keras_ssl.testing.tiny_backbone())

report = keras_ssl.testing.check_method(make_model)
```

One process has one backend and the devices it began with. `python -m keras_ssl.testing package.module:make_model`
checks the rest in processes of their own: each backend, several devices, several processes that train together, and a
model loaded where it was not made. It takes several methods, and starts its processes once for all of them.
"""

from keras_ssl.testing.checks import CHECKS, check_method
from keras_ssl.testing.everywhere import check_everywhere
from keras_ssl.testing.networks import tiny_backbone
from keras_ssl.testing.reports import CheckReport, CheckResult

__all__ = ["CHECKS", "CheckReport", "CheckResult", "check_everywhere", "check_method", "tiny_backbone"]
