"""Reads a package's treespecs: how the arguments of a call become flat, and outputs a result.

Two JSON documents in a package (`torch.utils._pytree.treespec_dumps`) describe how the exported
module was called and what it returned. They are read once, at load. This module imports neither
torch, numpy nor anything that the documents name, because a package may be hostile.
"""

import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from keyword import iskeyword
from operator import itemgetter
from types import ModuleType
from typing import Any

from aoti.errors import InputTypeError, PackageError
from aoti.signature.record import Record
from aoti.signature.structure_errors import Key, described, misfit, plain, short, wrong_call

_Make = Callable[[Iterable[object]], object]
_MakeDict = Callable[[Iterable[tuple[Key, object]]], object]
_Flatten = Callable[[tuple[object, ...], dict[str, object]], Sequence[object]]

_MAX_DEPTH = 100
# Every leaf's path repeats the keys above it: without a bound, one long key over many leaves turns
# a small file into gigabytes of paths.
_MAX_PATH_CHARS = 10_000_000

# Types that cannot be a leaf. Exact types only: an array may be of a subclass.
CONTAINERS = frozenset({tuple, list, dict, OrderedDict, defaultdict, deque, Record})
# A default factory is called later, so only these are allowed.
_FACTORIES: dict[object, Callable[[], object]] = {
    factory.__name__: factory for factory in (int, float, list, dict, set, str, tuple)
}


