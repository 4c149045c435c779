"""Attempts against budgets: latency tables, bounds, fronts; and against chains, which evolution looks for."""

import json

from benchmarks.abuse import Attempt, B
from benchmarks.abuse.runs import NO_FILE, TRAIN, a_pipe, changed, gone, put

ONE_LINE = r"(?m)^error: .+"
CHAIN = ("darts_tf.search", "--space=chain", "--init_channels=4", "--epochs=1", "--output=run")
SPOS = ("--method=spos", "--population=4", "--generations=1")
AGAIN = ("darts_tf.search", "--output=chain", "--resume")
OTHER = ("darts_tf.search", "--from_supernet=chain", "--population=4", "--generations=1", "--output=run")
LATENCY = ("darts_tf.latency", "--space=chain", "--init_channels=4", "--rounds=1", "--networks=0")


def attempts():
    """Yields all of them."""
    yield from tables()
    yield from bounds()
    yield from latencies()
    yield from damaged()
    yield from descriptions()
    yield from architectures()


def table(**more):
    """Writes t.json: all parts of the networks of `CHAIN` take a tenth of a millisecond."""

    def prepare(folder):
        from darts_tf import spaces
        from darts_tf.data.tasks import ImageClassification

        task = ImageClassification((8, 8, 1), 10)
        costs = spaces.of({"space": "chain"}).fitted(task).costs(task, init_channels=4)
        fields = {"device": {"processor": "none"}, "milliseconds": {str(part): 0.1 for part in costs.all_parts()}}
        (folder / "t.json").write_text(json.dumps(fields | more))

    return prepare


def tables():
    """Latency tables that are none, or of something else."""
    bounded = (*CHAIN, "--method=gdas", "--latency_table=t.json", "--max_latency_ms=1")
    for what, damage in {**NO_FILE, "a pipe": a_pipe, "gone": gone}.items():

        def prepare(folder, damage=damage):
            table()(folder)
            damage(folder / "t.json")

        yield Attempt(
            f"the latency table is {what}", bounded, prepare=prepare, says=r"(?m)^error: --latency_table=t.json: "
        )
    for what, more in {
        "NaN": {"milliseconds": {"a": float("nan")}},
        "infinite": {"milliseconds": {"a": float("inf")}},
        "negative": {"milliseconds": {"a": -1}},
        "texts": {"milliseconds": {"a": "1"}},
        "of another space": {"milliseconds": {"stem to 7 of 1x1x1": 1.0}},
        "without anything": {"milliseconds": {}},
        "of no device": {"device": None},
        "with a factor of 0": {"fit": [0, 0]},
        "with a factor that is no number": {"fit": ["1", 0]},
        "with an overhead below 0": {"overhead": -1},
        "with networks of one number": {"networks": [[1]]},
        "with more fields": {"more": 1},
    }.items():
        yield Attempt(f"the latency table is {what}", bounded, prepare=table(**more), says=ONE_LINE)
    yield Attempt(
        "a latency table that fits", bounded, prepare=table(), ends=(0,), says="latency ms: [0-9.]+ of at most 1"
    )
    yield Attempt(
        "a bound on latencies without a table", (*CHAIN, "--max_latency_ms=1"), says="without --latency_table"
    )
    yield Attempt(
        "latencies of chains for cells",
        ("darts_tf.search", *B, "--epochs=1", "--output=run", "--latency_table=t.json", "--max_latency_ms=1"),
        prepare=table(),
        says="it has nothing about ",
    )


