"""What a search and a training can be asked for: each field is a flag of `darts_tf.search` or `darts_tf.train`.

Where a default is None, it is the one of `recipes`, or follows from the data.
"""

import contextlib
import dataclasses

from darts_tf import spaces
from darts_tf.cli import files
from darts_tf.cli.configuration import Configuration, option
from darts_tf.cli.messages import UsageError
from darts_tf.costs import tables
from darts_tf.data.names import is_imagenet, is_table
from darts_tf.methods import presets, schedules
from darts_tf.runs import budget, recipes, rundirectory

# What a search and the training of what it found have in common.
SHARED = ("dataset", "data_dir", "stream", "image_size", "tokens", "vocabulary", "bptt", "label", "columns")
SHARED += ("test_table", "test_seed", "operations")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Configuration):
    """Where the data is from, and what happens to it."""

    dataset: str = option(
        "digits",
        "digits, a folder with one folder of images per class (or folders train and test of them), a .npz file with "
        "x_train, y_train, x_test and y_test, or a tensorflow-datasets name such as cifar10. For language models: "
        "topics (their default, of Python's help), a text file, a folder with train.txt, valid.txt and test.txt, or a "
        "name such as tiny_shakespeare. Tables: a .csv, .tsv, .parquet or .npz file, or with --label a name such as "
        "wine_quality.",
        topic="Data",
    )
    stream: bool = option(
        False,
        "Leave the images of a folder on disk: they are read again in every epoch. For sets that do not "
        "fit into memory; the result is the same.",
        topic="Data",
    )
    data_dir: str | None = option(None, "Where tensorflow-datasets keeps its data. Default: its own.", topic="Data")
    image_size: int | None = option(
        None, "Resize images to this many pixels. Default: as they are.", topic="Data", least=8, most=8192
    )
    crop_padding: int | None = option(
        None,
        "Pixels that a random crop may shift by. Default: an eighth of the height.",
        topic="Data",
        least=0,
        most=8192,
    )
    flip: bool | None = option(None, "Mirror half of the images. Default: yes in colour, no in grey.", topic="Data")
    label: str | None = option(
        None, "Of a table: the column to predict. Default: y, of a .npz file with a matrix x.", topic="Table"
    )
    columns: list | None = option(
        None,
        "Types of columns, age:number,city:category: number, boolean, date, category, or none to leave one out. That "
        "of the label says whether it is a number to predict or one of classes. Default: they are inferred.",
        topic="Table",
    )
    test_table: str | None = option(
        None, "A second file, of the rows to test on. Default: every fifth row, of classes of each.", topic="Table"
    )
    test_seed: int = option(
        0,
        "Seed of the rows to test on. They are the same whatever --seed is, so that no search has seen those of a "
        "training.",
        topic="Table",
        least=0,
        most=2**32 - 1,
    )
    tokens: str = option("words", "What a language model predicts.", topic="Text", values=("words", "characters"))
    vocabulary: int | None = option(
        None,
        "Keep so many tokens, the most frequent ones; others become <unk>. Default: all; to search topics 2,000.",
        topic="Text",
        least=3,
        most=10_000_000,
    )
    bptt: int = option(35, "Tokens, on average, that gradients go back through.", topic="Text", least=2, most=100_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(DataConfig):
    """What all runs share: data, a run directory, devices."""

    output: str | None = option(None, "Run directory. Default: runs/COMMAND-DATASET-TIME.", topic="Run directory")
    overwrite: bool = option(False, "Replace a run that --output already holds.", topic="Run directory")
    resume: bool = option(
        False,
        "Go on with the run in --output; without this flag that is done, too, if there is one.",
        topic="Run directory",
    )
    seed: int = option(
        0,
        "Seed of weights, splits, shuffling and augmentation.",
        topic="Run directory",
        least=0,
        most=2**32 - 1,
    )
    operations: str | None = option(
        None, "A Python file that registers operations, spaces or parts of methods of your own.", topic="Run directory"
    )
    strategy: str = option(
        "auto",
        "mirrored: all GPUs of this machine, each with its part of every batch; auto: that, if there are several; "
        "multi_worker: all GPUs of the machines that the environment variable TF_CONFIG lists.",
        topic="Devices",
        values=("auto", "none", "mirrored", "multi_worker"),
    )
    worker_timeout: float = option(
        600.0,
        "On several machines: seconds of silence after which another one counts as lost; who can do nothing without it "
        "ends.",
        topic="Devices",
        least=0.1,
        most=86400,
    )
    cpu_devices: int = option(
        1, "Devices to make of the CPU, to try --strategy=mirrored.", topic="Devices", least=1, most=1024
    )
    precision: str = option(
        "float32",
        "What images and kernels are computed in. Weights, alpha, statistics and finite differences stay float32. The "
        "others are for GPUs; on CPUs they are slower.",
        topic="Devices",
        values=("float32", "bfloat16", "float16"),
    )

    def begun(self):
        """The configuration of a run that begins: what follows from other values is filled in."""
        return self

    @property
    def kind(self):
        """What models are of, "images", "text" or "table", as far as the file of --operations need not tell it."""
        kinds = self._kinds
        if kinds in (("text",), ("table",)):
            return kinds[0]
        return "table" if is_table(self.dataset, self.label) else "images"

    @property
    def _kinds(self):
        """What models of the space may be of, see `darts_tf.spaces.base.SearchSpace.kinds`."""
        raise NotImplementedError

    def of_table(self):
        """The same configuration; of a table, the space is one of tables, unless that was given."""
        return self.taken_over({"space": spaces.TABLE}) if self.kind == "table" else self

    def check_text(self):
        """Raises UsageError for what language models cannot be trained with; `self` is complete."""

    # A run may go on with other values of these.
    MAY_CHANGE = (
        *("output", "overwrite", "resume", "checkpoint_every", "tensorboard", "max_trials", "worker_timeout"),
        *("data_dir", "stream", "strategy", "cpu_devices", "deterministic", "jit_compile", "recompute"),
        "steps_per_execution",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig(RunConfig):
    """How weights are trained, those of recurrent networks above all: in searches, trainings and trials."""

    momentum: float = option(0.9, "Of the weights' SGD; of text by default 0.", topic="Optimisation", least=0, most=1)
    grad_clip: float = option(
        5.0, "Largest norm of the weights' gradient; of text by default 0.25.", topic="Optimisation", least=1e-9
    )
    units: int | None = option(
        None,
        "Of the hidden state, and of embeddings; of mlp of its widest layer. Default: 300 to search, of topics 64, mlp "
        "128; to train the recipe's, of mlp as it was searched.",
        topic="Recurrent network",
        least=1,
        most=100_000,
    )
    dropout: float = option(
        0.75,
        "Rate of dropout of the states that are decoded; by default 0.2 to search topics, 0.4 with the recipe small. "
        "Of mlp after each hidden layer, by default 0.",
        topic="Recurrent network",
        least=0,
        most=0.99,
    )
    dropouth: float = option(
        0.25,
        "The same of what enters the nodes' products; by default 0.15 with the recipe wikitext2.",
        topic="Recurrent network",
        least=0,
        most=0.99,
    )
    dropoutx: float = option(
        0.75,
        "The same of the cell's input; by default 0.2 to search topics, and with the recipe small.",
        topic="Recurrent network",
        least=0,
        most=0.99,
    )
    dropouti: float = option(0.2, "The same of embeddings.", topic="Recurrent network", least=0, most=0.99)
    dropoute: float | None = option(
        None,
        "The same of whole words. Default: 0 to search, to train the recipe's.",
        topic="Recurrent network",
        least=0,
        most=0.99,
    )
    activation_penalty: float = option(
        0.0,
        "What the mean square of the states that are decoded is multiplied by, to be added to the loss.",
        topic="Recurrent network",
        least=0,
    )
    temporal_penalty: float = option(
        1e-3,
        "The same of the mean square of their changes from token to token.",
        topic="Recurrent network",
        least=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig(WeightsConfig):
    """What searches and trainings share."""

    cutout_length: int = option(
        16, "Height and width of the hole that --cutout makes, in pixels.", topic="Data", least=1, most=8192
    )
    checkpoint_every: int = option(
        200,
        "Steps from one checkpoint to the next within an epoch; 0 for one per epoch.",
        topic="Run directory",
        least=0,
    )
    tensorboard: bool = option(
        False, "Write what TensorBoard shows to the run directory, after each epoch.", topic="Run directory"
    )
    sync_batch_norm: bool = option(
        False, "Batch norms take the statistics of all replicas. Slow to start.", topic="Devices"
    )
    recompute: bool = option(
        False,
        "Of cells of images: compute what is within a cell again in the backward pass instead of keeping it. A third "
        "less memory, a third more time.",
        topic="Devices",
    )
    deterministic: bool = option(
        False,
        "Have GPUs, too, compute the same bits each time, if slower: what goes on ends where it would have ended.",
        topic="Devices",
    )
    jit_compile: bool = option(False, "Compile the step with XLA. For GPUs; on CPUs it is far slower.", topic="Devices")
    steps_per_execution: int = option(1, "Steps to run without a look at them, as in Keras.", topic="Devices", least=1)

    def at_one_rate(self):
        """The same configuration; its learning rate does not fall, unless that was asked for."""
        return self.taken_over({"learning_rate_min": self.learning_rate})

    def check_text(self):
        """Raises UsageError for what language models cannot be trained with; `self` is complete."""
        if self.steps_per_execution > 1:
            raise UsageError(
                f"--steps_per_execution={self.steps_per_execution}: expected 1 with text, whose segments differ."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(FitConfig):
    """What `darts_tf.run_search` and `python -m darts_tf.search` are asked for.

        darts_tf.run_search(darts_tf.SearchConfig(dataset="digits", epochs=3))

    Each argument is a flag of `python -m darts_tf.search`, whose --help says what it means.

    Raises:
        UsageError: a value is out of range; a `ValueError`.
    """

    method: str = option(
        "darts",
        "A combination of the parts below that a paper made, see docs/methods.md; auto is what is recommended. A flag "
        "that is given beside it overrides.",
        topic="Search",
        values=presets.NAMES,
    )
    unrolled: bool = option(
        False, "Second order: alpha looks one training step ahead. 2.5 times the time.", topic="Search"
    )
    difference: str = option(
        "central",
        "Of --unrolled: the difference of equation 8, central as in the paper, or forward, which takes a fifth less "
        "time and is less exact.",
        topic="Search",
        values=("central", "forward"),
    )
    relaxation: str = option(
        "softmax",
        "How alpha becomes weights of the operations: softmax, sigmoid, gumbel_soft, gumbel_hard, gumbel_hard_v1, "
        "dirichlet; of chains also binary_gates; uniform and path_dropout, which train the weights alone; or one of "
        "your own.",
        topic="Method",
    )
    temperature: float | None = option(
        None, "Of a relaxation with Gumbel noise, in the first epoch. Default: its own.", topic="Method", least=1e-6
    )
    temperature_min: float | None = option(
        None, "The same towards the last epoch. Default: its own.", topic="Method", least=1e-6
    )
    temperature_schedule: str | None = option(
        None,
        "How it goes from the one to the other; constant is the latter from the start. Default: the relaxation's.",
        topic="Method",
        values=schedules.names(),
    )
    warmup_epochs: int = option(0, "Epochs (of each stage) before alpha moves.", topic="Method", least=0)
    partial_channels: int = option(
        1, "Search one of so many parts of the channels; the others pass by.", topic="Method", least=1, most=8192
    )
    edge_normalization: bool = option(
        False, "Give each edge a weight of its own, too, with which it competes.", topic="Method"
    )
    auxiliary_skip: bool = option(False, "Add a second skip to every edge, which fades away.", topic="Method")
    stages: list | None = option(
        None,
        "Search in stages of as many epochs each, with so many candidates per edge: 8,5,3. The weakest are dropped. "
        "Default: one stage with all.",
        topic="Method",
    )
    stage_layers: list | None = option(
        None,
        "Cells in each stage, which then begins anew: 5,11,17. Default: --layers, and weights that stay.",
        topic="Method",
    )
    stage_dropout: list | None = option(
        None, "Dropout after skips in each stage: 0.0,0.4,0.7. Default: none.", topic="Method"
    )
    stage_partial_channels: list | None = option(
        None, "--partial_channels of each stage: 6,4. Default: the same in all.", topic="Method"
    )
    prune_below: float = option(
        0.0,
        "After each epoch remove candidates whose share is below this; steps become faster.",
        topic="Method",
        least=0,
        most=1,
    )
    prune_patience: int = option(
        1, "Epochs in a row in which the share of a candidate has to be below --prune_below.", topic="Method", least=1
    )
    penalty: str | None = option(
        None,
        "What is added to alpha's loss: beta_decay, zero_one, zero_one_l1, anchor, or one of your own. Default: "
        "nothing.",
        topic="Method",
    )
    penalty_weight: float | None = option(None, "What it is multiplied by. Default: its own.", topic="Method", least=0)
    perturbation: str | None = option(
        None,
        "How the mixture is changed where the weights are trained: random, adversarial, or one of your own. Default: "
        "not at all.",
        topic="Method",
    )
    perturbation_size: float | None = option(
        None, "How far, towards the last epoch. Default: 0.3.", topic="Method", least=0, most=1
    )
    selection: str = option(
        "strongest",
        "How the genotype is decided: strongest, the strongest operation on the two strongest edges of a node; or one "
        "of those that docs/methods.md lists.",
        topic="Method",
    )
    tuning_epochs: int = option(
        10, "Of --selection=perturbation: epochs of training between two decisions.", topic="Method", least=0
    )
    population: int = option(
        50, "Of --selection=evolution: networks of a generation.", topic="Method", least=2, most=10_000
    )
    generations: int = option(20, "Of --selection=evolution: how many.", topic="Method", least=1, most=10_000)
    recalibration_images: int = option(
        1000,
        "Of --selection=evolution: images that the batch norms of each network are computed anew from.",
        topic="Method",
        least=1,
    )
    max_parameters: float | None = option(
        None,
        "The most parameters that the network may have, as darts_tf.train makes it. The search is drawn there, and the "
        "best network within all bounds is found. Default: any.",
        topic="Budget",
        least=1,
    )
    max_multiply_adds: float | None = option(
        None, "The most multiply-adds, such as 45e6. Default: any.", topic="Budget", least=1
    )
    max_bytes: float | None = option(
        None, "The most bytes of the float32 TFLite file. Default: any.", topic="Budget", least=1
    )
    max_int8_bytes: float | None = option(None, "The same of the int8 file. Default: any.", topic="Budget", least=1)
    max_latency_ms: float | None = option(
        None,
        "The most milliseconds for one input, by --latency_table. Default: any.",
        topic="Budget",
        least=1e-9,
    )
    latency_table: str | None = option(
        None, "A file of python -m darts_tf.latency: what parts of networks take. Default: none.", topic="Budget"
    )
    front: int | None = option(
        None,
        "Also find so many networks, from the cheapest to the strongest: front.json, and front/1.json, ... for "
        "darts_tf.train. Default: none.",
        topic="Budget",
        least=2,
        most=100,
    )
    cost: str | None = option(
        None,
        "What --cost_form counts, and what the networks of --front differ in. Default: what is bounded, latency_ms "
        "with --latency_table, else multiply_adds.",
        topic="Budget",
        values=tables.COSTS,
    )
    cost_form: str | None = option(
        None,
        "How the cost that a network is expected to have enters alpha's loss: fbnet, mul_log, add_linear, add_log, or "
        "one of your own. Default: add_linear with a weight that follows from the bounds; without bounds not.",
        topic="Budget",
    )
    cost_weight: float | None = option(None, "What it counts. Default: its own.", topic="Budget", least=0)
    cost_reference: float | None = option(
        None,
        "The cost to compare with, such as 45e6. Default: its bound, else that where all candidates count alike.",
        topic="Budget",
        least=1e-9,
    )
    from_supernet: str | None = option(
        None,
        "Train nothing: find another network in what the search in this folder, of --selection=evolution, has trained. "
        "Flags that are not given are those of that search. Default: train.",
        topic="Method",
    )
    max_skips: int | None = option(
        None, "Of --selection=max_skips: at most so many skips in the normal cell. Default: 2.", topic="Method", least=0
    )
    threshold: float | None = option(
        None,
        "Of --selection=threshold: operations below it are left out. Default: 0.85.",
        topic="Method",
        least=0,
        most=1,
    )
    curvature_every: int = option(
        0,
        "Compute the largest eigenvalue of the Hessian of alpha's loss after every so many epochs; 0 for never.",
        topic="Method",
        least=0,
    )
    early_stop: str | None = option(
        None,
        "End early: curvature, when that eigenvalue has grown; skips, when the normal cell has two; ranking, when the "
        "operations have kept their order. Default: not.",
        topic="Method",
        values=("curvature", "skips", "ranking"),
    )
    epochs: int = option(50, "Epochs; of topics by default 10.", topic="Search", least=1, most=1_000_000)
    batch_size: int | None = option(
        None,
        "Images, or rows of text or of a table, per batch. Default: 64, of small tables less; cells of digits 32; text "
        "256, topics 32.",
        topic="Search",
        least=1,
    )
    train_portion: float = option(
        0.5, "Part of the training images for the weights; the rest is for alpha.", topic="Search"
    )
    space: str = option(
        "darts",
        "What is searched: darts, the cells of the paper; s1 to s4, in which DARTS fails; nas-bench-201; chain, mobile "
        "blocks that suit the images; fbnet, proxyless, spos and nas-bench-macro, the chains of papers; densenas, "
        "densely connected blocks; mlp, multilayer perceptrons; recurrent, cells of language models; one of your own; "
        "or a .json or .py file that describes cells, a chain or blocks, see docs/spaces.md and docs/chain.md.",
        topic="Supernet",
    )
    init_channels: int | None = option(
        None,
        "Channels of the first cell, or of the stem of a chain, whose other channels grow with it. Default: 16; digits "
        "8; chains as described.",
        topic="Supernet",
        least=2,
        most=8192,
    )
    layers: int | None = option(
        None,
        "Cells. Default: 8; digits 5. Of nas-bench-201 in each stage: 5. Of mlp hidden layers at the most: 4.",
        topic="Supernet",
        least=1,
        most=1000,
    )
    nodes: int | None = option(
        None,
        "Intermediate nodes of a cell. Default: 4; nas-bench-201 3; recurrent 8.",
        topic="Supernet",
        least=1,
        most=100,
    )
    primitives: list | None = option(
        None, "Candidate operations, comma-separated. Default: those of the space's paper.", topic="Supernet"
    )
    widths: list | None = option(
        None,
        "Of chains: search the width of each layer, too, of these parts of it: 0.5,0.75,1. Default: not; mlp "
        "0.25,0.5,0.75,1.",
        topic="Supernet",
    )
    batch_norm: bool | None = option(
        None, "Of mlp: a batch norm before the activations of each layer. Default: yes.", topic="Supernet"
    )
    learning_rate: float | None = option(
        None,
        "Of the weights, at the start, per step. Default: 0.025; text 20, topics 5.",
        topic="Optimisation",
        least=0,
    )
    learning_rate_min: float | None = option(
        None,
        "Of the weights, at the end of the cosine. Default: 0.001; text as at the start.",
        topic="Optimisation",
        least=0,
    )
    weight_decay: float = option(
        3e-4, "L2 decay of the weights; of text by default 5e-7.", topic="Optimisation", least=0
    )
    arch_learning_rate: float | None = option(
        None, "Of alpha's Adam. Default: 3e-4; digits and text 3e-3.", topic="Optimisation", least=0
    )
    arch_weight_decay: float = option(1e-3, "L2 decay of alpha.", topic="Optimisation", least=0)
    arch_beta_1: float = option(
        0.5, "Momentum of alpha's Adam; of text by default 0.9.", topic="Optimisation", least=0, most=1
    )
    nesterov: bool = option(False, "Nesterov's momentum for the weights.", topic="Optimisation")
    clip_virtual_step: bool | None = option(
        None,
        "Second order: clip the gradients of the virtual step, too. Default: for recurrent cells, as the paper.",
        topic="Optimisation",
    )
    cutout: bool = option(False, "Cut a square hole into training images.", topic="Data")

    @property
    def _kinds(self):
        return spaces.kind(self.space).kinds

    def begun(self):
        if self.from_supernet:
            return self.taken_over(self._of_supernet())
        return self.of_table()._begun()

    def _begun(self):
        kind = spaces.kind(self.space)
        method, own = presets.get(self.method, kind.has_paths), kind.searching
        epochs = self.epochs if "epochs" in self.given else own.get("epochs")
        if self.kind != "text":
            # Authors' hyperparameters suit CIFAR-10; those of data of one's own are DARTS's.
            is_small = self.method == "auto" or self.dataset == "digits" or bool(own)
            return self.taken_over(own | method.values(self.space, is_small, epochs))
        config = self.taken_over({"dataset": spaces.get(self.space).dataset})
        recipe = recipes.SEARCH_TOPICS if config.dataset == "topics" else recipes.SEARCH_TEXT
        own = {} if self.method == "auto" else method.values(self.space, True, epochs)  # whose parts are of images
        return config.taken_over(recipe | own).at_one_rate()

    def _of_supernet(self):
        """The values of the search whose supernet is used, a dict."""
        try:
            there = rundirectory.configuration(self.from_supernet)
        except rundirectory.DamageError as error:
            raise UsageError(f"--from_supernet={self.from_supernet}: {error}; expected a whole search.") from None
        if not there or there["command"] != "search" or there.get("selection") != "evolution":
            raise UsageError(
                f"--from_supernet={self.from_supernet}: expected the folder of a search of --selection=evolution."
            )
        own = ("output", "resume", "overwrite", "from_supernet", *budget.BOUNDS, "population", "generations")
        own += ("front", "cost", "latency_table")
        names = {field.name for field in dataclasses.fields(self)} - set(own)
        values = {name: value for name, value in there.items() if name in names}
        for name, value in values.items():
            if name in self.given and name not in self.MAY_CHANGE and getattr(self, name) != value:
                raise UsageError(
                    f"--{name}={getattr(self, name)}: the search of --from_supernet has {value}; expected that."
                )
        return values

    def check(self):
        """Raises UsageError for what can be seen without the data."""
        if not 0 < self.train_portion < 1:
            raise UsageError(f"--train_portion={self.train_portion}: expected a number between 0 and 1.")
        if self.selection in ("perturbation", "evolution"):
            for name, wrong in (("early_stop", self.early_stop), ("strategy", self.strategy == "multi_worker")):
                if wrong:
                    raise UsageError(
                        f"--selection={self.selection} with --{name}={getattr(self, name)}: expected one of them."
                    )
        if self.early_stop == "curvature" and not self.curvature_every:
            raise UsageError("--early_stop=curvature without --curvature_every: expected both.")
        if (self.early_stop or self.curvature_every) and self.strategy == "multi_worker":
            raise UsageError("--strategy=multi_worker with --early_stop or --curvature_every: expected one machine.")
        if self.front and (self.strategy == "multi_worker" or self.early_stop):
            other = f"--early_stop={self.early_stop}" if self.early_stop else "--strategy=multi_worker"
            raise UsageError(f"--front={self.front} with {other}: expected one of them.")
        if self.init_channels and self.init_channels % 2:
            raise UsageError(f"--init_channels={self.init_channels}: expected an even number.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(FitConfig):
    """What `darts_tf.run_training` and `python -m darts_tf.train` are asked for.

        darts_tf.run_training(darts_tf.TrainConfig(arch="DARTS_V2", epochs=10))

    Each argument is a flag of `python -m darts_tf.train`, whose --help says what it means. One of `arch` and
    `init_from` has to be given.

    Raises:
        UsageError: a value is out of range; a `ValueError`.
    """

    arch: str | None = option(
        None,
        "The genotype: a run's genotype.json, NASNet, AmoebaNet, DARTS_V1, DARTS_V2, Genotype(...) text, or a cell of "
        "NAS-Bench-201, |nor_conv_3x3~0|+|...|. Of recurrent cells ENAS, DARTS_V1, DARTS_V2.",
        topic="What to train",
    )
    space: str | None = option(
        None,
        "The space of a name that several have: --space=recurrent --arch=DARTS_V2. Default: darts.",
        topic="What to train",
    )
    init_from: str | None = option(
        None, "Start from this trained .keras model, whatever its architecture, not --arch.", topic="What to train"
    )
    evaluate: str | None = option(
        None,
        "Train nothing: measure this .keras model on the test images, text or rows of --dataset.",
        topic="What to train",
    )
    recipe: str | None = option(
        None,
        "Defaults of the flags that have none here. Default: imagenet for imagenet2012, cifar from 10,000 images on, "
        "table for tables, else small; modern has what came later, such as --ema. With imagenet, images stay on disk "
        "and random parts of them are resized to 224x224. For text: ptb and wikitext2, as the paper has them, or "
        "small, the default.",
        topic="What to train",
        values=tuple(dict.fromkeys((*recipes.TRAINING, *recipes.TRAINING_TEXT))),
    )
    epochs: int | None = option(None, "Epochs. Default: the recipe's.", topic="What to train", least=1, most=1_000_000)
    batch_size: int | None = option(
        None,
        "Images, or rows of text or of a table, per batch. Default: the recipe's.",
        topic="What to train",
        least=1,
    )
    train_portion: float = option(
        1.0, "Part of the training images to train on; the rest validates each epoch.", topic="What to train"
    )
    network: str | None = option(
        None,
        "imagenet makes images 8 times smaller before the cells. Default: the recipe's.",
        topic="Network",
        values=("cifar", "imagenet"),
    )
    init_channels: int | None = option(
        None, "Channels of the first cell. Default: the recipe's.", topic="Network", least=2, most=8192
    )
    layers: int | None = option(None, "Cells. Default: the recipe's.", topic="Network", least=1, most=1000)
    auxiliary: bool | None = option(
        None, "Train with an auxiliary head at two thirds of the depth. Default: the recipe's.", topic="Network"
    )
    auxiliary_weight: float = option(0.4, "What its loss counts.", topic="Network", least=0)
    drop_path_prob: float | None = option(
        None, "Drop path: the rate grows from 0 to this. Default: the recipe's.", topic="Network", least=0, most=0.9
    )
    learning_rate: float | None = option(
        None, "At the start, per step. Default: the recipe's.", topic="Optimisation", least=0
    )
    learning_rate_min: float = option(
        0.0, "At the end of the cosine; of text by default as at the start.", topic="Optimisation", least=0
    )
    gamma: float | None = option(
        None,
        "Multiplies the learning rate after each epoch; 0 for a cosine. Default: the recipe's.",
        topic="Optimisation",
        least=0,
    )
    warmup_epochs: int = option(
        0, "Epochs in which the learning rate grows to --learning_rate, before it falls.", topic="Optimisation", least=0
    )
    weight_decay: float | None = option(
        None,
        "L2 decay of the weights; with adamw decoupled, of kernels alone. Default: the recipe's; adamw 0.05.",
        topic="Optimisation",
        least=0,
    )
    optimizer: str = option(
        "sgd",
        "adamw is Adam with decoupled weight decay, whose learning rate is by default 0.001.",
        topic="Optimisation",
        values=("sgd", "adamw"),
    )
    nesterov: bool = option(False, "Nesterov's momentum, of sgd.", topic="Optimisation")
    gradient_accumulation: int = option(
        1, "Batches whose gradients make one step of the weights, for lack of memory.", topic="Optimisation", least=1
    )
    ema: float = option(
        0.0,
        "Validate and save an exponential moving average of the weights, of which each step keeps this part: 0.999. It "
        "keeps less at the beginning. 0 for none.",
        topic="Optimisation",
        least=0,
        most=1,
    )
    early_stopping: int = option(
        0,
        "End after so many epochs without a better validation, and save the best model; takes --train_portion. 0 for "
        "never.",
        topic="What to train",
        least=0,
    )
    class_weight: str = option(
        "none",
        "balanced: in the loss, classes count as much as if all had as many samples.",
        topic="Optimisation",
        values=("none", "balanced"),
    )
    label_smooth: float | None = option(
        None, "Label smoothing. Default: the recipe's.", topic="Optimisation", least=0, most=0.9
    )
    nonmono: int = option(
        5,
        "Of text: weights are averaged from the epoch on whose validation is worse than the best of so many epochs "
        "before; 0 for never.",
        topic="Optimisation",
        least=0,
    )
    cutout: bool | None = option(
        None,
        "Cut a square hole into training images. Default: the recipe's; no where the images are no larger than it.",
        topic="Data",
    )
    mixup: float = option(
        0.0,
        "Blend two training images, and their labels: alpha of the Beta distribution of their shares, such as 0.2. 0 "
        "for not.",
        topic="Data",
        least=0,
        most=100,
    )
    cutmix: float = option(
        0.0,
        "Cover a part of a training image with that of another one: alpha of the part's size, such as 1. With --mixup "
        "each batch gets one of them.",
        topic="Data",
        least=0,
        most=100,
    )
    randaugment: int = option(
        0, "Change each training image by so many of 14 operations, such as 2.", topic="Data", least=0, most=14
    )
    magnitude: float = option(9.0, "How much --randaugment changes, of 30.", topic="Data", least=0, most=30)
    teacher: str | None = option(
        None,
        "Learn what this .keras model, of the same images and classes, makes of training images, too. Default: labels "
        "alone.",
        topic="Teacher",
    )
    teacher_weight: float = option(
        0.5, "What that counts in the loss; labels count the rest.", topic="Teacher", least=0, most=1
    )
    teacher_temperature: float = option(
        4.0,
        "What logits of both are divided by, so that also unlikely classes count.",
        topic="Teacher",
        least=1e-2,
        most=1000,
    )

    @property
    def _space(self):
        """The space of --arch, `SearchSpace` as long as it is not known."""
        with contextlib.suppress(OSError, ValueError):
            return spaces.read(self.arch, self.space).space
        return spaces.SearchSpace()

    @property
    def _kinds(self):
        return self._space.kinds if self.arch else (files.kind_of_model(self.init_from or self.evaluate or ""),)

    def begun(self):
        if self.kind != "text":
            space = self._space if self.arch else spaces.SearchSpace()
            known = {name: value for name, value in space.sizes.items() if value is not None}
            # A recipe's values of flags that have a default here; the others follow from the data, see `completed`.
            own = {field.name for field in dataclasses.fields(self) if field.default is not None}
            own -= set(recipes.flags_without(self.kind))
            recipe = recipes.TRAINING.get(self.recipe, {})
            known |= {name: value for name, value in recipe.items() if name in own}
            known |= {} if self.recipe else space.training
            return self.taken_over(known | (recipes.ADAMW if self.optimizer == "adamw" else {}))
        recipe = self.recipe or "small"
        if recipe not in recipes.TRAINING_TEXT:
            expected = ", ".join(recipes.TRAINING_TEXT)
            raise UsageError(f"--recipe={recipe}: expected one of {expected} for language models.")
        values = {"dataset": "topics", "recipe": recipe} | recipes.TRAINING_TEXT[recipe]
        return self.taken_over(values).at_one_rate()

    def check(self):
        """Raises UsageError for what can be seen without TensorFlow."""
        given = [name for name in ("arch", "init_from", "evaluate") if getattr(self, name)]
        if len(given) != 1:
            what = f"--{' and --'.join(given)}" if given else "nothing"
            raise UsageError(f"{what} given: expected one of --arch, --init_from and --evaluate, see --help.")
        if not 0 < self.train_portion <= 1:
            raise UsageError(f"--train_portion={self.train_portion}: expected a number above 0, at most 1.")
        if self.recipe == "imagenet" and self.kind == "table":
            raise UsageError("--recipe=imagenet: expected another one, or none, with a table.")
        if self.train_portion < 1 and self.takes_random_parts:
            raise UsageError(f"--train_portion={self.train_portion}: expected 1 with --recipe=imagenet.")
        if self.init_from:
            for name in ("network", "init_channels", "layers", "auxiliary", "drop_path_prob"):
                if getattr(self, name):
                    value = getattr(self, name)
                    raise UsageError(f"--{name}={value}: expected none, --init_from has an architecture already.")
            if self.recompute:
                raise UsageError("--recompute=True: expected none with --init_from, whose layers are Keras's.")
        if self.evaluate:
            return
        if self.early_stopping and self.train_portion == 1:
            raise UsageError(
                f"--early_stopping={self.early_stopping} with --train_portion=1: expected less, such as 0.9, so that "
                "there are images to validate on."
            )
        if self.class_weight != "none" and self.takes_random_parts:
            raise UsageError(f"--class_weight={self.class_weight}: expected none with --recipe=imagenet.")
        if self.optimizer == "adamw":
            for name in ("momentum", "nesterov"):
                if name in self.given and getattr(self, name):
                    raise UsageError(f"--{name}={getattr(self, name)}: expected none with --optimizer=adamw.")
        if self.nesterov and not self.momentum:
            raise UsageError(f"--nesterov=True with --momentum={self.momentum}: expected a momentum.")
        if self.epochs and "warmup_epochs" in self.given and self.warmup_epochs >= self.epochs:
            raise UsageError(f"--warmup_epochs={self.warmup_epochs}: expected less than --epochs={self.epochs}.")
        for name, needed in (
            ("teacher_weight", "teacher"),
            ("teacher_temperature", "teacher"),
            ("magnitude", "randaugment"),
        ):
            if name in self.given and not getattr(self, needed):
                raise UsageError(f"--{name}={getattr(self, name)} without --{needed}: expected both.")

    @property
    def takes_random_parts(self):
        """Whether the images are ImageNet's or treated like them, as `darts_tf.data.streams` does."""
        return self.recipe == "imagenet" or is_imagenet(self.dataset)
