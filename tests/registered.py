"""An example of each class that this package registers with Keras, with arguments that are not the defaults.

`test_configs.py` holds the list to be whole: a new class needs one line here, and is then held to be saved;
`test_layer_contract.py` holds the layers of `keras_ssl.augment` to Keras' contract of a layer.
"""

import importlib
import inspect
import pkgutil

import keras
from conftest import tiny_backbone
from methods_under_test import SMALL_DECODER, tiny_vit

import keras_ssl
from keras_ssl import (
    augment,
    distances,
    heads,
    lora,
    losses,
    mining,
    names,
    optimizers,
    progress,
    prototypes,
    queue,
    regularizers,
    teacher,
)


def classes():
    """All classes that are registered, by name."""
    for module in names.REGISTERED:
        importlib.import_module(module)
    registered = keras.saving.get_custom_objects()
    own = {name.partition(">")[2]: value for name, value in registered.items() if name.startswith("keras_ssl>")}
    return {name: value for name, value in own.items() if value.__module__.startswith("keras_ssl.")}


def modules_that_register():
    """The names of all modules of the package that register something, from their text."""
    for module in pkgutil.walk_packages(keras_ssl.__path__, "keras_ssl."):
        spec = module.module_finder.find_spec(module.name)
        with open(spec.origin, encoding="utf-8") as file:
            text = file.read()
        if "\n@keras.saving.register_keras_serializable(" in text or "\n@_serializable" in text:
            yield module.name


def flips():
    return augment.RandomHorizontalFlip(probability=0.3, seed=5)


