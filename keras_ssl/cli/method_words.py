"""What each method is, in plain English: for who chooses one, not for who writes one."""

# (in a few words, in two or three sentences)
METHODS = {
    "barlowtwins": (
        "two views of an image agree, and no two features say the same",
        "Two altered views of each image go through the network. The features of the views are made to agree, and "
        "features are kept from repeating each other, so that the network can't give all images one answer. It needs "
        "no large batches.",
    ),
    "byol": (
        "predicts what a slow copy of itself says of another view",
        "The network sees one view of an image and predicts what a copy of itself, which follows it slowly, makes of "
        "another view. No images are compared with each other, so it works with small batches.",
    ),
    "dino": (
        "learns from a slow copy of itself, also by small crops",
        "Like BYOL, but the answers are shares over many prototypes, and the network may also be shown small crops "
        "that must agree with the large ones (--views=dino). Made for vision transformers.",
    ),
    "distill": (
        "a small network learns from a trained one",
        "A small network learns to judge the similarity of images as a large, trained one does. Name the trained one "
        "with --teacher.",
    ),
    "distortion": (
        "guesses how an image was distorted",
        "The network sees an image and a tilted, stretched copy, and guesses the corners' places. Cheap, and easy to "
        "understand; the features are usually weaker than those of methods that compare views.",
    ),
    "exemplar": (
        "each image is a class of its own",
        "The network learns to tell which training image an altered view comes from. For a few thousand images: each "
        "needs an output of its own.",
    ),
    "ibot": (
        "DINO, and guesses what hidden patches are",
        "Beside what DINO does, some patches of an image are hidden, and the network guesses what its slow copy makes "
        "of them. Needs a vision transformer (--backbone=vit, the default here) and many epochs.",
    ),
    "jigsaw": (
        "puts the pieces of an image in order",
        "The image is cut into nine pieces and shuffled, and the network guesses the order. It learns shapes and where "
        "parts belong; pictures should be 64 pixels or larger.",
    ),
    "lejepa": (
        "views agree, and features spread evenly in all directions",
        "Views of an image are made to agree, while a test on random directions keeps the features spread evenly. It "
        "has no teacher and one setting that matters.",
    ),
    "mae": (
        "hides most of an image and draws what is missing",
        "Three quarters of the image's patches are hidden, and the network paints them. Needs a vision transformer "
        "(--backbone=vit, the default here) and many epochs; the features serve fine-tuning more than search.",
    ),
    "mmcr": (
        "views come together, and images spread over all directions",
        "The mean of an image's views is kept long and different from the other images'. Better with more than two "
        "views of an image.",
    ),
    "moco": (
        "SimCLR with a long memory of other images, for small batches",
        "Two views of an image must be alike, and unlike thousands of other images that a slow copy of the network has "
        "seen before. The memory takes the place of a large batch.",
    ),
    "mocov3": (
        "SimCLR with a slow copy of the network, for vision transformers",
        "Two views of an image must be alike, and unlike all other images of the batch; one side is a slow copy of the "
        "network. It wants batches of some hundreds.",
    ),
    "nnclr": (
        "an image is to be like the nearest neighbor of its other view",
        "Like SimCLR, but the partner of a view is the most similar image seen before, which gives more variety than "
        "altered copies of one image do.",
    ),
    "relativepatch": (
        "guesses where one piece of an image lies beside another",
        "The network sees two pieces of an image and guesses on which of eight sides the second lies. Pictures should "
        "be 64 pixels or larger.",
    ),
    "rotation": (
        "guesses by which quarter turn an image was rotated",
        "The simplest task there is, and quick. It works where up and down matter, as in photographs, and not for "
        "images without an upright side, such as cells or tiles seen from above.",
    ),
    "siamese": (
        "pairs of one kind come close, other pairs stay apart",
        "Two images that belong together are brought close, and others pushed apart up to a margin. Without labels, "
        "the pairs are two views of one image.",
    ),
    "simclr": (
        "two views of an image are alike, and unlike all other images",
        "Each image is altered twice, and the network learns to find the partner of each view among all images of the "
        "batch. A good first choice; it gains from large batches, as the other images are what it learns from.",
    ),
    "simmim": (
        "hides parts of an image and predicts their pixels",
        "Like MAE, but simpler: hidden patches go through the network as well, and a single layer paints them. Needs a "
        "vision transformer (--backbone=vit, the default here).",
    ),
    "simsiam": (
        "BYOL without the slow copy",
        "The network predicts from one view of an image what it makes of the other itself. The simplest method of two "
        "views; sensitive to the learning rate.",
    ),
    "swav": (
        "views of an image belong to the same cluster",
        "Images are shared out evenly among prototypes, and each view predicts the prototype of the other. It takes "
        "small crops besides (--views=swav), which cost little and help.",
    ),
    "tico": (
        "views agree, and no direction of the features takes all",
        "Views of an image are made to agree, while a running average of how features go together keeps them spread. A "
        "slow copy of the network sees one of the views.",
    ),
    "triplet": (
        "an image is nearer to its own kind than to any other, by a margin",
        "Of three images, two of which belong together, the odd one is pushed away. Without labels, the two are views "
        "of one image. It gives distances that mean something, for search.",
    ),
    "vicreg": (
        "views agree, each feature varies, and no two say the same",
        "Three simple rules on the features, each with a weight of its own: views agree, no feature is constant, and "
        "features don't repeat each other. It needs no large batches and no slow copy.",
    ),
}
