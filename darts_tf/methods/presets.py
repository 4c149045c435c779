"""Methods by name: the combinations of parts that papers made, for `--method`.

A method is a set of values of flags of `darts_tf.search`; a flag that is given beside it overrides. Its `parts` say
what it does. Its `training` says with which hyperparameters its authors ran it on CIFAR-10, from their code; for the
few images of the digits these are not taken.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Method:
    """A named combination.

    Attributes:
        idea: what it does, one line.
        source: the paper, and the code that the values are from.
        parts, training: {flag: value}. Values of `EPOCHS` are in epochs of `training["epochs"]`; for another number of
            epochs they are scaled.
        cells: {flag: value}, more parts that only mean something to the space of DARTS.
        small: {flag: value}, what takes the place of parts for small data.
    """

    idea: str
    source: str
    parts: dict = dataclasses.field(default_factory=dict)
    training: dict = dataclasses.field(default_factory=dict)
    cells: dict = dataclasses.field(default_factory=dict)
    small: dict = dataclasses.field(default_factory=dict)

    def values(self, space="darts", small=False, epochs=None):
        """{flag: value} of a search.

        Args:
            space: its name.
            small: whether the data is small, so that `training` is not taken.
            epochs: of the search; by default those of the method, for small data 50.
        """
        cells = self.cells if space == "darts" else {}
        values = {**self.parts, **cells, **self.small} if small else {**self.training, **self.parts, **cells}
        scale = (epochs or values.get("epochs", 50)) / self.training.get("epochs", 50)
        return {name: int(value * scale) if name in EPOCHS else value for name, value in values.items()}


EPOCHS = ("warmup_epochs",)
# FairDARTS and DrNAS have no "none".
WITHOUT_NONE = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

METHODS = {
    "darts": Method(
        "Softmax over all candidates, two alternating gradient descents.",
        "Liu, Simonyan, Yang: DARTS (ICLR 2019); quark0/darts",
    ),
    "gdas": Method(
        "One candidate per edge is drawn and computed in each step.",
        "Dong, Yang: GDAS (CVPR 2019); D-X-Y/AutoDL-Projects",
        {"relaxation": "gumbel_hard", "temperature": 10.0, "temperature_min": 0.1, "nesterov": True},
        {"epochs": 250},
    ),
    "snas": Method(
        "Softmax with Gumbel noise and a falling temperature, so that what is trained becomes what is decided.",
        "Xie et al.: SNAS (ICLR 2019); SNAS-Series/SNAS-Series",
        {"relaxation": "gumbel_soft", "temperature": 1.0, "temperature_min": 0.03},
        {"epochs": 150},
    ),
    "pc-darts": Method(
        "A quarter of the channels is searched, edges have weights of their own, and alpha waits.",
        "Xu et al.: PC-DARTS (ICLR 2020); yuhuixu1993/PC-DARTS",
        {"partial_channels": 4, "edge_normalization": True, "warmup_epochs": 15},
        {"batch_size": 256, "learning_rate": 0.1, "learning_rate_min": 0.0, "arch_learning_rate": 6e-4},
    ),
    "p-darts": Method(
        "Three stages: the network grows deeper while candidates are dropped; skips are held back by dropout.",
        "Chen et al.: P-DARTS (ICCV 2019); chenxin061/pdarts",
        {
            "stages": ["8", "5", "3"],
            "stage_dropout": ["0.0", "0.4", "0.7"],
            "selection": "max_skips",
            "max_skips": 2,
            "warmup_epochs": 10,
        },
        {"epochs": 75, "batch_size": 96, "learning_rate_min": 0.0, "arch_learning_rate": 6e-4},
        {"stage_layers": ["5", "11", "17"]},
        {"stage_layers": ["3", "4", "5"]},
    ),
    "fair-darts": Method(
        "Candidates do not compete: each has a sigmoid, which a penalty drives to zero or one.",
        "Chu et al.: FairDARTS (ECCV 2020); xiaomi-automl/FairDARTS",
        {
            "relaxation": "sigmoid",
            "penalty": "zero_one",
            "penalty_weight": 10.0,
            "selection": "threshold",
            "threshold": 0.85,
            "arch_beta_1": 0.9,
        },
        {"batch_size": 128, "learning_rate": 0.005, "arch_learning_rate": 3e-3},
        {"primitives": list(WITHOUT_NONE)},
    ),
    "dr-nas": Method(
        "The weights of candidates are drawn from a Dirichlet distribution whose concentration is learnt.",
        "Chen et al.: DrNAS (ICLR 2021); xiangning-chen/DrNAS",
        {"relaxation": "dirichlet"},
        {"learning_rate": 0.1, "learning_rate_min": 0.0, "arch_learning_rate": 6e-4},
        {
            "init_channels": 36,
            "layers": 20,
            "primitives": list(WITHOUT_NONE),
            "stages": ["7", "4"],
            "stage_partial_channels": ["6", "4"],
            "warmup_epochs": 10,
        },
        {"init_channels": 12, "layers": 5},
    ),
    "beta-darts": Method(
        "Alphas are kept from growing, ever more strongly, so that no candidate wins early.",
        "Ye et al.: beta-DARTS (CVPR 2022); Sunshine-Ye/Beta-DARTS",
        {"penalty": "beta_decay", "penalty_weight": 50.0},
        {"epochs": 100},
    ),
    "sdarts-rs": Method(
        "The weights are trained under random changes of the mixture, so that they suit its neighbours, too.",
        "Chen, Hsieh: SmoothDARTS (ICML 2020); xiangning-chen/SmoothDARTS",
        {"perturbation": "random", "perturbation_size": 0.3},
    ),
    "sdarts-adv": Method(
        "The weights are trained under the worst small change of the mixture.",
        "Chen, Hsieh: SmoothDARTS (ICML 2020); xiangning-chen/SmoothDARTS",
        {"perturbation": "adversarial", "perturbation_size": 0.3},
    ),
    "darts-minus": Method(
        "Every edge has a second skip, which fades away: the first one need not win to help training.",
        "Chu et al.: DARTS- (ICLR 2021); Meituan-AutoML/DARTS-",
        {"auxiliary_skip": True},
    ),
    "r-darts": Method(
        "The search ends where the validation loss becomes sharp in alpha.",
        "Zela et al.: RobustDARTS (ICLR 2020); automl/RobustDARTS",
        {"curvature_every": 2, "early_stop": "curvature"},
    ),
    "fbnet": Method(
        "Softmax with Gumbel noise, all blocks of a chain in each step; multiply-adds count in alpha's loss.",
        "Wu et al.: FBNet (CVPR 2019), which has no official search code",
        {
            "relaxation": "gumbel_soft",
            "temperature": 5.0,
            "temperature_min": 0.087,
            "temperature_schedule": "exponential",
            "cost_form": "fbnet",
            "train_portion": 0.8,
            "warmup_epochs": 10,
        },
        {
            "epochs": 90,
            "learning_rate": 0.1,
            "learning_rate_min": 0.0,
            "weight_decay": 1e-4,
            "arch_learning_rate": 0.01,
            "arch_weight_decay": 5e-4,
        },
    ),
    "proxyless": Method(
        "One block of each layer is drawn and computed; where alpha is trained two are, one of which is active.",
        "Cai et al.: ProxylessNAS (ICLR 2019); mit-han-lab/proxylessnas",
        {
            "relaxation": "binary_gates",
            "cost_form": "add_linear",
            "train_portion": 0.9,
            "warmup_epochs": 40,
            "arch_beta_1": 0.0,
            "arch_weight_decay": 0.0,
        },
        {
            "epochs": 160,
            "learning_rate": 0.025,
            "learning_rate_min": 0.0,
            "weight_decay": 4e-5,
            "arch_learning_rate": 1e-3,
        },
    ),
    "densenas": Method(
        "Some blocks of each layer are drawn, one to train the weights, two for alpha; the likeliest path is found.",
        "Fang et al.: DenseNAS (CVPR 2020); JaminFong/DenseNAS",
        {
            "relaxation": "drawn_softmax",
            "cost_form": "add_log",
            "cost_weight": 0.15,
            "train_portion": 0.8,
            "warmup_epochs": 50,
        },
        {"epochs": 150, "learning_rate": 0.2, "learning_rate_min": 5e-4, "weight_decay": 4e-5},
    ),
    "spos": Method(
        "One path is drawn and computed in each step; evolution finds the best path in what was trained.",
        "Guo et al.: Single Path One-Shot (ECCV 2020); megvii-model/SinglePathOneShot",
        {"relaxation": "uniform", "selection": "evolution", "train_portion": 0.8},
        {"epochs": 120, "weight_decay": 4e-5},
    ),
}


AUTO = "pc-darts"  # what `python -m benchmarks.nas_bench_201` recommends, see docs/methods.md
AUTO_OF_PATHS = "spos"  # of chains
NAMES = (*METHODS, "auto")


def get(name, has_paths=False):
    """The method of a name, "auto" included, where `has_paths` is the space's; raises ValueError if there is none."""
    name = (AUTO_OF_PATHS if has_paths else AUTO) if name == "auto" else name
    if name not in METHODS:
        raise ValueError(f"method={name}: expected one of {', '.join(METHODS)}.")
    return METHODS[name]
