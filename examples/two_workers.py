"""
Title: Two workers on one machine
Description: Two processes train SimCLR together, as two hosts would. Why that must give the weights of one process, and
what a careless way to do it gives instead.
"""

"""
One device holds too few images? Take two, and give each half of the batch. For a classifier that is the end of it: the
loss of an image has nothing to do with the other images, and the mean of two halves is the mean of the whole.

In self-supervised learning the images of a batch *meet*. In SimCLR each image has to find its other view among all
images of the batch. If each worker compares its own half only, that is another, easier task. This tutorial runs both
ways in two processes of your machine, so you need neither a GPU nor a second host.

## Who meets whom

A batch of 8 images has 16 views. Each row of these tables is a view that asks, each column one that it is compared
with.
"""

import os
import pathlib
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl
from keras_ssl import workers

STEPS = 20
BATCH = 64

owner = np.tile(np.repeat([1, 2], 4), 2)  # of each view: images 1 to 4 are on worker 1, the others on worker 2
together = np.repeat(owner[:, None], 16, axis=1)
alone = np.where(owner[:, None] == owner[None, :], together, 0)
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
for ax, table, title in zip(axes, (alone, together), ("each half by itself", "gathered")):
    colors = plt.matplotlib.colors.ListedColormap(["0.93", "C0", "C1"])
    ax.imshow(np.where(np.eye(16), 0, table), cmap=colors, vmin=0, vmax=2)
    ax.set_xticks(np.arange(16) - 0.5, [""] * 16)
    ax.set_yticks(np.arange(16) - 0.5, [""] * 16)
    ax.grid(color="white", linewidth=1)
    ax.tick_params(length=0)
    ax.set(title=title, xlabel="compared with", ylabel="view that asks")
figure.suptitle("Comparisons of worker 1 (blue) and worker 2 (orange)")
plt.show()

"""
On the left half of the comparisons are missing. On the right each worker has its own rows and *all* columns. For that
the embeddings of all workers have to be brought together, and the gradients have to flow back to where the embeddings
came from. `keras_ssl.distribute.gather` does that, and each method of the library calls it.

The difference is not rounding. Here is the loss of random embeddings, which is near the logarithm of the number of
others that a view meets:
"""

generator = np.random.default_rng(0)
a, b = (generator.normal(size=(BATCH, 128)).astype("float32") for _ in range(2))


def mean_loss(a, b):
    return float(keras.ops.mean(keras_ssl.losses.nt_xent(a, b, temperature=0.5)))


half = BATCH // 2
print(f"whole batch         {mean_loss(a, b):.3f}   ln({2 * BATCH - 1}) = {np.log(2 * BATCH - 1):.3f}")
mean_of_halves = (mean_loss(a[:half], b[:half]) + mean_loss(a[half:], b[half:])) / 2
print(f"mean of two halves  {mean_of_halves:.3f}   ln({BATCH - 1}) = {np.log(BATCH - 1):.3f}")

"""
## What each process runs

A new process has to import what it runs, so that stands in a file. It is plain training code: the whole set and the
*global* batch size go into `fit`, and each process takes its own rows of each batch. One epoch of one step gives us the
loss of each step.

`OwnHalf` is the careless way: it leaves out `gather`. Nothing fails and nothing warns. (On JAX it is no mistake: there
one program computes the loss of the whole batch. A method that is to run everywhere calls `gather`.)
"""

