"""The names that can be told without Keras: where each public class stands, and what flags of the command take.

Importing Keras takes seconds. `import keras_ssl` and the command's flags need names alone, so the names stand here, and
what they name is imported when it is used. A test holds that this table and the package agree.
"""

METHODS = {
    "BYOL": "keras_ssl.methods.byol",
    "BarlowTwins": "keras_ssl.methods.barlow_twins",
    "DINO": "keras_ssl.methods.dino",
    "Distill": "keras_ssl.methods.distill",
    "Distortion": "keras_ssl.methods.distortion",
    "Exemplar": "keras_ssl.methods.exemplar",
    "IBOT": "keras_ssl.methods.ibot",
    "Jigsaw": "keras_ssl.methods.jigsaw",
    "MAE": "keras_ssl.methods.mae",
    "LeJEPA": "keras_ssl.methods.lejepa",
    "MMCR": "keras_ssl.methods.mmcr",
    "MoCo": "keras_ssl.methods.moco",
    "MoCoV3": "keras_ssl.methods.moco_v3",
    "NNCLR": "keras_ssl.methods.nnclr",
    "RelativePatch": "keras_ssl.methods.relative_patch",
    "Rotation": "keras_ssl.methods.rotation",
    "Siamese": "keras_ssl.methods.siamese",
    "SimCLR": "keras_ssl.methods.simclr",
    "SimMIM": "keras_ssl.methods.simmim",
    "SimSiam": "keras_ssl.methods.simsiam",
    "TiCo": "keras_ssl.methods.tico",
    "SwAV": "keras_ssl.methods.swav",
    "Triplet": "keras_ssl.methods.triplet",
    "VICReg": "keras_ssl.methods.vicreg",
}
CLASSES = {**METHODS, "SelfSupervisedModel": "keras_ssl.model"}

# Sub-packages and modules that `keras_ssl.NAME` gives; those that `from keras_ssl import *` takes, and the others.
MODULES = (
    "augment",
    "backbones",
    "batch_norm",
    "callbacks",
    "data",
    "distances",
    "evaluate",
    "heads",
    "hub",
    "lora",
    "losses",
    "mining",
    "optimizers",
    "progress",
    "prototypes",
    "queue",
    "recipes",
    "regularizers",
    "report",
    "teacher",
)
MORE_MODULES = ("distribute", "methods", "micro_batches", "model", "saving", "testing", "workers")

# Modules that register classes or functions with Keras, which finds them by name when it loads a file.
REGISTERED = (
    *sorted(set(METHODS.values())),
    "keras_ssl.augment",
    "keras_ssl.distances",
    "keras_ssl.lora",
    "keras_ssl.losses",
    "keras_ssl.mining",
    "keras_ssl.optimizers",
    "keras_ssl.progress",
    "keras_ssl.prototypes",
    "keras_ssl.queue",
    "keras_ssl.regularizers",
    "keras_ssl.teacher",
)

BACKBONES = ("resnet8", "resnet18", "vit")  # functions of keras_ssl.backbones, by their names
FOR_VIT = ("IBOT", "MAE", "SimMIM")  # methods that the command gives a vit where no backbone is named
DATA_SETS = (  # that `data.load` takes
    "clothes_sample",
    "fashion_mnist_sample",
    "fashion_mnist",
    "mnist",
    "cifar10",
    "cifar100",
)
RESIZABLE = ("clothes_sample",)  # those of them that `image_size` resizes
RESIZE = ("crop", "squash", "pad")  # how `data.load` brings pictures of another shape to a size; the first by default
RECIPES = ("auto", "small", "paper")
POLICIES = (  # functions of keras_ssl.augment that make views of images
    "simclr",
    "moco",
    "byol",
    "barlow_twins",
    "small_gray",
    "mae",
    "simmim",
    "proxy",
    "multi_crop",
    "swav",
    "dino",
    "small_gray_crops",
)
PRECISIONS = ("none", "bfloat16", "float16")
STRATEGIES = ("both", "diverse", "typical")  # of `evaluate.select`; the first by default
PROTOCOLS = ("linear", "fine-tune", "frozen-then-unfrozen", "from-scratch")  # of `evaluate.fine_tune`