def bounds():
    """Bounds that are none, or that nothing is within."""
    for flag in ("max_parameters", "max_multiply_adds", "max_bytes", "max_int8_bytes", "max_latency_ms"):
        for value in ("0", "-1", "nan", "inf", "1e-300", "many", ""):
            ends = (0, 2) if value == "inf" else (2,)
            yield Attempt(
                f"--{flag}={value}",
                (*CHAIN, "--method=gdas", f"--{flag}={value}", "--latency_table=t.json"),
                prepare=table(),
                ends=ends,
                says=None if value == "inf" else ONE_LINE,
            )
    several = ("--max_parameters=11000", "--max_multiply_adds=150000")
    yield Attempt(
        "two bounds at once", (*CHAIN, "--method=gdas", *several), ends=(0, 2), says="(?m)parameters|^error: .*"
    )
    for value in ("0", "1", "-3", "x", "100000"):
        ends = (0,) if value == "100000" else (2,)
        yield Attempt(f"--front={value}", (*CHAIN, "--method=gdas", f"--front={value}"), ends=(*ends, 2))
    yield Attempt(
        "a front of text", ("darts_tf.search", "--space=recurrent", "--front=3", "--output=run"), says=ONE_LINE
    )
    yield Attempt("a cost that is none", (*CHAIN, "--cost_form=fbnet", "--cost=joules"), says=ONE_LINE)
    yield Attempt("a form that is none", (*CHAIN, "--cost_form=sum"), says=ONE_LINE)
    yield Attempt("a weight that is none", (*CHAIN, "--cost_form=fbnet", "--cost_weight=nan"), says=ONE_LINE)
    yield Attempt("a form and evolution", (*CHAIN, *SPOS, "--cost_form=fbnet"), says=ONE_LINE)
    for flags in (("--population=1",), ("--generations=0",), ("--recalibration_images=0",), ("--population=x",)):
        yield Attempt(f"evolution with {flags[0]}", (*CHAIN, "--method=spos", *flags), says=ONE_LINE)
    yield Attempt("evolution of cells", ("darts_tf.search", *B, *SPOS, "--epochs=1", "--output=run"), says=ONE_LINE)


def latencies():
    """The command that makes latency tables."""
    yield Attempt("a latency table without a name", LATENCY, says="--output")
    for flags in (
        ("--output=t.txt",),
        ("--output=t.json", "--threads=0"),
        ("--output=t.json", "--rounds=0"),
        ("--output=t.json", "--networks=-1"),
        ("--output=t.json", "--runtime=torch"),
        ("--output=t.json", "--space=nothing"),
        ("--output=t.json", "--space=recurrent"),
        ("--output=t.json", "--dataset=nothing"),
        ("--output=t.json", "--image_size=1"),
        ("--output=t.json", "--on=nothing-like-it host"),
        ("--output=t.json", "--on='"),
        ("--output=t.json", "--on=false"),
        ("--output=t.json", "--on=echo"),
        ("--output=t.json", "--on=true", "--runtime=saved_model"),
        ("--output=t.json", "--measured=nothing.json"),
        ("--archive=a.tar",),
    ):
        yield Attempt(f"darts_tf.latency {' '.join(flags)}", (*LATENCY, *flags), ends=(1, 2), says=r"(?m)^error: .+")
    for what, damage in NO_FILE.items():
        yield Attempt(
            f"a table that is there is {what}",
            (*LATENCY, "--output=t.json"),
            prepare=lambda folder, damage=damage: (put("")(folder / "t.json"), damage(folder / "t.json")),
            says=ONE_LINE,
            keeps=("t.json",),
        )
        yield Attempt(
            f"what was measured elsewhere is {what}",
            (*LATENCY, "--output=t.json", "--measured=m.json"),
            prepare=lambda folder, damage=damage: (put("")(folder / "m.json"), damage(folder / "m.json")),
            says=ONE_LINE,
        )
    yield Attempt(
        "a table of another device", (*LATENCY, "--output=t.json"), prepare=table(), says=ONE_LINE, keeps=("t.json",)
    )


def damaged():
    """Files of a search of chains by evolution, within a bound, with a front."""
    for name in ("evolution.json", "budget.json", "front.json"):
        for what in NO_FILE:

            def prepare(folder, name=name, what=what):
                NO_FILE[what](folder / "chain" / name)

            yield Attempt(
                f"{name} is {what}",
                AGAIN,
                prepare=prepare,
                runs=("chain",),
                ends=(0, 2),
                check=whole_or_said,
                keeps=("chain/checkpoints/*", "chain/alphas.npz"),
            )
            if name == "budget.json":
                yield Attempt(
                    f"a training of what was found, {name} is {what}",
                    (*TRAIN[:1], "--epochs=1", "--arch=chain/genotype.json", "--output=run"),
                    prepare=prepare,
                    runs=("chain",),
                    ends=(0, 2),
                )
    for what, damage in {
        "of other networks": changed(networks=[{"architecture": "chain:8:mb3_k3"}]),
        "of networks that are none": changed(networks=[1]),
        "without a state": changed(evolution={}),
        "whose state is a list": changed(evolution=[]),
    }.items():
        yield Attempt(
            f"evolution.json is {what}",
            AGAIN,
            prepare=lambda folder, damage=damage: damage(folder / "chain" / "evolution.json"),
            runs=("chain",),
            ends=(0, 2),
            check=whole_or_said,
        )
    yield Attempt(
        "another network of a supernet",
        (*OTHER, "--max_parameters=15000"),
        runs=("chain",),
        ends=(0,),
        keeps=("chain/**/*",),
    )
    yield Attempt(
        "another network within nothing",
        (*OTHER, "--max_parameters=15"),
        runs=("chain",),
        says=ONE_LINE,
        keeps=("chain/**/*",),
    )
    yield Attempt(
        "a supernet that is none",
        ("darts_tf.search", "--from_supernet=search", "--output=run"),
        runs=("search",),
        says=ONE_LINE,
    )
    yield Attempt(
        "a supernet that is not there", ("darts_tf.search", "--from_supernet=no", "--output=run"), says=ONE_LINE
    )
    yield Attempt(
        "the checkpoint of a supernet is gone",
        (*OTHER, "--max_parameters=15000"),
        prepare=lambda folder: [gone(path) for path in (folder / "chain" / "checkpoints").iterdir()],
        runs=("chain",),
        says=ONE_LINE,
    )


