"""The C++ code of our operators' kernels, as Jinja templates for `kernel_templates`.

Products call libtorch's `brgemm`: it uses the widest vectors of the machine that it runs on,
whatever the package was compiled for. It generates its kernel for a shape once per thread, in about
0.1 ms.
"""

from __future__ import annotations

# A block of columns of a product. Its rows are taken by eights, and then the rest: brgemm generates
# a kernel for every number of rows, and these are few. A rest of one to three rows is taken with
# the last eight, since it would read all weights again for little.
MULTIPLY = r"""
    const auto multiply = [](int64_t rows, int64_t columns, int64_t depth, const float* a,
                             const float* b, bool add, float* c, int64_t stride) {
        for (int64_t done = 0, next; done < rows; done += next) {
            const int64_t left = rows - done, rest = left % 8;
            next = left < 12 ? left : left - rest - (rest > 0 && rest < 4 ? 8 : 0);
            at::native::cpublas::brgemm(
                next, columns, depth, depth, columns, stride, add, a + done * depth, b,
                c + done * stride, false);
        }
    };
"""

# A convolution's image `x`, and the height and width of its result.
GEOMETRY = r"""
    constexpr int64_t kernel_height = {{kernel_height}}, kernel_width = {{kernel_width}};
    constexpr int64_t stride_y = {{stride_y}}, stride_x = {{stride_x}};
    constexpr int64_t dilation_y = {{dilation_y}}, dilation_x = {{dilation_x}};
    constexpr int64_t above = {{above}}, left = {{left}};
    const int64_t batch = {{kernel.size(X, 0)}};
    const int64_t height = {{kernel.size(X, 1)}}, width = {{kernel.size(X, 2)}};
    const float* x = &{{kernel.index(X, ["0", "0", "0", "0"])}};
    constexpr int64_t reach = (kernel_height - 1) * dilation_y;
    const int64_t rows = (height + {{zeros_y}} - reach - 1) / stride_y + 1;
    const int64_t columns =
        (width + {{zeros_x}} - (kernel_width - 1) * dilation_x - 1) / stride_x + 1;
"""

# A parallel region, in which every thread takes products one after the other, in the order of the
# memory that they use.
THREADS = r"""
{%- if threaded %}
    #pragma omp parallel{{ "" if every_thread else " num_threads(%d)" % template.num_threads }}
{%- endif %}
"""

# Where the products of a block go: into a buffer if something follows, else to their place.
PRODUCTS = r"""
{%- if epilogues %}
            constexpr int64_t stride = most_columns;
{%- else %}
            constexpr int64_t stride = outputs;
            auto* products = Y + begin * outputs + first;
{%- endif %}
"""

# What follows a block of products, and the place of the result: `pixels` rows from `begin` on, and
# the columns from `first` on. The products are the rows of the buffer from the first on, or from
# the one that the template names as `products_from`.
FOLLOWING = r"""
{%- if epilogues %}
    {%- set start = products_from|default("0") %}
    {%- set target = kernel.slice_nd(
        result_rows, [("begin", "begin + pixels"), ("first", "first + block")]) %}
    {%- set computed = kernel.slice_nd(
        kernel.local_buffers["products"], [(start, start ~ " + pixels"), ("0", "block")]) %}
            {{ kernel.store_output(
                target, computed, product, epilogues,
                offsets=("begin", "first"), reindexers=reindexers)|indent(12, false) }}
{%- endif %}
"""

# Lays out a tile of the image as the windows along its lines, including zeros. All rows of the
# kernel use the same lines, unless the kernel leaves lines out.
CONVOLUTION = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t groups = {{groups}}, blocks = {{blocks}}, block = {{block}};
    constexpr int64_t depth = {{depth}}, channels = groups * depth;
    constexpr int64_t outputs = groups * blocks * block, most_columns = block;
