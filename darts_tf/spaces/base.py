"""What a search space is: the protocol that search, train, report, plot, tune and export work from.

A space of your own is a subclass of `SearchSpace`; docs/extend.md adds one in a few lines, and
`darts_tf.spaces.contracts.check_space` tells whether it is as it has to be. This file needs no TensorFlow, so that a
command's --help or a picture need not wait for that; methods that build models import it themselves.
"""

import ast
import contextlib
import dataclasses
import itertools
import json
import os
import runpy
from typing import ClassVar, NamedTuple

import numpy as np

from darts_tf.cli.registry import Registry
from darts_tf.costs import bounds, tables
from darts_tf.methods import relaxations, selections
from darts_tf.spaces.pictures import Picture

LONGEST = 1_000_000  # letters of a text
EXPECTED = "expected an object with normal, and perhaps reduce and keep, or with stages."  # that describes a space
TABLE = "mlp"  # the space that is searched for a table where nothing is said
MOST = 10_000  # rows in a table of choices of an architecture that is read


class Choices(NamedTuple):
    """One table of alphas: rows, each of which chooses among the same candidates.

    Attributes:
        title: what the table is of, "Normal cell".
        rows: texts, what the rows are called, "c(k-2) → 0".
        candidates: texts, the names of the columns.
        groups: ((row, ...), keep) pairs: rows that compete, and how many of them stay. Each row is in one group.
        never: names of candidates that no architecture has, such as "none".
        allowed: for each row a tuple of bools, which candidates it has; None if each row has all.
    """

    title: str
    rows: tuple
    candidates: tuple
    groups: tuple
    never: frozenset = frozenset()
    allowed: tuple | None = None

    @property
    def mask(self):
        """`allowed` as a bool array (rows, candidates)."""
        shape = len(self.rows), len(self.candidates)
        return np.ones(shape, bool) if self.allowed is None else np.array(self.allowed, bool).reshape(shape)

    @property
    def can_win(self):
        """Which rows of an architecture may have which candidates, a bool array (rows, candidates)."""
        return self.mask & [name not in self.never for name in self.candidates]

    def names(self, row):
        """The candidates that a row of an architecture may have, a list of texts."""
        return [
            name
            for name, there in zip(self.candidates, self.mask[row], strict=True)
            if there and name not in self.never
        ]


def checked_widths(widths):
    """The parts of its units that a layer may have, as texts, the smallest first.

    Args:
        widths: texts of numbers, or numbers.

    Raises:
        ValueError: one is not above 0, or above 1, or 1 is none of them.
    """
    try:
        found = sorted({float(width) for width in widths})
    except (TypeError, ValueError):
        found = []
    if not found or not 0 < found[0] <= found[-1] == 1:
        raise ValueError(f"widths={','.join(map(str, widths))}: expected numbers above 0, up to 1, and 1.")
    return tuple(f"{width:g}" for width in found)


def every_row(title, rows, candidates):
    """`Choices` whose rows all stay."""
    return Choices(title, tuple(rows), tuple(candidates), tuple(((row,), 1) for row in range(len(rows))))


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
    """What a search finds in a space, unless that has a class of its own for it. Those of the same text are equal.

    Attributes:
        space: `SearchSpace`.
        chosen: {table: tuple of a candidate's name for each row, None for a row that does not stay}.
    """

    space: object
    chosen: dict

    def items(self):
        """What JSON says: (name, value) of the space's fields that are not the defaults, then of the tables.

        In a space that has a notation of its own, it is `architecture`, the text.
        """
        if self.space.notation:
            return [("architecture", str(self))]
        fields = [field for field in dataclasses.fields(self.space) if getattr(self.space, field.name) != field.default]
        return [
            *((field.name, _plain(getattr(self.space, field.name))) for field in fields),
            *((name, list(row)) for name, row in self.chosen.items()),
        ]

    def __eq__(self, other):
        return isinstance(other, Architecture) and str(self) == str(other)

    def __hash__(self):
        return hash(str(self))

    def __str__(self):
        return f"{self.space.name}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def to_json(self):
        """JSON text: {"space": its name, field: value, table: [candidate or null, ...]}."""
        return json.dumps({"space": self.space.name, **dict(self.items())})


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


