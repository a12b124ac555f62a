"""The C++ kernel of recurrent layers that Inductor generates in processes that import this module.

One kernel computes all steps of a layer. A thread takes some rows of the batch through the whole
sequence, so threads do not wait for each other at each step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch._inductor import config, ir, lowering
from torch._inductor.codegen.cpp_template import CppTemplate
from torch._inductor.utils import parallel_num_threads
from torch._inductor.virtualized import V

from aoti.exporting.passes.kernel_sources import MULTIPLY
from aoti.exporting.passes.kernel_templates import contiguous, threaded
from aoti.exporting.passes.recurrence import GATES

# At most so many rows of the batch are computed at a time; a thread gets at least so many, since
# fewer rows read the weights just as often.
_MOST_ROWS, _FEW_ROWS = 72, 4


class RecurrenceTemplate(CppTemplate):
    """All steps of a recurrent layer in one direction.

    Parameters
    ----------
    inputs : mapping of str to Inductor's nodes
        The tensors by their names in the code.
    layout : Inductor's layout
        The results, one behind the other: of all steps, the last state, and the last cell state.
    settings : mapping
        What the code is generated for: see `_RECURRENCE`.
    """

    def __init__(self, inputs: Mapping[str, Any], layout: Any, settings: Mapping[str, Any]) -> None:
        super().__init__("recurrent_layer", [*inputs.values()], layout, parallel_num_threads())
        self.inputs, self.settings = inputs, settings

    def render(  # type: ignore[override]
        self, kernel: Any, template_buffer_node: Any = None, **_: Any
    ) -> str:
        """The code."""
        code: str = self._template_from_string(_RECURRENCE).render(
            **self.settings,
            kernel=kernel,
            template=self,
            inputs=self.inputs,
            # Several inputs may be in one buffer, which then is one argument.
            arguments={f"of_{name}": node for name, node in self.inputs.items()},
            Y=template_buffer_node or self.output_node,
            most_rows=_MOST_ROWS,
            few_rows=_FEW_ROWS,
            threaded=threaded(),
            threads="omp_get_max_threads()" if config.cpp.dynamic_threads else self.num_threads,
        )
        return code


@lowering.register_lowering(torch.ops.aoti.recurrent_layer.default, type_promotion_kind=None)
def _(
    kind: str,
    gates: Any,
    hidden: Any,
    cell: Any,
    weight: Any,
    bias: Any,
    projection: Any,
    lengths: Any,
    batch_first: bool,
    reverse: bool,
) -> Any:
    given = {
        "gates": gates,
        "first_hidden": hidden,
        "first_cell": cell,
        "weight": weight,
        "bias": bias,
        "projection": projection,
        "lengths": lengths,
    }
    inputs = {name: contiguous(node) for name, node in given.items() if node is not None}
    *outer, of_gates = inputs["gates"].get_size()
    batch, shown = inputs["first_hidden"].get_size()
    units = int(of_gates) // GATES[kind]
    shapes = [[*outer, shown], [batch, shown], [batch, units] if kind == "lstm" else [0]]
    sizes = [V.graph.sizevars.simplify(math.prod(shape)) for shape in shapes]
    device = inputs["gates"].get_device()
    layout = ir.FixedLayout(device, torch.float32, [sum(sizes)], [1])
    settings = {
        "kind": kind,
        "batch_first": batch_first,
        "reverse": reverse,
        "projected": projection and int(inputs["projection"].get_size()[2]),
        "kinds_gates": GATES[kind],
        "hidden": units,
        "shown": int(shown),
        "blocks": int(inputs["weight"].get_size()[0]),
        "block": int(inputs["weight"].get_size()[2]),
    }
    template: Any = RecurrenceTemplate(inputs, layout, settings)
    results = template.generate().output_node()
    V.graph.no_fuse_buffer_names.add(results.get_name())  # the kernel computes nothing else
    views = []
    for shape, offset in zip(shapes, (0, sizes[0], sizes[0] + sizes[1]), strict=True):
        strides = ir.FlexibleLayout.contiguous_strides(shape)
        view = ir.FixedLayout(device, torch.float32, shape, strides, offset)
        views.append(ir.TensorBox(ir.ReinterpretView(data=results.data, layout=view)))
    return views


# `weight` has blocks of columns: some units of the layer, gate after gate. After the product of a
# block its units are advanced. `before` and `after` are the states of some rows of the batch.
_RECURRENCE = (
    r"""
{%- set place = "((begin + row) * steps + now)" if batch_first else "(now * batch + begin + row)" %}
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs=arguments, outputs={"results": Y})}}
{
{%- for name, node in inputs.items() %}
    const auto* {{name}} = &{{kernel.index(node, ["0"] * node.get_size()|length)}};
{%- endfor %}
    using Vec = at::vec::Vectorized<float>;
    constexpr int64_t kinds_gates = {{kinds_gates}}, hidden = {{hidden}}, shown = {{shown}};
    constexpr int64_t blocks = {{blocks}}, block = {{block}}, units = block / kinds_gates;
    const int64_t batch = {{kernel.size(inputs["gates"], 0 if batch_first else 1)}};
    const int64_t steps = {{kernel.size(inputs["gates"], 1 if batch_first else 0)}};
    float* last_hidden = results + steps * batch * shown;
{%- if kind == "lstm" %}
    float* last_cell = last_hidden + batch * shown;
{%- endif %}

"""
    + MULTIPLY
    + r"""
    // Eigen's rational approximation (generic_fast_tanh_float): within 3e-7, and exact at the ends.
    const auto tanh = [](Vec x) {
        x = at::vec::clamp(x, Vec(-7.99881172180175781f), Vec(7.99881172180175781f));
        const Vec square = x * x;
        Vec above = Vec(-2.76076847742355e-16f);
        for (const float next : {2.00018790482477e-13f, -8.60467152213735e-11f,
                                 5.12229709037114e-08f, 1.48572235717979e-05f,
                                 6.37261928875436e-04f, 4.89352455891786e-03f}) {
            above = at::vec::fmadd(above, square, Vec(next));
        }
        Vec below = Vec(1.19825839466702e-06f);
        for (const float next : {1.18534705686654e-04f, 2.26843463243900e-03f,
                                 4.89352518554385e-03f}) {
            below = at::vec::fmadd(below, square, Vec(next));
        }
        return x * above / below;
    };
    const auto sigmoid = [&](Vec x) {
        return at::vec::fmadd(tanh(x * Vec(0.5f)), Vec(0.5f), Vec(0.5f));
    };

    constexpr int64_t few_rows = {{few_rows}}, most_rows = {{most_rows}};
{%- if threaded %}
    const int64_t threads = {{threads}};
    const int64_t parts = threads * few_rows;
    const int64_t tile =
        std::clamp((batch + parts - 1) / parts * few_rows, few_rows, most_rows);
    #pragma omp parallel for if (batch > tile) num_threads(threads)
{%- else %}
    constexpr int64_t tile = most_rows;
{%- endif %}
    for (int64_t begin = 0; begin < batch; begin += tile) {
        const int64_t rows = std::min(tile, batch - begin);
        const std::unique_ptr<float[]> states(new float[2 * rows * shown]);
{%- if projected %}
        const std::unique_ptr<float[]> whole(new float[rows * hidden]());
{%- endif %}
        alignas(64) float products[most_rows * block];
        float* before = states.get();
        float* after = before + rows * shown;
        std::memcpy(before, first_hidden + begin * shown, rows * shown * sizeof(float));
{%- if kind == "lstm" %}
        float* cell = last_cell + begin * hidden;
        std::memcpy(cell, first_cell + begin * hidden, rows * hidden * sizeof(float));
{%- endif %}
        for (int64_t step = 0; step < steps; step++) {
            const int64_t now = {{"steps - 1 - step" if reverse else "step"}};
            for (int64_t number = 0; number < blocks; number++) {
                multiply(
                    rows, block, shown, before, weight + number * (shown * block), false, products,
                    block);
                const int64_t first = number * units;
                const int64_t few = hidden % units == 0 ? units : std::min(units, hidden - first);
                for (int64_t row = 0; row < rows; row++) {
                    const int64_t place = {{place}};
                    const float* of_input = gates + place * (kinds_gates * hidden) + first;
                    const float* product = products + row * block;
                    const float* old = before + row * shown + first;
{%- if projected %}
                    float* next = whole.get() + row * hidden + first;
{%- else %}
                    float* next = after + row * shown + first;
                    float* to = results + place * shown + first;
{%- endif %}
{%- if "lengths" in inputs %}
                    if (now >= lengths[begin + row]) {
    {%- if not projected %}
                        std::memset(to, 0, few * sizeof(float));
                        std::memcpy(next, old, few * sizeof(float));
    {%- endif %}
                        continue;
                    }
{%- endif %}
                    for (int64_t unit = 0; unit < few; unit += Vec::size()) {
                        const int64_t count = std::min<int64_t>(Vec::size(), few - unit);
                        const auto input = [&](int64_t gate) {
                            return Vec::loadu(of_input + gate * hidden + unit, count);
                        };
                        const auto recurrent = [&](int64_t gate) {
                            return Vec::loadu(product + gate * units + unit);
                        };
                        const auto both = [&](int64_t gate) {
                            return input(gate) + recurrent(gate);
                        };
{%- if kind == "lstm" %}
                        float* state = cell + row * hidden + first + unit;
                        const Vec kept = sigmoid(both(1)) * Vec::loadu(state, count);
                        const Vec now_kept = sigmoid(both(0)) * tanh(both(2)) + kept;
                        now_kept.store(state, count);
                        const Vec value = sigmoid(both(3)) * tanh(now_kept);
{%- elif kind == "gru" %}
                        const Vec reset = sigmoid(both(0)), keep = sigmoid(both(1));
    {%- if "bias" in inputs %}
                        const Vec added = recurrent(2) + Vec::loadu(bias + first + unit, count);
    {%- else %}
                        const Vec added = recurrent(2);
    {%- endif %}
                        const Vec made = tanh(input(2) + reset * added);
                        const Vec value = (Vec::loadu(old + unit, count) - made) * keep + made;
{%- elif kind == "tanh" %}
                        const Vec value = tanh(both(0));
{%- else %}
                        const Vec value = at::vec::maximum(both(0), Vec(0));
{%- endif %}
                        value.store(next + unit, count);
{%- if not projected %}
                        value.store(to + unit, count);
{%- endif %}
                    }
                }
            }
{%- if projected %}
            constexpr int64_t columns = {{projected}};
            for (int64_t first = 0; first < shown; first += columns) {
                const int64_t few = std::min(columns, shown - first);
                multiply(
                    rows, columns, hidden, whole.get(), projection + first * hidden, false,
                    products, columns);
                for (int64_t row = 0; row < rows; row++) {
                    float* next = after + row * shown + first;
                    float* to = results + {{place}} * shown + first;
                    std::memcpy(next, products + row * columns, few * sizeof(float));
    {%- if "lengths" in inputs %}
                    if (now >= lengths[begin + row]) {
                        std::memcpy(next, before + row * shown + first, few * sizeof(float));
                        std::memset(to, 0, few * sizeof(float));
                        continue;
                    }
    {%- endif %}
                    std::memcpy(to, next, few * sizeof(float));
                }
            }
{%- endif %}
            std::swap(before, after);
        }
        std::memcpy(last_hidden + begin * shown, before, rows * shown * sizeof(float));
    }
}
"""
)
