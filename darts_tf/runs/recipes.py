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

# The search of recurrent cells, section 3.1.2 of the paper, and a small one.
SEARCH_TEXT = {
    "units": 300,
    "batch_size": 256,
    "learning_rate": 20.0,
    "momentum": 0.0,
    "grad_clip": 0.25,
    "weight_decay": 5e-7,
    "clip_virtual_step": True,
    "arch_learning_rate": 3e-3,
    "arch_beta_1": 0.9,
    "dropoute": 0.0,
}
SEARCH_TOPICS = {
    **SEARCH_TEXT,
    "units": 64,
    "batch_size": 32,
    "learning_rate": 5.0,  # with 20 and so few units and rows the loss leaps
    "epochs": 10,
    "vocabulary": 2000,
    "dropout": 0.2,
    "dropoutx": 0.2,
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
# What has been found since for small networks and few epochs.
MODERN = {
    **SMALL,
    "learning_rate": 0.1,
    "nesterov": True,
    "warmup_epochs": 2,
    "drop_path_prob": 0.0,
    "label_smooth": 0.1,
    "ema": 0.998,
}
# In place of a recipe's: of the optimizer, whose decay is not multiplied into its gradients.
ADAMW = {"learning_rate": 1e-3, "weight_decay": 0.05}
TABLE = {
    **SMALL,
    "drop_path_prob": 0.0,
    "flip": False,
}
# Section 3.2.2 of the paper: the training of recurrent cells.
PTB = {
    "epochs": 8000,
    "units": 850,
    "batch_size": 64,
    "learning_rate": 20.0,
    "momentum": 0.0,
    "grad_clip": 0.25,
    "weight_decay": 8e-7,
    "dropoute": 0.1,
}
WIKITEXT2 = {
    **PTB,
    "units": 700,
    "weight_decay": 5e-7,
    "dropouth": 0.15,
}
SMALL_TEXT = {
    **PTB,
    "epochs": 40,
    "units": 128,
    "batch_size": 32,
    "dropout": 0.4,
    "dropoutx": 0.2,
    "dropoute": 0.0,
}
TRAINING_TEXT = {"ptb": PTB, "wikitext2": WIKITEXT2, "small": SMALL_TEXT}
TRAINING = {"cifar": CIFAR, "imagenet": IMAGENET, "small": SMALL, "modern": MODERN, "table": TABLE}
FEW_IMAGES = 10_000


def training(images):
    """The name of the recipe for so many training images that are not ImageNet's."""
    return "small" if images < FEW_IMAGES else "cifar"


# Flags that do not mean something to all kinds of data: those that do to each.
_SAMPLES = ("train_portion", "ema", "early_stopping", "optimizer", "gradient_accumulation", "class_weight")
FLAGS = {
    "images": (
        *("image_size", "crop_padding", "flip", "cutout", "cutout_length", "stream", "mixup", "cutmix"),
        *("randaugment", "magnitude", "teacher", "teacher_weight", "teacher_temperature", *_SAMPLES),
    ),
    "text": ("tokens", "vocabulary", "bptt", "nonmono"),
    "table": ("label", "columns", "test_table", "test_seed", *_SAMPLES),
}


def flags_without(kind):
    """The flags that mean nothing to a kind of data, a list."""
    return [name for name in dict.fromkeys(sum(FLAGS.values(), ())) if name not in FLAGS[kind]]
