"""The call plan: what goes in is what torch's own pytree would take, and every refusal helps."""

import json
import pickle
import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aoti.errors import InputError, InputTypeError, PackageError
from aoti.signature.pytree import CallPlan

Pair = namedtuple("Pair", "ids mask")
Empty = namedtuple("Empty", "")
LIST = {"default_factory_module": "builtins", "default_factory_name": "list"}
LEAF = {"type": None, "context": None, "children_spec": []}


def node(type_name: str, context: object, *children: object) -> dict[str, object]:
    return {"type": type_name, "context": context, "children_spec": list(children)}


def describe(tree: Any) -> dict[str, object]:
    """Write a tree's spec as torch does; a test below compares the two."""
    name = type(tree).__name__
    if hasattr(tree, "_fields"):
        return node(
            "collections.namedtuple", f"{type(tree).__module__}.{name}", *map(describe, tree)
        )
    if isinstance(tree, tuple | list):
        return node(f"builtins.{name}", "null", *map(describe, tree))
    if isinstance(tree, deque):
        return node("collections.deque", json.dumps(tree.maxlen), *map(describe, tree))
    if isinstance(tree, defaultdict):
        context = {**LIST, "dict_context": list(tree)}
        return node("collections.defaultdict", context, *map(describe, tree.values()))
    if isinstance(tree, dict):
        name = {"dict": "builtins.dict"}.get(name, f"collections.{name}")
        return node(name, json.dumps(list(tree)), *map(describe, tree.values()))
    return LEAF


def dumps(tree: object) -> str:
    return json.dumps([1, describe(tree)])


def plan_of(*args: object, result: object = 0, **kwargs: object) -> CallPlan:
    return CallPlan.from_json(dumps((args, kwargs)), dumps(result))


def plan_of_result(spec: object) -> CallPlan:
    return CallPlan.from_json(dumps(((), {})), json.dumps([1, spec]))


leaves = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
keys = st.text(max_size=3) | st.integers() | st.none()
trees = st.recursive(
    leaves,
    lambda child: (
        st.lists(child, max_size=4)
        | st.lists(child, max_size=4).map(tuple)
        | st.builds(deque, st.lists(child, max_size=3), st.sampled_from([None, 3, 7]))
        | st.dictionaries(keys, child, max_size=4)
        | st.dictionaries(keys, child, max_size=3).map(OrderedDict)
        | st.dictionaries(keys, child, max_size=3).map(lambda items: defaultdict(list, items))
        | st.builds(Pair, child, child)
    ),
    max_leaves=12,
)
calls = st.tuples(st.lists(trees, max_size=3).map(tuple), st.dictionaries(st.text(), trees))


# Round trips


@pytest.fixture(scope="module")
def torch_pytree() -> Any:
    pytree = pytest.importorskip("torch.utils._pytree")
    pytree._register_namedtuple(Pair, serialized_type_name=f"{__name__}.Pair")
    return pytree


@given(call=calls)
@settings(max_examples=150, deadline=None)
def test_every_structure_goes_and_comes_as_in_torch(torch_pytree: Any, call: Any) -> None:
    args, kwargs = call
    expected, spec = torch_pytree.tree_flatten(call)
    document = torch_pytree.treespec_dumps(spec)
    assert json.loads(document) == json.loads(dumps(call))
    plan = CallPlan.from_json(document, document)
    assert list(plan.flatten(args, kwargs)) == expected
    assert list(plan.flatten(args, dict(reversed(kwargs.items())))) == expected
    assert repr(plan.arguments(expected)) == repr((args, kwargs))
    # repr tells list from tuple, dict from OrderedDict, and the order of keys
    assert repr(plan.rebuild(expected)) == repr(torch_pytree.tree_unflatten(expected, spec))


@given(call=calls)
@settings(max_examples=60, deadline=None)
def test_paths_and_names_are_unique_and_printable(call: Any) -> None:
    plan = plan_of(*call[0], result=call, **call[1])
    assert plan.num_inputs == plan.num_outputs
    for labels in (plan.input_paths, plan.input_names, plan.output_paths, plan.output_names):
        assert len(set(labels)) == plan.num_inputs
        assert all(label.isprintable() for label in labels)


