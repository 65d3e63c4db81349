"""Each method in a small form, as `check_method` wants it. A new method adds one function here.

A variant of a method is named after it: "SimCLR with memory".
"""

from conftest import tiny_backbone

import keras_ssl
from keras_ssl import heads


def simclr():
    return keras_ssl.SimCLR(tiny_backbone(), temperature=0.2)


def simclr_with_memory():
    # 150 is no multiple of the 64 rows that a step of the check pushes: the queue is overwritten across its end.
    # No batch normalisation: a queue of what training embedded is no fair opponent for what inference embeds, until the
    # moving statistics have settled, and the check looks at the loss before and after.
    projector = heads.mlp([32, 32], batch_norm=False, last_batch_norm=False)
    return keras_ssl.SimCLR(tiny_backbone(), projector=projector, temperature=0.2, memory=150)


def barlow_twins():
    projector = heads.mlp([32, 32], last_batch_norm=False, last_bias=False)
    # The loss is a sum over 32 dimensions: at its full size the check's rate would be a large one.
    return keras_ssl.BarlowTwins(tiny_backbone(), projector=projector, scale=1 / 32)


METHODS = {"SimCLR": simclr, "SimCLR with memory": simclr_with_memory, "BarlowTwins": barlow_twins}