class SearchSpace:
    """What may be chosen, what can be searched, and what is made of a choice.

    A subclass is a frozen dataclass, whose fields are those flags of `darts_tf.search` that say how large the space is,
    such as `nodes`, each with a default; `register_space(name)` makes `--space=name` mean it.

    It has to have `choices`, `supernet` and `network`. All else follows from `choices`, and may be done better.
    Where a method takes sizes, they are keyword arguments with defaults that have the names of flags
    (`init_channels`, `layers`); a command gives those that the method names and refuses others that were given.

    Attributes:
        name: what `register_space` calls it.
        kinds: what its models are of, some of "images", "text" and "table".
        dataset: what is searched and trained on where nothing is said.
        sizes: {flag: value}, defaults of sizes in place of those of the recipes of searches and trainings.
        searching, training: {flag: value}, other defaults of a search in this space, and of the training of what it
            found, in place of those of the recipes.
        least: {flag: value}, the least sizes that `supernet` takes.
        adapts: names of those of its fields that follow from the data, see `fitted`; they are no flags.
        has_paths: whether supernets compute as many candidates of a row as the relaxation says, see
            `darts_tf.methods.relaxations.Relaxation.paths`; else one of those that are drawn, or all.
        leaves_out: whether `decode` takes picks of fewer rows than `choices` keep, as selection by a threshold makes.
        notation: what the texts of its architectures begin with, where they are of a form of their own; then
            `from_notation(text)` reads them.
    """

    name: ClassVar[str] = None
    kinds: ClassVar[tuple] = ("images",)
    dataset: ClassVar[str] = "digits"
    sizes: ClassVar[dict] = {}
    searching: ClassVar[dict] = {}
    training: ClassVar[dict] = {}
    least: ClassVar[dict] = {}
    adapts: ClassVar[tuple] = ()
    has_paths: ClassVar[bool] = False
    leaves_out: ClassVar[bool] = False
    notation: ClassVar[str] = None

    @property
    def spec(self):
        """What `--space` and config.json say to mean this space, beside its fields: its name."""
        return self.name

    @property
    def choices(self):
        """{name: `Choices`}: the tables of alphas. Names are Python identifiers."""
        raise NotImplementedError

    def fitted(self, task):
        """This space for the data of a task; the same unless the space adapts to them.

        Raises:
            ValueError: its models cannot be of such data.
        """
        return self

    def adapted(self):
        """{field: value} of what follows from the data, for config.json."""
        return {name: getattr(self, name) for name in self.adapts}

    @staticmethod
    def check_primitive(name):
        """Raises ValueError if a candidate of this name cannot be; of a space that has `primitives`."""
        from darts_tf.ops import operations

        if name not in operations.operation_names():
            known = ", ".join(operations.operation_names())
            raise ValueError(f"{name}: no such operation; expected some of {known}.")

    def supernet(self, task, relaxation="softmax", **sizes):
        """The model that is searched.

        Args:
            task: `darts_tf.data.tasks.Task`.
            relaxation: name or object, see `darts_tf.methods.relaxations`.
            sizes: keyword arguments with defaults; `sync_batch_norm` is one of them if that is supported.

        Returns:
            `darts_tf.spaces.models.Supernet` from inputs as the search's batches have them (normalised) to logits.
        """
        raise NotImplementedError

    def network(self, architecture, task, **sizes):
        """The model that an architecture stands for, untrained.

        Args:
            architecture: of this space.
            task: `darts_tf.data.tasks.Task`; with its `normalization` the model takes inputs as they are in files.
            sizes: keyword arguments with defaults.

        Returns:
            Functional `keras.Model` of standard layers from inputs to logits.
        """
        raise NotImplementedError

    def trained_network(self, architecture, task, **sizes):
        """The model that is trained in place of `network`, where another one is faster; it computes the same.

        Arguments are those of `network`. If it is another one, it has `inference_model()`, which gives that of
        `network`, with its weights.
        """
        return self.network(architecture, task, **sizes)

    def decide(self, strengths, selection="strongest"):
        """The architecture that a selection makes of strengths.

        Args:
            strengths: {table: array (rows, candidates)}, see `Relaxation.strengths`.
            selection: name or object, see `darts_tf.methods.selections`.
        """
        return self.decode(selections.get(selection).decide(strengths, self.choices))

    def decode(self, picks):
        """The architecture of picks, {table: list of (row, candidate)}, one pair for each row that stays."""
        chosen = {}
        for name, table in self.choices.items():
            names = {row: table.candidates[candidate] for row, candidate in picks[name]}
            chosen[name] = tuple(names.get(row) for row in range(len(table.rows)))
        return Architecture(self, chosen)

    def picks(self, architecture):
        """The inverse of `decode`: {table: list of (row, candidate)}.

        Raises:
            ValueError: the architecture is not in this space.
        """
        self.check(architecture)
        return {
            name: [
                (row, table.candidates.index(chosen))
                for rows, _ in table.groups
                for row in rows
                if (chosen := architecture.chosen[name][row]) is not None
            ]
            for name, table in self.choices.items()
        }

    def check(self, architecture):
        """Raises ValueError if an architecture is not in this space; says why."""
        for name, table in self.choices.items():
            chosen = architecture.chosen.get(name)
            if chosen is None or len(chosen) != len(table.rows):
                there = "none" if chosen is None else len(chosen)
                raise ValueError(f"{name} has {there} rows: expected {len(table.rows)}.")
            for place, (row, candidate) in enumerate(zip(table.rows, chosen, strict=True)):
                known = table.names(place)
                if candidate is not None and candidate not in known:
                    raise ValueError(f"{name} has {candidate!r} on {row}: expected one of {', '.join(known)}.")
            for rows, keep in table.groups:
                stay = sum(chosen[row] is not None for row in rows)
                if stay != keep:
                    where = ", ".join(table.rows[row] for row in rows)
                    raise ValueError(f"{name} keeps {stay} of {where}: expected {keep}.")

    @classmethod
    def from_fields(cls, fields):
        """An architecture from what its JSON or its text holds, a dict, without the space's name.

        Raises:
            ValueError: it holds something else.
        """
        if cls.notation:
            text = fields.get("architecture")
            if set(fields) != {"architecture"} or not isinstance(text, str) or not text.startswith(cls.notation):
                raise ValueError(f"Not an architecture of {cls.name}: expected architecture, a text.")
            return cls.from_notation(text)
        own = {field.name for field in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items() if name in own}
        tables = {name: row for name, row in fields.items() if name not in own}
        for name, row in tables.items():
            well = isinstance(row, list | tuple) and not row[MOST:] and str(name).isidentifier()
            if not well or not all(item is None or isinstance(item, str) for item in row):
                raise ValueError(f"Not an architecture of {cls.name}: expected lists of names.")
        try:
            space = cls(**values)
        except TypeError as error:
            raise ValueError(f"Not an architecture of {cls.name}: {error}") from None
        return Architecture(space, {name: tuple(row) for name, row in tables.items()})

    def change(self, before, after):
        """How an architecture differs from the one before it, in a few words."""
        old, new = self.picks(before), self.picks(after)
        parts = []
        for name, table in self.choices.items():
            added = sorted(set(new[name]) - set(old[name]))
            if len(added) == 1:
                ((row, candidate),) = added
                parts.append(f"{name}: {table.candidates[candidate]} on {table.rows[row]}")
            elif added:
                parts.append(f"{name}: {len(added)} rows")
        return f"new in {', '.join(parts)}" if parts else "genotype unchanged"

    def pictures(self, architecture, names=None):
        """One picture per table that wants one, see `darts_tf.spaces.pictures.Picture`.

        Args:
            architecture: what they have space for.
            names: all names of candidates that will be drawn; by default those that the architecture has.

        A space whose pictures tell sizes takes them as keyword arguments with defaults, as `network` does.
        """
        return [Picture(self, name) for name in self.choices]

    def left(self, candidates):
        """How large each layer of the supernet is with the candidates that are left, {name: number}.

        By default {}: the layers stay as they are.

        Args:
            candidates: {table: bool array (rows, candidates)}.
        """
        return {}

    def costs(self, task, **sizes):
        """Function of an architecture -> {cost: number, None if it is not known}, see `darts_tf.costs`.

        A space whose costs a search can count or bound returns a `darts_tf.costs.tables.Costs`, of its parts.

        Args:
            task, sizes: as of `network`.
        """
        from darts_tf.costs import counts

        return lambda architecture: counts.of(self.network(architecture, task, **sizes))

    def cost_of(self, table, picks):
        """The cost of picks, see `decode`, a float.

        Args:
            table: `darts_tf.costs.tables.Table`.
        """
        return table.of(picks)

    def expected(self, table, mixture, shares=None):
        """The cost of candidates that count as a mixture says, see `darts_tf.costs.tables.expected`."""
        return tables.expected(table, self.choices, mixture, shares)

    def cheapest(self, table):
        """The least that a network costs, a float.

        Args:
            table: `darts_tf.costs.tables.Table`.
        """
        return tables.least(table, self.choices)

    def within(self, strengths, costs, most):
        """The strongest architecture whose costs are within bounds, see `darts_tf.costs.bounds`.

        Args:
            strengths: {table: array (rows, candidates)}.
            costs: list of `darts_tf.costs.tables.Table`.
            most: list of numbers, the most of each.

        Raises:
            ValueError: there is none.
        """
        return self.decode(bounds.strongest(bounds.Options(self.choices, strengths, costs, most)))

    def declare(self, hp):
        """Declares the space for keras-tuner; returns the architecture of the values that `hp` has.

        If all rows of a group stay, each of them is a choice of a candidate. Else the rows that stay are a choice, and
        then the candidate on each of these.

        Args:
            hp: `keras_tuner.HyperParameters`, or anything with such a `Choice` and `conditional_scope`.
        """
        picks = {}
        for name, table in self.choices.items():
            picks[name] = []
            for place, (rows, keep) in enumerate(table.groups):
                kept, scopes = rows, {}
                if keep < len(rows):
                    sets = {
                        ", ".join(table.rows[row] for row in some): some for some in itertools.combinations(rows, keep)
                    }
                    inputs = f"{name}_{place}_inputs"
                    kept = sets[hp.Choice(inputs, list(sets))]
                    if not _alike(table, rows):  # what is on a row that does not stay is not declared
                        scopes = {row: (inputs, [text for text, some in sets.items() if row in some]) for row in rows}
                chosen = {}
                for order, row in enumerate(rows if scopes else kept):
                    with hp.conditional_scope(*scopes[row]) if scopes else contextlib.nullcontext():
                        chosen[row] = hp.Choice(_label(name, table, place, row, order), table.names(row))
                picks[name] += [(row, table.candidates.index(chosen[row])) for row in kept]
        return self.decode(picks)

    def values(self, architecture):
        """The values that make `declare` return an architecture, a dict.

        Raises:
            ValueError: the architecture is not in this space.
        """
        picks, values = self.picks(architecture), {}
        for name, table in self.choices.items():
            chosen = dict(picks[name])
            for place, (rows, keep) in enumerate(table.groups):
                kept = [row for row in rows if row in chosen]
                if keep < len(rows):
                    values[f"{name}_{place}_inputs"] = ", ".join(table.rows[row] for row in kept)
                for order, row in enumerate(kept):
                    values[_label(name, table, place, row, order)] = table.candidates[chosen[row]]
        return values

    def architecture_of(self, hp):
        """The architecture of hyperparameters that `declare` has declared."""
        return self.declare(hp)