class CallPlan:
    """How a model is called. Made once at load, then used by any number of threads.

    Attributes
    ----------
    num_inputs, num_outputs : int
        The number of leaves of the arguments and of the result. A None or a number at the export is
        a leaf too.
    input_paths, output_paths : tuple of str
        The place of each leaf: ``args[0]``, ``args[0].ids``, ``kwargs['x']['ids']``; in the result
        ``[0]``, ``['a'][0]``, and the empty string if the result is one array.
    input_names, output_names : tuple of str
        The name of each leaf, unique within its tuple: the last key or field name if no other leaf
        has it (``ids``), else all keys joined by dots (``x.ids``, ``x.0``), with ``args`` or
        ``output`` before a leading index (``args.0``); ``output`` for a single array. It is the
        path if a name cannot be printed, or if names would still be equal.
    flatten : callable
        ``flatten(args, kwargs)`` returns the leaves in order. Keyword arguments and keys may come
        in any order. Raises `InputError` for missing or unexpected arguments, keys and items, and
        `InputTypeError` for another container than was exported and for a container at a leaf.
        Other values at leaves, including None, are not checked.
    arguments : callable
        ``arguments(leaves)`` returns ``(args, kwargs)`` with these leaves, as `flatten` takes them.
        It needs exactly `num_inputs` leaves.
    rebuild : callable
        ``rebuild(leaves)`` returns the result with these leaves. It needs exactly `num_outputs`
        leaves and does not count them: a compiled model's number of outputs never changes.
    flatten_result : callable
        ``flatten_result(value)`` returns the leaves of a value of the result's structure, as a
        list. It raises the same errors as `flatten`.
    keywords : frozenset of str
        The names that arguments can be passed by.
    structure : tuple
        The structure for the compiled core, which handles calls that are exactly as exported: for
        the positional arguments, the keyword arguments and the result ``(kind, keys, make,
        children)``, and so on for the children. `make` is None for a plain dict.
    """

    num_inputs: int
    num_outputs: int
    keywords: frozenset[str]
    structure: tuple[Any, Any, Any]
    flatten_result: Callable[[object], list[object]]
    input_paths: tuple[str, ...]
    output_paths: tuple[str, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    flatten: _Flatten
    arguments: Callable[[Sequence[object]], tuple[tuple[Any, ...], dict[str, Any]]]
    rebuild: Callable[[Sequence[object]], object]

    @classmethod
    def from_json(
        cls,
        in_spec: str,
        out_spec: str,
        *,
        parameters: Sequence[str] = (),
        fields: Mapping[str, Sequence[str]] | None = None,
    ) -> "CallPlan":
        """Read a model's call spec: the two documents that the loader's `get_call_spec` returns.

        Parameters
        ----------
        in_spec, out_spec : str
            The documents.
        parameters : sequence of str
            The names of the positional arguments, if they are known. Such arguments can then be
            passed by keyword.
        fields : mapping of str to sequence of str, optional
            The field names of namedtuples, by the class names in the documents.

        Raises
        ------
        PackageError
            A document is damaged, of an unknown version or nested too deeply, or it contains a
            container type that only the exporting program knows, without names for its parts.
        """
        inputs, outputs = _Reader("input", fields or {}), _Reader("output", fields or {})
        plan = cls()
        args, kwargs = inputs.read_call(in_spec, parameters)
        result = outputs.read(outputs.load(out_spec), "", ())
        plan.flatten = _flattener(args, kwargs, parameters)
        plan.arguments = _arguments(args, kwargs)
        plan.rebuild = _rebuilder(result)
        plan.flatten_result = partial(_leaves_of, result)
        plan.keywords = frozenset(parameters) | frozenset(map(str, kwargs.keys))
        plan.structure = args.described(), kwargs.described(), result.described()
        plan.input_paths, plan.input_names = inputs.paths_and_names()
        plan.output_paths, plan.output_names = outputs.paths_and_names()
        plan.num_inputs = len(plan.input_paths)
        plan.num_outputs = len(plan.output_paths)
        return plan


class _Node:
    """A leaf, or a container with the type `base` and children under `keys`."""

    def __init__(
        self, path: str, base: type[Any] = object, keys: Sequence[Key] = (), make: _Make = tuple
    ) -> None:
        self.path = path
        self.base = base  # dict for every kind of dict, tuple also for namedtuples
        self.kind = base.__name__
        self.is_leaf = base is object
        self.keys = keys  # of a dict; field names, where they are known; indices
        self.make = make
        self.make_dict: _MakeDict | None = None
        # A dict's values in this order, as a tuple. itemgetter takes a quarter of a loop's time.
        self.pick: Callable[[dict[Any, object]], tuple[object, ...]] = (
            itemgetter(*keys) if len(keys) > 1 else lambda it: (it[keys[0]],) if keys else ()
        )
        self.children: list[_Node] = []
        self.is_flat = False  # all children are leaves

    def described(self) -> tuple[str, Sequence[Key], _Make | None, list[Any]]:
        """See `CallPlan.structure`."""
        make = None if self.make_dict is dict else self.make
        return self.kind, self.keys, make, [child.described() for child in self.children]

    def open(self, value: Any) -> Iterable[object]:
        """Return the children of `value` in the exported order, or refuse it."""
        if issubclass(type(value), self.base):
            if self.kind == "dict":
                # A subclass may create missing items and even insert them: defaultdict does.
                pairs = value if type(value) is dict else plain(value)
                if len(pairs) == len(self.keys):
                    with suppress(KeyError):
                        return self.pick(pairs)
            elif self.kind == "namedtuple":
                items: tuple[object, ...] = tuple.__getitem__(value, slice(None))
                fields = getattr(value, "_fields", None)
                known = fields == self.keys or type(self.keys) is range
                if len(items) == len(self.keys) and isinstance(fields, tuple) and known:
                    return items
            elif type(value) is self.base and len(value) == len(self.keys):
                return value  # type: ignore[no-any-return]
        raise misfit(self.path, self.kind, self.keys, value)


class _Reader:
    """Reads one treespec document, trusting nothing in it, and collects its leaves."""

    def __init__(self, which: str, fields: Mapping[str, Sequence[str]]) -> None:
        self.which = which  # "input" or "output"
        self.fields = fields
        self.leaves: list[tuple[str, tuple[Key, ...]]] = []  # path, and the keys of the name
        self.path_chars = 0
        self.namedtuples: dict[tuple[str, int], tuple[Sequence[Key], _Make]] = {}

    def unreadable(self, reason: str) -> PackageError:
        return PackageError(
            f"the package's description of the model's {self.which} structure cannot be read: "
            f"{reason}; get the package again, or export it again"
        )

    def parse(self, text: Any) -> object:
        try:
            return json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.unreadable(f"not JSON, or nested too deeply ({error})") from None

    def load(self, document: str) -> object:
        match self.parse(document):
            case [1, spec]:
                return spec
        raise self.unreadable("not in version 1 of the treespec format, which aoti reads")

    def read_call(self, document: str, parameters: Sequence[str]) -> tuple[_Node, _Node]:
        """Read the document of the inputs, which is always ``(args, kwargs)``."""
        match self.load(document):
            case {"type": "builtins.tuple", "children_spec": [args_spec, kwargs_spec]}:
                args = self.read(args_spec, "args", ("args",))
                if len(parameters) == len(args.keys):
                    self.leaves = [
                        (path, (parameters[keys[1]], *keys[2:]))  # type: ignore[index]
                        for path, keys in self.leaves
                    ]
                kwargs = self.read(kwargs_spec, "kwargs", ())
                names = all(isinstance(key, str) for key in kwargs.keys)
                if args.kind == "tuple" and kwargs.kind == "dict" and names:
                    return args, kwargs
        raise self.unreadable("not a tuple of arguments and a dict of keyword arguments")

    def read(self, spec: object, path: str, keys: tuple[Key, ...]) -> _Node:
        self.path_chars += len(path)
        if len(keys) > _MAX_DEPTH or self.path_chars > _MAX_PATH_CHARS:
            raise self.unreadable("nested too deeply, or its keys are too long")
        match spec:
            case {"type": None, "context": None, "children_spec": []}:
                is_named = keys and isinstance(keys[0], str)
                self.leaves.append((path, keys if is_named else ("output", *keys)))
                return _Node(path)
            case {"type": str() as type_name, "context": context, "children_spec": list() as specs}:
                node = self.container(path, type_name, context, len(specs))
            case _:
                raise self.unreadable("a node without type, context and children")
        fields = node.kind == "namedtuple" and isinstance(node.keys, tuple)
        for key, child in zip(node.keys, specs, strict=True):
            step = f".{key}" if fields else f"[{key!r}]"
            node.children.append(self.read(child, path + step, (*keys, key)))
        node.is_flat = all(child.is_leaf for child in node.children)
        return node

    def container(self, path: str, type_name: str, context: object, count: int) -> _Node:
        # The format of each context: _treespec_to_json and *_serialize in torch/utils/_pytree.py
        match type_name:
            case "builtins.tuple" | "builtins.list":
                base = tuple if type_name == "builtins.tuple" else list
                return _Node(path, base, range(count), base)
            case "collections.deque":
                maxlen = self.parse(context)
                if maxlen is None or (isinstance(maxlen, int) and count <= maxlen <= sys.maxsize):
                    return _Node(path, deque, range(count), partial(deque, maxlen=maxlen))
                raise self.unreadable("a deque with an impossible maximum length")
            case "builtins.dict" | "collections.OrderedDict":
                make: _MakeDict = dict if type_name == "builtins.dict" else OrderedDict
                return self.dict_node(path, make, self.parse(context), count)
            case "collections.defaultdict" if isinstance(context, dict):
                name = context.get("default_factory_name")
                known = context.get("default_factory_module") == "builtins" and type(name) is str
                make = partial(defaultdict, _FACTORIES.get(name) if known else None)
                return self.dict_node(path, make, context.get("dict_context"), count)
            case "collections.namedtuple" if isinstance(context, str):
                if (context, count) not in self.namedtuples:
                    self.namedtuples[context, count] = _namedtuple(
                        context, count, self.fields.get(context, ())
                    )
                node = _Node(path, tuple, *self.namedtuples[context, count])
                node.kind = "namedtuple"
                return node
            case "collections.defaultdict" | "collections.namedtuple":
                raise self.unreadable("a defaultdict or namedtuple without what makes it")
        names = self.part_names(context, count)
        if names is not None:
            return self.dict_node(path, Record, names, count)
        raise PackageError(
            f"the model's {self.which} contains a {short(type_name)}, a pytree type that only the "
            "program that exported it knows, without names for its parts: the model cannot be "
            "called, but run() with a flat list works; to call it, export it again with plain "
            "dicts, lists or tuples instead"
        )

    def part_names(self, context: object, count: int) -> list[str] | None:
        """The names of the parts of a type that only the exporting program has, if they are there.

        The context of such a type is the program's own. Most are the names, or a list that begins
        with the names: so have dataclasses, and the results and caches of transformers.
        """
        try:
            found = self.parse(context)
        except PackageError:
            return None
        for names in (found, found[0] if isinstance(found, list) and found else None):
            if (
                isinstance(names, list)
                and all(isinstance(name, str) for name in names)
                and len(names) == len(set(names)) == count
            ):
                return names
        return None

    def dict_node(self, path: str, make: _MakeDict, keys: object, count: int) -> _Node:
        if not isinstance(keys, list) or len(keys) != count:
            raise self.unreadable("a dict whose keys and values differ in number")
        # NaN differs from itself, so such a key could never be found.
        if any(not isinstance(key, Key) or key != key for key in keys):  # noqa: PLR0124
            raise self.unreadable("a dict key that is neither text nor a number")
        if len(set(keys)) != count:
            raise self.unreadable("a dict with a repeated key")
        names = tuple(keys)
        node = _Node(path, dict, names, lambda values: make(zip(names, values)))  # noqa: B905
        node.make_dict = make
        return node

    def paths_and_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        paths = tuple(path for path, _ in self.leaves)
        uses = Counter(keys[-1] for _, keys in self.leaves if isinstance(keys[-1], str))
        names = []
        for path, keys in self.leaves:
            last = keys[-1]
            alone = isinstance(last, str) and uses[last] == 1
            name = str(last) if alone else ".".join(map(str, keys))
            # A name that moves the cursor could rewrite what a terminal shows.
            names.append(name if name and name.isprintable() else path)
        return paths, tuple(names) if len(set(names)) == len(names) else paths


def _namedtuple(name: str, count: int, recorded: Sequence[str]) -> tuple[Sequence[Key], _Make]:
    """Return the field names and the constructor of a namedtuple class, registered as `name`.

    torch writes only that name, by convention ``module.Class``. The class is used if the program
    registered it with torch or imported it. Otherwise a stand-in class is made, with the recorded
    fields or with ``_0``, ``_1``, ...
    """
    module_name, _, class_name = name.rpartition(".")
    registered = _imported("torch.utils._pytree", "SERIALIZED_TYPE_TO_PYTHON_TYPE")
    known = registered.get(name) if isinstance(registered, dict) else None
    for cls in (known, _imported(module_name, class_name)):
        if isinstance(cls, type) and issubclass(cls, tuple):
            fields, make = getattr(cls, "_fields", None), getattr(cls, "_make", None)
            if isinstance(fields, tuple) and len(fields) == count and callable(make):
                return fields, make
    if not class_name.isidentifier() or iskeyword(class_name):
        class_name = "namedtuple"
    names = recorded if len(recorded) == count else [str(index) for index in range(count)]
    stand_in = namedtuple(class_name, names, rename=True)  # type: ignore[misc]
    return (stand_in._fields if names is recorded else range(count)), stand_in._make


def _imported(module_name: str, name: str) -> Any:
    """What an imported module has under a name; None if it is not imported, or has nothing."""
    module = sys.modules.get(module_name)
    # Plain modules only, and only their dict: a lazy module would import the name.
    return vars(module).get(name) if type(module) is ModuleType else None


def _rebuilder(result: _Node) -> Callable[[Sequence[object]], object]:
    if result.is_leaf:
        return itemgetter(0)
    if result.is_flat:
        return result.make
    build = _builder(result)
    return lambda leaves: build(iter(leaves))


def _arguments(
    args_node: _Node, kwargs_node: _Node
) -> Callable[[Sequence[object]], tuple[tuple[Any, ...], dict[str, Any]]]:
    builders = [_builder(child) for child in args_node.children + kwargs_node.children]
    count, names = len(args_node.keys), list(map(str, kwargs_node.keys))

    def arguments(leaves: Sequence[object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rest = iter(leaves)
        values = [build(rest) for build in builders]
        return tuple(values[:count]), dict(zip(names, values[count:], strict=True))

    return arguments


def _builder(node: _Node) -> Callable[[Iterator[object]], object]:
    if node.is_leaf:
        return next
    make, builders = node.make, [_builder(child) for child in node.children]
    return lambda leaves: make([build(leaves) for build in builders])


def _flattener(args_node: _Node, kwargs_node: _Node, parameters: Sequence[str]) -> _Flatten:
    num_args, num_kwargs = len(args_node.keys), len(kwargs_node.keys)
    nodes = args_node.children + kwargs_node.children
    is_flat = args_node.is_flat and kwargs_node.is_flat
    pick = kwargs_node.pick
    names = tuple(parameters) if len(parameters) == num_args else ()

    def flatten(args: tuple[object, ...], kwargs: dict[str, object]) -> Sequence[object]:
        if len(args) < num_args and names:
            missing = names[len(args) :]
            if all(name in kwargs for name in missing):
                args += tuple(kwargs[name] for name in missing)
                kwargs = {key: value for key, value in kwargs.items() if key not in missing}
        if len(args) != num_args or len(kwargs) != num_kwargs:
            raise wrong_call(num_args, names, kwargs_node.keys, args, kwargs)
        try:
            values = args + pick(kwargs) if num_kwargs else args
        except KeyError:
            raise wrong_call(num_args, names, kwargs_node.keys, args, kwargs) from None
        if is_flat and CONTAINERS.isdisjoint(map(type, values)):
            return values
        leaves: list[object] = []
        _take(nodes, values, leaves)
        return leaves

    return flatten


def _take(nodes: Iterable[_Node], values: Iterable[object], leaves: list[object]) -> None:
    """Append the leaves of neighbouring values, or refuse them."""
    for node, value in zip(nodes, values):  # noqa: B905 - both counted; strict would cost 150 ns
        if not node.is_leaf:
            items = node.open(value)
            if node.is_flat and CONTAINERS.isdisjoint(map(type, items)):
                leaves.extend(items)
            else:
                _take(node.children, items, leaves)
        elif type(value) in CONTAINERS:
            got = described(value)
            raise InputTypeError(f"{node.path}: expected one array, got {got}; pass one array here")
        else:
            leaves.append(value)


def _leaves_of(node: _Node, value: object) -> list[object]:
    leaves: list[object] = []
    _take([node], [value], leaves)
    return leaves