"""
    + GEOMETRY
    + r"""
    const float* w = &{{kernel.index(W, ["0", "0", "0", "0", "0", "0"])}};
    constexpr bool shared = dilation_y == 1;  // rows of the kernel share lines of the image
    const int64_t line_stride = {{"width" if planar else "width * channels"}};

    // Whole rows of outputs, or parts of one row.
    constexpr int64_t window = kernel_width * depth;
    constexpr int64_t most_windows = {{most_bytes}} / (window * int64_t{sizeof(float)});
    const int64_t tile_columns =
        std::min(columns, std::clamp<int64_t>(most_windows / kernel_height, 8, {{most_pixels}}));
    int64_t tile_rows = 1;
    if (tile_columns == columns) {
        tile_rows = shared ? (most_windows / columns - reach) / stride_y
                           : most_windows / (columns * kernel_height);
        tile_rows = std::min({tile_rows, {{most_pixels}} / columns, rows});
{%- if threaded %}
        const int64_t parts = batch * rows * groups * blocks;
        tile_rows = std::min(tile_rows, parts / (2 * int64_t{omp_get_max_threads()}));
{%- endif %}
        tile_rows = std::max<int64_t>(tile_rows, 1);
    }
    const int64_t tiles_across = (columns + tile_columns - 1) / tile_columns;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows * tiles_across;

    // A row of the kernel meets one matrix: lines that lie a stride apart are stored together. If
    // the kernel leaves lines out, they are stored for each of its rows.
    constexpr int64_t phases = shared ? std::min(stride_y, reach + 1) : kernel_height;
    const int64_t line = tile_columns * window;
    const int64_t phase_lines = tile_rows + (shared ? reach / stride_y : 0);

    // A line of the image as the windows of outputs in a row.
    const auto lay_out = [&](const float* from, int64_t begin, int64_t end, float* to) {
        for (int64_t column = begin; column < end; column++, to += window) {
            const int64_t first = column * stride_x - left;
{%- if not planar %}
            if (groups == 1 && dilation_x == 1 && first >= 0 && first + kernel_width <= width) {
                std::memcpy(to, from + first * channels, window * sizeof(float));
                continue;
            }
{%- endif %}
            for (int64_t place = 0; place < kernel_width; place++) {
                const int64_t at = first + place * dilation_x;
                float* pixel = to + place * depth;
                if (at < 0 || at >= width) {
                    std::memset(pixel, 0, depth * sizeof(float));
                    continue;
                }
{%- if planar %}
                for (int64_t channel = 0; channel < depth; channel++) {
                    pixel[channel] = from[channel * (height * width) + at];
                }
{%- else %}
                std::memcpy(pixel, from + at * channels, depth * sizeof(float));
{%- endif %}
            }
        }
    };
"""
    + MULTIPLY
    + THREADS
    + r"""
    {
        const std::unique_ptr<float[]> lines(new float[phases * phase_lines * line]);
        int64_t laid_out = -1;
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [most_pixels, block]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for
{%- endif %}
        for (int64_t number = 0; number < batch * tiles * groups * blocks; number++) {
            const int64_t image = number / (tiles * groups * blocks);
            const int64_t tile = number / (groups * blocks) % tiles;
            const int64_t group = number / blocks % groups;
            const int64_t first = number % (groups * blocks) * block;
            const int64_t first_row = tile / tiles_across * tile_rows;
            const int64_t first_column = tile % tiles_across * tile_columns;
            const int64_t few_rows = std::min(tile_rows, rows - first_row);
            const int64_t few_columns = std::min(tile_columns, columns - first_column);
            const int64_t pixels = few_rows * few_columns;
            const int64_t begin = (image * rows + first_row) * columns + first_column;
            if (number / blocks != laid_out) {
                laid_out = number / blocks;
                const float* from = x + image * (height * width * channels) + group * depth;
                for (int64_t phase = 0; phase < phases; phase++) {
                    const int64_t needed = few_rows + (shared ? (reach - phase) / stride_y : 0);
                    for (int64_t step = 0; step < needed; step++) {
                        const int64_t at =
                            (first_row + step) * stride_y + phase * dilation_y - above;
                        float* to = lines.get() + (phase * phase_lines + step) * line;
                        if (at >= 0 && at < height) {
                            lay_out(
                                from + at * line_stride, first_column, first_column + few_columns,
                                to);
                        } else {
                            std::memset(to, 0, few_columns * window * sizeof(float));
                        }
                    }
                }
            }
"""
    + PRODUCTS
    + r"""
            const float* weights = w + first * (kernel_height * window);
            for (int64_t place = 0; place < kernel_height; place++) {
                const int64_t met = shared ? place % stride_y * phase_lines + place / stride_y
                                           : place * phase_lines;
                multiply(
                    pixels, block, window, lines.get() + met * line,
                    weights + place * (window * block), place > 0, products, stride);
            }
"""
    + FOLLOWING
    + r"""
        }
    }
}
"""
)

# Computes some rows at a time, which stay in the caches while all blocks of the weights pass by.
_BLOCKS = (
    r"""
    constexpr int64_t outputs = blocks * block, most_columns = block, tile = {{tile}};
    const int64_t rows = {{kernel.size(X, 0)}};
    // Parts of about the same size, so that threads have the same work, cut at multiples of 8 rows.
    static_assert(tile % 8 == 0);
    const int64_t eights = (rows + 7) / 8, parts = (rows + tile - 1) / tile;