def _alike(table, rows):
    """Whether rows have the same candidates."""
    return len({tuple(table.names(row)) for row in rows}) == 1


def _label(name, table, place, row, order):
    """The name of the hyperparameter of a row, the one in `order` of those that stay of the group at a place."""
    rows, keep = table.groups[place]
    return f"{name}_{place}_operation{order + 1}" if keep < len(rows) and _alike(table, rows) else f"{name}_{row}"


def checked_candidates(space, candidates=None):
    """Which rows have which candidates, {table: bool array (rows, candidates)}.

    Args:
        space: `SearchSpace`.
        candidates: the same, for some of the tables; the others have what the space says.

    Raises:
        ValueError: a row would have none that an architecture can have, or more than the space has.
    """
    checked = {}
    for name, table in space.choices.items():
        there = table.mask
        kept = np.asarray((candidates or {}).get(name, there), bool)
        if kept.shape != there.shape or (kept & ~there).any():
            raise ValueError(f"candidates of {name}: expected a part of those of the space, {there.shape}.")
        can_be = (kept & table.can_win).any(axis=1)
        if not can_be.all():
            row = table.rows[int(np.argmin(can_be))]
            raise ValueError(f"candidates of {name}: {row} has none; expected at least one on each row.")
        checked[name] = kept
    return checked