def whole_or_said(folder, stdout, stderr):
    """It says what is wrong, or the search ends with all of its files."""
    if "error: " in stderr:
        return None
    names = ("evolution.json", "budget.json", "front.json", "genotype.json", "report.html")
    wrong = [name for name in names if not (folder / "chain" / name).is_file()]
    return f"{wrong[0]} is not there" if wrong else None


def description(**stages):
    stage = {"channels": 8, "layers": 2, "stride": 2, "candidates": ["mb3_k3", "identity"], "first": ["mb3_k3"]}
    return {"stem": {"channels": 4, "stride": 1}, "stages": [stage | stages], "head": {"channels": 16}}


def descriptions():
    """Files that describe chains."""
    for what, content in {
        "no stages": {"stages": []},
        "stages that are none": {"stages": 3},
        "a stage without channels": description(channels=0),
        "a stage of half a channel": description(channels=0.5),
        "a stage of very many channels": description(channels=10**9),
        "a stage of no layers": description(layers=0),
        "a stage of very many layers": description(layers=10**9),
        "a stride of 3": description(stride=3),
        "an unknown block": description(candidates=["mb3_k4"]),
        "no blocks": description(candidates=[]),
        "a block twice": description(candidates=["mb3_k3", "mb3_k3"]),
        "more than is known": {**description(), "tail": 1},
        "strides that leave no pixel": {**description(), "stages": description()["stages"] * 5},
    }.items():
        yield Attempt(
            f"a chain of {what}",
            ("darts_tf.search", "--space=c.json", "--epochs=1", "--output=run", "--method=gdas"),
            prepare=lambda folder, content=content: (folder / "c.json").write_text(json.dumps(content)),
            says=r"(?m)^error: --space=c.json: .+\.$",
        )
    for widths in ("0", "2", "-1", "x", "nan", "", "0.5", "0.5,1,1.5"):
        ends = (0, 2) if widths == "0.5" else (2,)
        yield Attempt(f"--widths={widths}", (*CHAIN, "--method=gdas", f"--widths={widths}"), ends=ends)
    yield Attempt("widths of cells", ("darts_tf.search", *B, "--widths=0.5,1", "--output=run"), says=ONE_LINE)
    yield Attempt("primitives of cells in a chain", (*CHAIN, "--primitives=sep_conv_3x3"), says=ONE_LINE)


def architectures():
    """Texts of chains."""
    for text in (
        "chain:",
        "chain:8:",
        "chain:8:mb3_k3",
        "chain:x:mb3_k3,identity|mb3_k3,identity|mb3_k3,identity",
        "chain:99999:mb3_k3",
        "chain:8:mb3_k3,identity|mb3_k3,identity|identity,mb3_k3",
        "chain:8:mb3_k3*2,identity|mb3_k3,identity|mb3_k3,identity",
        "chain:8:mb3_k3*x,identity|mb3_k3,identity|mb3_k3,identity",
        "chain:8:mb3_k4,identity|mb3_k3,identity|mb3_k3,identity",
        "chain:{}:mb3_k3",
        "chain:{:mb3_k3",
        "nas-bench-macro:0",
        "nas-bench-macro:99999999",
        "fbnet:k3_e1",
        "chain:" + "8" * 100_000,
    ):
        yield Attempt(
            f"a training of {text[:60]}",
            ("darts_tf.train", f"--arch={text}", "--epochs=1", "--output=run"),
            says=ONE_LINE,
        )
        yield Attempt(f"a picture of {text[:60]}", ("darts_tf.plot", text, "--output=p.svg"), says=ONE_LINE)