LAYERS = {
    "RandomApply": lambda **more: augment.RandomApply([flips()], probability=0.4, **more),
    "RandomColorJitter": lambda **more: augment.RandomColorJitter(0.4, 0.3, 0.2, 0.1, probability=0.7, **more),
    "RandomCrop3D": lambda **more: augment.RandomCrop3D((4, 5, 6), **more),
    "RandomErasing": lambda **more: augment.RandomErasing(0.6, scale=(0.1, 0.2), fill=3.0, **more),
    "RandomFlip3D": lambda **more: augment.RandomFlip3D(axes=(0, 2), **more),
    "RandomFrequencyMask": lambda **more: augment.RandomFrequencyMask(share=0.3, fill=1.0, **more),
    "RandomGaussianBlur": lambda **more: augment.RandomGaussianBlur(5, sigma=(0.2, 1.0), probability=0.8, **more),
    "RandomGrayscale": lambda **more: augment.RandomGrayscale(probability=0.6, **more),
    "RandomHorizontalFlip": lambda **more: augment.RandomHorizontalFlip(probability=0.3, **more),
    "RandomJitter": lambda **more: augment.RandomJitter(std=0.3, **more),
    "RandomNoise": lambda **more: augment.RandomNoise(std=0.2, **more),
    "RandomResizedCrop": lambda **more: augment.RandomResizedCrop((8, 6), scale=(0.3, 0.9), **more),
    "RandomScale": lambda **more: augment.RandomScale(sigma=0.3, **more),
    "RandomSolarization": lambda **more: augment.RandomSolarization(0.7, threshold=0.4, **more),
    "RandomTimeCrop": lambda **more: augment.RandomTimeCrop(7, scale=(0.4, 0.8), **more),
    "RandomTimeMask": lambda **more: augment.RandomTimeMask(share=0.4, fill=2.0, **more),
    "Views": lambda **more: augment.Views([flips()], [flips(), augment.RandomGrayscale()], **more),
}
METHODS = {
    "BYOL": lambda: keras_ssl.BYOL(tiny_backbone(), momentum=0.9, projector=heads.mlp([8, 4]), one_pass=True),
    "BarlowTwins": lambda: keras_ssl.BarlowTwins(tiny_backbone(), projector=heads.mlp([8, 8]), scale=0.5),
    "DINO": lambda: keras_ssl.DINO(
        tiny_backbone(), projector=heads.mlp([8, 4]), prototypes=8, teacher_temperature=0.05
    ),
    "Distill": lambda: keras_ssl.Distill(
        tiny_backbone(), teacher.Frozen(tiny_backbone(), value_range=(0, 1)), memory=16, features_weight=0.5
    ),
    "Distortion": lambda: keras_ssl.Distortion(tiny_backbone(), seed=4),
    "Exemplar": lambda: keras_ssl.Exemplar(tiny_backbone(), exemplars=77),
    "IBOT": lambda: keras_ssl.IBOT(
        tiny_vit(), projector=heads.mlp([8, 4], last_batch_norm=False), prototypes=8, mask_ratio=(0.2, 0.6), blocks=None
    ),
    "Jigsaw": lambda: keras_ssl.Jigsaw(tiny_backbone((None, None, 1)), grid=2),
    "MAE": lambda: keras_ssl.MAE(tiny_vit(), mask_ratio=0.5, blocks=2, **SMALL_DECODER),
    "LeJEPA": lambda: keras_ssl.LeJEPA(tiny_backbone(), projector=heads.mlp([8, 4]), directions=8, limit=4.0),
    "MMCR": lambda: keras_ssl.MMCR(tiny_backbone(), projector=heads.mlp([8, 4]), local_weight=0.1, momentum=0.9),
    "MoCo": lambda: keras_ssl.MoCo(tiny_backbone(), memory=16, momentum=0.9, temperature=0.3),
    "MoCoV3": lambda: keras_ssl.MoCoV3(tiny_backbone(), projector=heads.mlp([8, 4]), temperature=0.3, one_pass=True),
    "NNCLR": lambda: keras_ssl.NNCLR(tiny_backbone(), projector=heads.mlp([8, 4]), memory=16, temperature=0.3),
    "RelativePatch": lambda: keras_ssl.RelativePatch(tiny_backbone((None, None, 1)), seed=2),
    "Rotation": lambda: keras_ssl.Rotation(tiny_backbone(), value_range=(0, 1)),
    "Siamese": lambda: keras_ssl.Siamese(tiny_backbone(), distance=distances.cosine, margin=0.5),
    "SimCLR": lambda: keras_ssl.SimCLR(tiny_backbone(), temperature=0.2, contrast=losses.dclw),
    "SimMIM": lambda: keras_ssl.SimMIM(tiny_vit(), mask_ratio=0.5, mask_size=14, blocks=1),
    "SimSiam": lambda: keras_ssl.SimSiam(tiny_backbone(), projector=heads.mlp([8, 4]), one_pass=True),
    "TiCo": lambda: keras_ssl.TiCo(tiny_backbone(), projector=heads.mlp([8, 4]), covariance_weight=4.0, decay=0.8),
    "SwAV": lambda: keras_ssl.SwAV(tiny_backbone(), projector=heads.mlp([8, 4]), prototypes=8, memory=16),
    "Triplet": lambda: keras_ssl.Triplet(tiny_backbone(), mining=mining.WithinMargin(0.0, 0.3), normalize=False),
    "VICReg": lambda: keras_ssl.VICReg(tiny_backbone(), projector=heads.mlp([8, 8]), covariance_weight=0.5),
}
LOSSES = {
    "Contrastive": lambda: losses.Contrastive(margin=0.7),
    "LiftedStructure": lambda: losses.LiftedStructure(margin=0.7),
    "NPairs": lambda: losses.NPairs(name="other"),
    "SupCon": lambda: losses.SupCon(temperature=0.3),
    "TripletHard": lambda: losses.TripletHard(margin=None, distance=distances.cosine),
    "TripletSemiHard": lambda: losses.TripletSemiHard(margin=0.3, distance=distances.squared),
}
OTHERS = {
    "Center": lambda: prototypes.Center(0.8),
    "ConstantMomentum": lambda: teacher.ConstantMomentum(0.7),
    "CosineMomentum": lambda: teacher.CosineMomentum(0.9, steps=70),
    "Decayed": lambda: optimizers.Decayed(keras.optimizers.SGD(0.2, momentum=0.8), 0.7, exclude=2, rates=[1.0, 0.7]),
    "DistanceWeighted": lambda: mining.DistanceWeighted(16, nearest=0.4),
    "Frozen": lambda: teacher.Frozen(tiny_backbone(), value_range=(0, 1), image_shape=(28, 28, 1)),
    "HardnessWeighted": lambda: mining.HardnessWeighted(3.0),
    "KoLeo": lambda: regularizers.KoLeo(0.3, name="spread_out"),
    "LARS": lambda: optimizers.LARS(0.2, momentum=0.8, nesterov=True),
    "LoRA": lambda: lora.LoRA(tiny_vit(), 2, layers=("key",), alpha=4),
    "Progress": lambda: progress.Progress(name="other"),
    "Prototypes": lambda: prototypes.Prototypes(5, weight_norm=True),
    "Queue": lambda: queue.Queue(4, labeled=True),
    "Teacher": lambda: teacher.Teacher(teacher.CosineMomentum(0.9), statistics="copy"),
    "WithinMargin": lambda: mining.WithinMargin(0.0, 0.2),
    "WithoutFalseNegatives": lambda: mining.WithoutFalseNegatives(0.8, most=0.2),
}
EXAMPLES = {**LAYERS, **METHODS, **LOSSES, **OTHERS}


def functions():
    return {name: value for name, value in classes().items() if not inspect.isclass(value)}


def plain(config):
    """As JSON has it, without the shapes that only built layers know."""
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items() if key != "build_config"}
    return [plain(part) for part in config] if isinstance(config, (list, tuple)) else config