def edge_shares(table, beta):
    """The softmax of betas over the rows that compete (equation 3 of PC-DARTS).

    Args:
        table: `Choices`.
        beta: array (..., rows).

    Returns:
        float64 array like beta.
    """
    shares = np.empty(np.shape(beta), np.float64)
    for rows, _ in table.groups:
        own = np.asarray(beta, np.float64)[..., list(rows)]
        own = np.exp(own - own.max(-1, keepdims=True))
        shares[..., list(rows)] = own / own.sum(-1, keepdims=True)
    return shares


def strengths_of(space, relaxation, alphas, betas=None, candidates=None):
    """What decides: the strengths of the relaxation, those of candidates that a row lacks zero, times its beta's share.

    Args:
        space: `SearchSpace`.
        relaxation: of `darts_tf.methods.relaxations`.
        alphas: {table: array (..., rows, candidates)}.
        betas: {table: array (..., rows)}; empty without edge normalisation.
        candidates: {table: bool array}, see `checked_candidates`; by default those of the space.

    Returns:
        {table: float64 array like alphas}.
    """
    strengths = {}
    for name, table in space.choices.items():
        mask = table.mask if candidates is None else candidates[name]
        alpha = alphas[name] if np.all(mask) else np.where(mask, alphas[name], relaxations.NEVER)
        strengths[name] = relaxation.strengths(alpha)
        if betas:
            strengths[name] = strengths[name] * edge_shares(table, betas[name])[..., None]
    return strengths