"""
    + THREADS
    + r"""
    {
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [tile, block], product.get_dtype()) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for collapse(2)
{%- endif %}
        for (int64_t part = 0; part < parts; part++) {
            for (int64_t first = 0; first < outputs; first += block) {
                const int64_t begin = eights * part / parts * 8;
                const int64_t pixels = std::min(eights * (part + 1) / parts * 8, rows) - begin;
"""
    + PRODUCTS
    + r"""
                multiply_block(pixels, x + begin * depth, w + first * depth, products, stride);
"""
    + FOLLOWING
    + r"""
            }
        }
    }
}
"""
)

BLOCKED_PRODUCT = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t blocks = {{blocks}}, depth = {{depth}}, block = {{block}};
    const float* x = &{{kernel.index(X, ["0", "0"])}};
    const float* w = &{{kernel.index(W, ["0", "0", "0"])}};
"""
    + MULTIPLY
    + r"""
    const auto multiply_block = [&](int64_t rows, const float* a, const float* b, float* c,
                                    int64_t stride) {
        multiply(rows, block, depth, a, b, false, c, stride);
    };
"""
    + _BLOCKS
)

# aoti's native engine has kernels for some CPUs, which are imported weakly. Elsewhere, a part of
# the operands becomes floats for `brgemm`: sums of fewer than 512 products of bytes are exact.
NARROW_PRODUCT = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C" __attribute__((weak)) bool {{function}}(
    int64_t rows, int64_t columns, int64_t depth, const {{left}}* a, int64_t a_stride,
    const {{right}}* b, {{sum}}* c, int64_t c_stride);

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t blocks = {{blocks}}, depth = {{depth}}, block = {{block}};
    const {{left}}* x = &{{kernel.index(X, ["0", "0"])}};
    const {{right}}* w = &{{kernel.index(W, ["0", "0", "0", "0"])}};
"""
    + MULTIPLY
    + r"""
    const auto multiply_block = [&](int64_t rows, const {{left}}* a, const {{right}}* b,
                                    {{sum}}* c, int64_t stride) {
        if ({{function}} && {{function}}(rows, block, depth, a, depth, b, c, stride)) {
            return;
        }
        constexpr int64_t most = 128, step = {{step}};
        alignas(64) float left[{{tile}} * most], right[most * block], sums[{{tile}} * block];
        for (int64_t begin = 0; begin < depth; begin += most) {
            const int64_t some = std::min(most, depth - begin);
            for (int64_t row = 0; row < rows; row++) {
                for (int64_t place = 0; place < some; place++) {
                    left[row * some + place] = a[row * depth + begin + place];
                }
            }
            for (int64_t first = 0; first < some; first += step) {
                for (int64_t column = 0; column < block; column++) {
                    for (int64_t place = 0; place < step; place++) {
                        right[(first + place) * block + column] =
                            b[(begin + first) * block + column * step + place];
                    }
                }
            }
            multiply(rows, block, some, left, right, false, sums, block);
            for (int64_t row = 0; row < rows; row++) {
                for (int64_t column = 0; column < block; column++) {
                    const auto sum = static_cast<{{sum}}>(sums[row * block + column]);
                    {{sum}}& total = c[row * stride + column];
                    total = begin == 0 ? sum : total + sum;
                }
            }
        }
    };
"""
    + _BLOCKS
)