PROGRAM = '''
import keras

import keras_ssl


@keras.saving.register_keras_serializable("tutorial")
class OwnHalf(keras_ssl.SimCLR):
    def objective(self, outputs, batch):
        a, b = outputs["a"], outputs["b"]
        accuracy = keras_ssl.losses.contrastive_accuracy(a, b)
        return {"nt_xent": keras_ssl.losses.nt_xent(a, b, self.temperature)}, {"contrastive_accuracy": accuracy}


def pretrain(steps, batch, gathered=True):
    """The losses of all steps, and the trained weights of the backbone."""
    images = keras_ssl.data.load("fashion_mnist_sample").train.images[:2048]
    keras.utils.set_random_seed(1)
    backbone = keras_ssl.testing.tiny_backbone(images.shape[1:], widths=(16, 32))
    model = (keras_ssl.SimCLR if gathered else OwnHalf)(backbone, temperature=0.5, seed=1)
    model.compile(keras.optimizers.Adam(1e-3))
    losses = model.fit(images, batch_size=batch, steps_per_epoch=1, epochs=steps, verbose=0).history["loss"]
    return [float(loss) for loss in losses], backbone.get_weights()
'''
pathlib.Path("training.py").write_text(PROGRAM, encoding="utf-8")

"""
## One process, and two

First here, in this process, with the whole batch. Then twice in two processes that form a cluster.
`keras_ssl.workers.run` starts them, gives each its number and the address of the first, and calls the function under
the strategy of the backend: `MultiWorkerMirroredStrategy` on TensorFlow, `DataParallel` on JAX, a process group on
torch.
"""

sys.path.insert(0, os.getcwd())  # a notebook has its folder there already
import training

backend = keras.backend.backend()
one_losses, one_weights = training.pretrain(STEPS, BATCH)
results = workers.run("training:pretrain", backend, (STEPS, BATCH), seconds=900)
careless = workers.run("training:pretrain", backend, (STEPS, BATCH, False), seconds=900)

print(f"one process: mean loss of {STEPS} steps with {BATCH} images: {np.mean(one_losses):.6f}")
for worker, (losses, _) in enumerate(results):
    print(f"worker {worker}: mean loss of {STEPS} steps with {BATCH} images: {np.mean(losses):.6f}")
for worker, (losses, _) in enumerate(careless):
    print(f"careless worker {worker}: {np.mean(losses):.6f}")


def difference(weights):
    """The largest difference of a weight from that of one process."""
    return max(float(np.abs(a - b).max()) for a, b in zip(weights, one_weights))


print(f"largest difference of a weight, two workers:      {difference(results[0][1]):.1e}")
print(f"largest difference of a weight, careless workers: {difference(careless[0][1]):.1e}")

"""
Two workers end at the weights of one process, but for the rounding of sums in another order. That is more than the
loss: random views are the same too, because a view is drawn from the row of an image in the global batch, and not from
the device that makes it.
"""

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(one_losses, color="0.6", linewidth=5, label="one process")
ax.plot(results[0][0], color="C0", label="two workers, gathered")
ax.plot(careless[0][0], color="C1", label="two workers, each its own half")
ax.set(xlabel="step", ylabel="loss", title="The loss of one batch, shared by two workers")
ax.legend()
plt.show()

"""
The careless curve is *lower*, and so it looks better. It only answers an easier question: 63 others and not 127. (Both
go up and down with the batches: twenty steps teach a network next to nothing. The seconds above this page are those of
the first process; each worker takes about as many.)

## On hosts of your own

Start the same file on each host, and tell each who it is: `TF_CONFIG` for TensorFlow,
`KERAS_DISTRIBUTION_JOB_ADDRESSES` for JAX, `torchrun` for torch. In the file `keras_ssl.distribute.cluster(process,
processes)` gives the scope in which the model is made. [Many devices](../distributed.md) has the commands, and says
what happens to batch normalization, to a set that is read from a stream, and to a run that is interrupted.

## What to try next

- Count to four: `workers.run("training:pretrain", backend, (STEPS, BATCH), count=4)`.
- Take a method that couples the batch in another way, such as `keras_ssl.VICReg`: its covariances are of the global
  batch too.
- Write [a method of your own](new_method.md), and let `python -m keras_ssl.testing` ask whether two workers train it as
  one process does.
- No second device, and too little memory? [Large batches](../large_batches.md) go through one device in parts, with
  the gradient of the whole.
"""