_spaces = Registry("space", SearchSpace)
register_space, names = _spaces.register, _spaces.names


def get(spec):
    """The class of the space that `--space` or config.json says, a name or a description of cells, a chain or blocks.

    Raises:
        ValueError: there is none.
    """
    if not is_description(spec):
        return _spaces.kind(spec)
    from darts_tf.spaces.cells.described import DescribedCells
    from darts_tf.spaces.chain.space import DescribedChain
    from darts_tf.spaces.densenas.space import DenseNAS

    with contextlib.suppress(ValueError, RecursionError):  # which the class itself says
        fields = json.loads(spec[:LONGEST])
        if "stages" in fields:
            return DenseNAS if "reach" in fields else DescribedChain
    return DescribedCells


def is_description(spec):
    """Whether a text is the description of a space, not its name."""
    return spec.lstrip().startswith("{")


def is_known(spec):
    """Whether `get` knows a space."""
    return is_description(spec) or spec in names()


def kind(named):
    """The class of a space, `SearchSpace` as long as it is not known; a name, or what `spec_of` takes."""
    try:
        spec = spec_of(named)
    except (OSError, ValueError):  # which is said where the space is made
        return SearchSpace
    return get(spec) if is_known(spec) else SearchSpace


def spec_of(named):
    """What `--space` means, as config.json keeps it: of a file what it says, else the same.

    Args:
        named: a name, a description, or a file of one: .json, or .py that assigns the dict to `space`.

    Raises:
        ValueError: the file does not hold what it should.
        OSError: it cannot be read.
    """
    if is_description(named) or not named.endswith((".json", ".py")):
        return named
    with open(named, "rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} letters.")
    if named.endswith(".json"):
        text = content.decode("utf-8-sig")
        if not is_description(text):
            raise ValueError(EXPECTED)
        return text
    try:
        return json.dumps(runpy.run_path(named)["space"])
    except KeyError:
        raise ValueError(f"it assigns no `space`; {EXPECTED}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may call sys.exit
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def of(values):
    """The space that a configuration describes.

    Args:
        values: dict; "space" is its name, "darts" if it is not there, or what `spec_of` may be given; its fields have
            their own names. What is None has its default.

    Raises:
        ValueError: there is no such space, or it cannot have these values.
        OSError: it is in a file that cannot be read.
    """
    spec = spec_of(values.get("space") or "darts")
    kind = get(spec)
    fields = {field.name for field in dataclasses.fields(kind)}
    given = {name: value for name, value in values.items() if name in fields and value is not None}
    if is_description(spec):  # the first field
        given[dataclasses.fields(kind)[0].name] = spec
    return kind(**given)


def read(text, space=None):
    """An architecture from what a user may name: a published one, a JSON file, or the text of an architecture.

    JSON names its space; without a name it is of the paper's.

    Args:
        text: the name, file or text.
        space: name of the space whose published architectures are meant; by default those of all, the paper's first.

    Raises:
        ValueError: it is none of them, or not in its space.
        OSError: the file cannot be read.
    """
    meant = list(_spaces.members.values()) if space is None else [get(space)]
    for kind in meant:
        if text in getattr(kind, "PUBLISHED", {}):
            return kind.PUBLISHED[text]
    if _with_notation(text):
        architecture = from_text(text)
        architecture.space.check(architecture)
        return architecture
    is_text = any(text.lstrip().startswith(f"{start}(") for start in ("Genotype", *names()))
    try:
        if not is_text and os.path.isfile(text):
            with open(text, "rb") as file:
                architecture = from_json(file.read(LONGEST + 1).decode("utf-8-sig"))
        else:
            architecture = from_text(text)
    except ValueError:
        if text.endswith(".json") and not os.path.exists(text):
            raise FileNotFoundError("no such file.") from None
        published = dict.fromkeys(name for kind in meant for name in getattr(kind, "PUBLISHED", {}))
        raise ValueError(
            f"Not a genotype: expected {', '.join([*published, 'a genotype.json'])}, or Genotype(normal=[...], ...)."
        ) from None
    architecture.space.check(architecture)
    return architecture


def from_json(text):
    """Reads the JSON of an architecture.

    Raises:
        ValueError: the text is not JSON, or not of an architecture.
    """
    try:
        fields = json.loads(_short(text))
    except RecursionError:
        raise ValueError("Not a genotype: expected fewer brackets.") from None
    if not isinstance(fields, dict):
        raise ValueError("Not a genotype: expected an object.")
    return _of_fields(fields.pop("space", _default(fields)), fields)


def from_text(text):
    """Reads `str(architecture)` without running it: `Genotype(normal=[...], ...)`, or `SPACE(table=[...], ...)`.

    Raises:
        ValueError: the text is of another form.
    """
    kind = _with_notation(text)
    if kind:
        return kind.from_notation(_short(text).strip())
    try:
        name, bracket, rest = _short(text).strip().partition("(")
        call = ast.parse(f"f{bracket}{rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        fields = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
        return _of_fields(_default(fields) if name == "Genotype" else name, fields)
    except (AttributeError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"Not a genotype: {text[:200]!r}: expected Genotype(normal=[...], normal_concat=[...], ...)"
        ) from error


def _with_notation(text):
    """The class of the space in whose own notation a text is; None if it is in none."""
    start = text.lstrip()[:100]
    return next((kind for kind in _spaces.members.values() if kind.notation and start.startswith(kind.notation)), None)


def _default(fields):
    """The name of the space of a `Genotype` that does not say it: the paper has two."""
    return "recurrent" if "recurrent" in fields else "darts"


def _of_fields(name, fields):
    if not isinstance(name, str):
        raise ValueError("Not a genotype: expected the name of a space.")
    return get(name).from_fields(fields)


def _short(text):
    if len(text) > LONGEST:
        raise ValueError(f"Not a genotype: expected at most {LONGEST} letters.")
    return text


def _literal(node):
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "range":
        return range(*(ast.literal_eval(argument) for argument in node.args))
    return ast.literal_eval(node)
