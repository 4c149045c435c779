"""The defaults of searches and trainings: those of the paper, and smaller ones for little data."""

# Appendix A of the paper: the search.
SEARCH = {
    "init_channels": 16,
    "layers": 8,
    "batch_size": 64,
    "learning_rate": 0.025,
    "learning_rate_min": 0.001,
    "arch_learning_rate": 3e-4,
}
SEARCH_DIGITS = {
    **SEARCH,
    "init_channels": 8,
    "layers": 5,
    "batch_size": 32,
    "arch_learning_rate": 3e-3,
}

# Appendix A of the paper: the training of what was found.
CIFAR = {
    "network": "cifar",
    "epochs": 600,
    "batch_size": 96,
    "init_channels": 36,
    "layers": 20,
    "learning_rate": 0.025,
    "gamma": 0.0,
    "weight_decay": 3e-4,
    "auxiliary": True,
    "drop_path_prob": 0.2,
    "label_smooth": 0.0,
    "cutout": True,
    "flip": True,
}
IMAGENET = {
    **CIFAR,
    "network": "imagenet",
    "epochs": 250,
    "batch_size": 128,
    "init_channels": 48,
    "layers": 14,
    "learning_rate": 0.1,
    "gamma": 0.97,
    "weight_decay": 3e-5,
    "drop_path_prob": 0.0,
    "label_smooth": 0.1,
    "cutout": False,
}
SMALL = {
    **CIFAR,
    "epochs": 40,
    "batch_size": 32,
    "init_channels": 16,
    "layers": 5,
    "auxiliary": False,
    "drop_path_prob": 0.1,
    "cutout": False,
}
TRAINING = {"cifar": CIFAR, "imagenet": IMAGENET, "small": SMALL}
FEW_IMAGES = 10_000


def training(images):
    """The name of the recipe for so many training images that are not ImageNet's."""
    return "small" if images < FEW_IMAGES else "cifar"