@given(exported=calls, given=calls)
@settings(max_examples=80, deadline=None)
def test_a_call_of_another_structure_fits_or_is_an_input_error(exported: Any, given: Any) -> None:
    plan = plan_of(*exported[0], **exported[1])
    try:
        assert len(plan.flatten(*given)) == plan.num_inputs
    except InputError as error:
        assert len(str(error)) > 20


@pytest.mark.parametrize(
    ("result", "labels"),
    [
        (0, {"": "output"}),
        ((0, 0), {"[0]": "output.0", "[1]": "output.1"}),
        ({"embedding": 0, "a": [0]}, {"['embedding']": "embedding", "['a'][0]": "a.0"}),
        (Pair(0, [0]), {".ids": "ids", ".mask[0]": "mask.0"}),
        ({"x": {"k": 0}, "y": {"k": 0}}, {"['x']['k']": "x.k", "['y']['k']": "y.k"}),
        ({"a": [0], "a.0": 0}, {"['a'][0]": "['a'][0]", "['a.0']": "['a.0']"}),
        ({1: 0, "1": 0}, {"[1]": "output.1", "['1']": "1"}),
        ({"\x1b[2J": 0}, {r"['\x1b[2J']": r"['\x1b[2J']"}),
    ],
)
def test_output_paths_and_names(result: object, labels: dict[str, str]) -> None:
    plan = plan_of(result=result)
    assert dict(zip(plan.output_paths, plan.output_names, strict=True)) == labels


def test_input_paths_and_names() -> None:
    plan = plan_of(0, [0, 0], Pair(0, 0), x={"ids": 0, "k": 0}, y=0)
    paths = "args[0] args[1][0] args[1][1] args[2].ids args[2].mask kwargs['x']['ids'] "
    assert " ".join(plan.input_paths) == paths + "kwargs['x']['k'] kwargs['y']"
    assert " ".join(plan.input_names) == "args.0 args.1.0 args.1.1 args.2.ids mask x.ids k y"


@pytest.mark.parametrize("args", [(), (1,), (1, None), (1, 2, 3)])
@pytest.mark.parametrize("kwargs", [{}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": [2]}])
def test_flat_and_nested_calls(args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
    plan = plan_of(*args, **kwargs)
    assert list(plan.flatten(args, kwargs)) == [*args, *[1, 2][: len(kwargs)]]


@pytest.mark.parametrize("result", [0, (0, 1), [0, 1], {"a": 0, "b": 1}, Pair(0, 1), {}, Empty()])
def test_flat_results_are_rebuilt(result: object) -> None:
    plan = plan_of(result=result)
    rebuilt = plan.rebuild(list(range(plan.num_outputs)))
    assert (rebuilt, type(rebuilt)) == (result, type(result))


def test_dicts_come_in_any_order_and_class() -> None:
    plan = plan_of({"a": 0, "b": 0}, OrderedDict(a=0), defaultdict(list, a=0))
    assert plan.flatten((OrderedDict(b=2, a=1), {"a": 3}, {"a": 4}), {}) == [1, 2, 3, 4]


def test_a_defaultdict_is_not_asked_for_what_it_lacks() -> None:
    given = defaultdict(int, a=1, c=2)
    with pytest.raises(InputError, match=r"'b' is missing, 'c' is unexpected"):
        plan_of({"a": 0, "b": 0}).flatten((given,), {})
    assert dict(given) == {"a": 1, "c": 2}


# Namedtuples and default factories name things that the file may not choose freely


def test_any_namedtuple_with_the_fields_is_taken() -> None:
    other = namedtuple("other", "ids mask")
    assert plan_of(Pair(0, 0)).flatten((other(1, 2),), {}) == [1, 2]
    assert plan_of(Empty(), 0).flatten((Empty(), 1), {}) == [1]


def test_a_namedtuple_class_that_is_not_imported_gets_a_stand_in() -> None:
    spec = node("collections.namedtuple", "not_imported.Pair", LEAF, LEAF)
    first, second = plan_of_result(node("builtins.list", "null", spec, spec)).rebuild([1, 2, 3, 4])
    assert repr(first) == "Pair(_0=1, _1=2)"
    assert type(first) is type(second)
    args = node("builtins.tuple", "null", spec)
    call = node("builtins.tuple", "null", args, describe({}))
    plan = CallPlan.from_json(json.dumps([1, call]), dumps(0))
    assert plan.input_paths == ("args[0][0]", "args[0][1]")
    assert plan.flatten((Pair(1, 2),), {}) == [1, 2]


def test_a_result_has_the_class_that_the_program_registered_with_torch() -> None:
    pytree = pytest.importorskip("torch.utils._pytree")
    Local = namedtuple("Local", "ids mask")
    pytree._register_namedtuple(Local, serialized_type_name="not_imported.Registered")
    spec = node("collections.namedtuple", "not_imported.Registered", LEAF, LEAF)
    plan = plan_of_result(spec)
    assert type(plan.rebuild([1, 2])) is Local
    assert plan.output_paths == (".ids", ".mask")


def test_a_class_that_torch_has_under_the_name_needs_as_many_fields() -> None:
    pytree = pytest.importorskip("torch.utils._pytree")
    Local = namedtuple("Local", "ids mask")
    pytree._register_namedtuple(Local, serialized_type_name="not_imported.Longer")
    spec = node("collections.namedtuple", "not_imported.Longer", LEAF)
    rebuilt = plan_of_result(spec).rebuild([1])
    assert rebuilt._asdict() == {"_0": 1}


# What transformers 5 gives for a causal language model with one layer, with the names that torch
# writes for its ModelOutput and its DynamicCache.
CACHE = node(
    "transformers.cache_utils.DynamicCache",
    '[["key_cache", "value_cache"], [null, null]]',
    node("builtins.list", "null", LEAF),
    node("builtins.list", "null", LEAF),
)
OUTPUT = node(
    "transformers.modeling_outputs.CausalLMOutputWithPast", '["logits", "cache"]', LEAF, CACHE
)


def test_containers_of_the_exporting_program_are_dicts_with_attributes() -> None:
    kwargs = node("builtins.dict", '["input_ids", "cache"]', LEAF, CACHE)
    call = node("builtins.tuple", "null", node("builtins.tuple", "null"), kwargs)
    plan = CallPlan.from_json(json.dumps([1, call]), json.dumps([1, OUTPUT]))
    assert plan.input_names == ("input_ids", "cache.key_cache.0", "cache.value_cache.0")
    assert plan.output_names == ("logits", "cache.key_cache.0", "cache.value_cache.0")
    out: Any = plan.rebuild([1, 2, 3])
    assert out == {"logits": 1, "cache": {"key_cache": [2], "value_cache": [3]}}
    assert (out.logits, out.cache.value_cache, list(out)) == (1, [3], ["logits", "cache"])
    assert plan.flatten((), {"input_ids": 0, "cache": out.cache}) == [0, 2, 3]
    assert plan.flatten((), {"cache": dict(out.cache), "input_ids": 0}) == [0, 2, 3]
    with pytest.raises(
        InputError, match="kwargs\\['cache'\\]: expected a dict with keys 'key_cache'"
    ):
        plan.flatten((), {"input_ids": 0, "cache": (2, 3)})
    with pytest.raises(InputTypeError, match="expected one array, got a dict with keys 'key_c"):
        plan.flatten((), {"input_ids": out.cache, "cache": out.cache})
    with pytest.raises(AttributeError, match="the result has logits, cache, not 'loss'"):
        out.loss  # noqa: B018
    with pytest.raises(AttributeError):
        out.logits = 2
    assert "logits" in dir(out)
    assert type(pickle.loads(pickle.dumps(out))) is type(out)


@pytest.mark.parametrize(
    "context", ["null", "[]", '["a"]', '["a", "a"]', '["a", 1]', "[[1, 2]]", "[", {}, None]
)
def test_containers_of_the_exporting_program_need_names_for_their_parts(context: object) -> None:
    with pytest.raises(PackageError, match=r"'m\.Cache'.*without names.*run\(\)"):
        plan_of_result(node("m.Cache", context, LEAF, LEAF))


@pytest.mark.parametrize(
    "name", ["os.path", "sys.exit", "a.class", "a-b", "", ".", f"{__name__}.Empty"]
)
def test_other_things_that_a_namedtuple_may_name_are_not_used(name: str) -> None:
    rebuilt = plan_of_result(node("collections.namedtuple", name, LEAF, LEAF)).rebuild([1, 2])
    assert rebuilt._asdict() == {"_0": 1, "_1": 2}


def test_nothing_is_imported_by_name() -> None:
    context = {**LIST, "default_factory_module": "this", "dict_context": []}
    spec = node("collections.defaultdict", context)
    assert plan_of_result(spec).rebuild([]).default_factory is None
    plan_of_result(node("collections.namedtuple", "this.s", LEAF))
    assert "this" not in sys.modules


@pytest.mark.parametrize("name", ["list", "eval", "object", [], None])
def test_default_factories_are_well_known(name: object) -> None:
    context = {**LIST, "default_factory_name": name, "dict_context": ["a"]}
    rebuilt = plan_of_result(node("collections.defaultdict", context, LEAF)).rebuild([1])
    assert rebuilt == {"a": 1}
    assert rebuilt.default_factory is (list if name == "list" else None)


# Refusals


def call(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    return args, kwargs


many = {f"key{i}": 0 for i in range(20)}
ids = plan_of(ids=0, mask=0)


@pytest.mark.parametrize(
    ("plan", "arguments", "message"),
    [
        (plan_of(0, 0), call(1, 2, 3), "the model takes 2 positional arguments, got 3"),
        (plan_of(0), call(), "the model takes 1 positional argument, got 0"),
        (plan_of(0, 0), call([1, 2]), "2 positional arguments, got 1; spread the list: model(*val"),
        (plan_of(0), call(x=1), "got 0; the package has no names for positional arguments: pass"),
        (plan_of(0), call(x=1), "pass 'x' by position"),
        (ids, call(1, 2), "takes 0 positional arguments, got 2; pass 'ids', 'mask' by keyword"),
        (ids, call(ids=1, maks=2), "unexpected keyword argument 'maks'; the model takes 'ids', 'm"),
        (ids, call(ids=1, maks=2), "'ids', 'mask' (did you mean 'mask'?)"),
        (plan_of(0), call(1, x=2), "unexpected keyword argument 'x'; the model takes (none)"),
        (ids, call(ids=1), "missing keyword argument 'mask'; the model takes 'ids', 'mask'"),
        (plan_of(a=[0], b=0), call(), "missing keyword arguments 'a', 'b'; the model takes"),
        (plan_of(x={"a": 0}), call(x={}), "kwargs['x']: expected a dict with keys 'a'; 'a' is mis"),
        (plan_of({"yes": 0}), call({"yse": 0}), "'yse' is unexpected (did you mean 'yes'?)"),
        (plan_of((0, 0)), call((1,)), "expected a tuple of 2, got a tuple of 1; pass 2 items, as"),
        (plan_of(many), call({}), "'key10', 'key11', ... (20 in all); 'key0' is missing"),
    ],
)
def test_a_wrong_call_is_explained(plan: CallPlan, arguments: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        plan.flatten(*arguments)
    assert message in str(caught.value)
    assert not isinstance(caught.value, InputTypeError)


@pytest.mark.parametrize(
    ("exported", "given", "message"),
    [
        ((0, 0), [1, 2], "expected a tuple of 2, got a list of 2; pass a tuple, as the model was"),
        ((0, 0), Pair(1, 2), "expected a tuple of 2, got a namedtuple Pair with fields 'ids', 'm"),
        ([0], (1,), "expected a list of 1, got a tuple of 1; pass a list, as the model was export"),
        (deque([0]), [1], "expected a deque of 1, got a list of 1; pass a deque"),
        ([0], None, "expected a list of 1, got None; pass a list"),
        ([0], {"a": 1}, "expected a list of 1, got a dict with keys 'a'; pass a list"),
        ({"a": 0}, [1], "expected a dict with keys 'a', got a list of 1; pass a dict"),
        ({"a": 0}, 1.5, "expected a dict with keys 'a', got an object of type float; pass a dict"),
        (Pair(0, 0), (1, 2), "expected a namedtuple with fields 'ids', 'mask', got a tuple of 2"),
        (0, [1, 2], "expected one array, got a list of 2; pass one array here"),
        (0, {"a": 1}, "expected one array, got a dict with keys 'a'; pass one array here"),
    ],
)
def test_a_wrong_type_is_explained(exported: Any, given: Any, message: str) -> None:
    wanted = f"args[0]: {message}"
    # alone, beside another leaf, and beside a keyword argument: each has its own quick way
    for plan, args, kwargs in (
        (plan_of(exported), (given,), {}),
        (plan_of(exported, 0), (given, 1), {}),
        (plan_of(exported, k=0), (given,), {"k": 1}),
        (plan_of(exported, k=[0]), (given,), {"k": [1]}),
    ):
        with pytest.raises(InputTypeError) as caught:
            plan.flatten(args, kwargs)
        assert str(caught.value).startswith(wanted)


def test_a_deep_refusal_names_the_path() -> None:
    with pytest.raises(InputTypeError, match=r"^kwargs\['x'\]\[1\]\.mask: expected one array"):
        plan_of(x=[0, Pair(0, 0)]).flatten((), {"x": [0, Pair(0, [0])]})


# Hostile documents


def test_an_unknown_type_is_named() -> None:
    message = r"output contains a 'my\.Cache'.*run\(\).*export it again"
    with pytest.raises(PackageError, match=message):
        plan_of_result(node("my.Cache", "null", LEAF))


def bad(type_name: str, *contexts: object) -> list[str]:
    return [json.dumps([1, node(type_name, context, LEAF)]) for context in contexts]


@pytest.mark.parametrize(
    "document",
    [
        *("", "nonsense", "null", "[]", "[1]", "[1, null]", "[2, null]", "[1, {}]", "[1, [[]]]"),
        *(f"[{'9' * 5000}, null]", "[" * 100_000, '[1, {"type": 1}]', "[NaN, NaN]"),
        *(json.dumps([version, LEAF]) for version in (0, 2, 10**30, "1", None)),
        json.dumps([1, {**LEAF, "context": "null"}]),
        json.dumps([1, {**LEAF, "children_spec": [LEAF]}]),
        json.dumps([1, node("builtins.dict", "[1, true]", LEAF, LEAF)]),
        *bad("builtins.dict", None, 1, [], "", "null", '"a"', '["a", "b"]', '[{"__enum__": true}]'),
        *bad("builtins.dict", "[" * 100_000, "[[]]", "[NaN]"),
        *bad("collections.deque", None, "0", "-1", "1.0", "[]", str(10**30)),
        *bad("collections.defaultdict", None, "null", [], {}, {"dict_context": "a"}),
        *bad("collections.namedtuple", None, 1, {}, []),
        json.dumps([1, node("builtins.dict", json.dumps(["x" * 10**6]), describe([0] * 100))]),
    ],
)
def test_damaged_documents_are_refused(document: str) -> None:
    with pytest.raises(PackageError) as caught:
        CallPlan.from_json(dumps(((), {})), document)
    assert len(str(caught.value)) < 500
    with pytest.raises(PackageError):
        CallPlan.from_json(document, dumps(0))


@pytest.mark.parametrize("tree", [0, (), ((),), ((), {}, 0), ([], {}), ((), []), ((), {1: 0})])
def test_an_input_structure_that_is_no_call_is_refused(tree: object) -> None:
    with pytest.raises(PackageError, match="arguments"):
        CallPlan.from_json(dumps(tree), dumps(0))


def test_nesting_is_bounded() -> None:
    tree: object = 0
    for _ in range(100):
        tree = [tree]
    assert plan_of(result=tree).rebuild([0]) == tree
    with pytest.raises(PackageError, match="deeply"):
        plan_of(result=[tree])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=5), child),
    max_leaves=8,
)
kinds = ["tuple", "list", "dict", "OrderedDict", "defaultdict", "deque", "namedtuple"]
type_names = st.sampled_from(
    [f"{top}.{kind}" for kind in kinds for top in ("builtins", "collections")]
)
almost_specs = st.recursive(
    st.just(LEAF) | json_values,
    lambda child: st.fixed_dictionaries(
        {
            "type": type_names | json_values,
            "context": json_values | json_values.map(json.dumps) | st.just("null"),
            "children_spec": st.lists(child, max_size=3) | json_values,
        }
    ),
    max_leaves=6,
)


@given(spec=almost_specs)
@settings(max_examples=300, deadline=None)
def test_any_json_gives_a_plan_or_a_package_error(spec: object) -> None:
    args = node("builtins.tuple", "null", spec)
    call = node("builtins.tuple", "null", args, describe({}))
    try:
        plan = CallPlan.from_json(json.dumps([1, call]), json.dumps([1, spec]))
    except PackageError:
        return
    plan.rebuild(list(range(plan.num_outputs)))
