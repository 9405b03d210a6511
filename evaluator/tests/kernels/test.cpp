// The kernels against plain loops in double precision, on random numbers; `evaluator/tests/kernels.rs` compiles and runs this.
// Every launch runs twice, its threads in both orders, and has to give the same bits; nothing but what it is to write may change.

#define FINELINE_EMULATED
#include "../../src/candle/cuda/kernels/kernels.cu"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

static uint64_t state = 20240401;

// Knuth's MMIX generator.
static double uniform() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return double(state >> 11) / double(uint64_t(1) << 53);
}

static uint32_t below(uint32_t n) { return uint32_t(uniform() * n); }

static double normal() { return std::sqrt(-2 * std::log(uniform() + 1e-300)) * std::cos(6.283185307179586 * uniform()); }

template <typename T> static std::vector<T> random_numbers(size_t n, double deviation = 1) {
    std::vector<T> numbers(n);
    for (T &number : numbers) number = narrow<T>(float(deviation * normal()));
    return numbers;
}

// Bytes that are no number in any type.
template <typename T> static std::vector<T> poisoned(size_t n) {
    std::vector<T> numbers(n);
    std::memset(static_cast<void *>(numbers.data()), 0xff, n * sizeof(T));
    return numbers;
}

template <typename T> static bool same(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

static void demand(bool holds, const std::string &what) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", what.c_str());
    std::exit(1);
}

// Launches a kernel that changes `out`, in both orders.
template <typename T>
static std::vector<T> launched(Dimensions grid, uint32_t n_threads, const std::vector<T> &out, const std::string &name,
                               const std::function<void(T *)> &kernel) {
    std::vector<T> results[2] = {out, out};
    static Block block;
    for (int order = 0; order < 2; order++) {
        blockDim.x = n_threads;
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                block.run(n_threads, [&] { kernel(results[order].data()); }, order == 1);
            }
        }
    }
    demand(same(results[0], results[1]), name + ": the order of threads changes what comes out");
    return results[0];
}

// What a kernel is off by, over the largest number that it could have been.
struct Worst {
    std::string name;
    double allowed, worst = 0;
    size_t n = 0;

    void compare(double ours, double expected, double size) {
        n++;
        const double error = std::fabs(ours - expected) / size;
        if (!(error <= allowed)) {
            std::fprintf(stderr, "%s: %g and not %g (of %g), beyond %g\n", name.c_str(), ours, expected, size, allowed);
            std::exit(1);
        }
        worst = std::max(worst, error);
    }

    ~Worst() {
        demand(n > 0, name + ": nothing was compared");
        std::printf("%s: %zu numbers, at most %.2g off (%.2g allowed)\n", name.c_str(), n, worst, allowed);
    }
};

template <typename T>
using Attend = void (*)(T *, const T *, const T *, const T *, const T *, const T *, const uint32_t *, const uint32_t *,
                        uint32_t, uint32_t, uint32_t, float);

// A piece of a batch: its rows, and what it looks at before them.
struct Piece {
    uint32_t n_rows, n_before;
};

// Tables and numbers of a batch, as evaluator/src/candle/table.rs makes them.
template <typename T> struct Batch {
    std::vector<uint32_t> tiles, entries;
    std::vector<T> queries, keys, values, pool_keys, pool_values;
    uint32_t n_rows = 0;

    Batch(const std::vector<Piece> &pieces, uint32_t n_heads, uint32_t n_kv_heads, uint32_t dim, double peak) {
        const uint32_t n_pool = 40;
        std::vector<std::vector<uint32_t>> lists;
        for (const Piece &piece : pieces) {
            const uint32_t begin = uint32_t(entries.size()), first = n_rows;
            // Rows of earlier pieces and of the pool, in any order.
            for (uint32_t i = 0; i < piece.n_before; i++) {
                entries.push_back(first > 0 && below(2) ? below(first) | OWN : below(n_pool));
            }
            for (uint32_t i = 0; i < piece.n_rows; i++) entries.push_back((first + i) | OWN);
            for (uint32_t row = 0; row < piece.n_rows; row += QUERIES) {
                const uint32_t n = std::min(QUERIES, piece.n_rows - row);
                tiles.insert(tiles.end(), {first + row, n, begin, piece.n_before + row + 1});
            }
            n_rows += piece.n_rows + 1; // a row that no tile covers
        }
        queries = random_numbers<T>(size_t(n_rows) * n_heads * dim, peak);
        keys = random_numbers<T>(size_t(n_rows) * n_kv_heads * dim);
        values = random_numbers<T>(size_t(n_rows) * n_kv_heads * dim);
        pool_keys = random_numbers<T>(size_t(n_pool) * n_kv_heads * dim);
        pool_values = random_numbers<T>(size_t(n_pool) * n_kv_heads * dim);
    }
};

template <typename T>
static std::vector<T> attended(const Batch<T> &batch, Attend<T> kernel, uint32_t n_threads, uint32_t n_heads,
                               uint32_t n_kv_heads, uint32_t dim, const std::string &name) {
    const Dimensions grid{uint32_t(batch.tiles.size() / 4), n_heads};
    const float scale = 1 / std::sqrt(float(dim));
    // As long as what is asked for, to the byte: a read behind it is another allocation's.
    return launched<T>(grid, n_threads, poisoned<T>(batch.queries.size()), name, [&](T *out) {
        kernel(out, batch.queries.data(), batch.keys.data(), batch.values.data(), batch.pool_keys.data(),
               batch.pool_values.data(), batch.entries.data(), batch.tiles.data(), n_heads, n_kv_heads, dim, scale);
    });
}

template <typename T>
static void check_attend(const Batch<T> &batch, Attend<T> kernel, uint32_t n_threads, uint32_t n_heads,
                         uint32_t n_kv_heads, uint32_t dim, Worst &worst) {
    const std::vector<T> out = attended(batch, kernel, n_threads, n_heads, n_kv_heads, dim, worst.name);
    std::vector<bool> is_covered(batch.n_rows, false);
    for (size_t tile = 0; tile < batch.tiles.size(); tile += 4) {
        for (uint32_t i = 0; i < batch.tiles[tile + 1]; i++) {
            const uint32_t row = batch.tiles[tile] + i, n_keys = batch.tiles[tile + 3] + i;
            is_covered[row] = true;
            for (uint32_t head = 0; head < n_heads; head++) {
                const size_t at = size_t(head / (n_heads / n_kv_heads)) * dim, kv_width = size_t(n_kv_heads) * dim;
                const auto number = [&](const std::vector<T> &own, const std::vector<T> &pool, uint32_t key, uint32_t d) {
                    const uint32_t entry = batch.entries[batch.tiles[tile + 2] + key];
                    return double(wide((entry & OWN ? own : pool)[size_t(entry & ~OWN) * kv_width + at + d]));
                };
                std::vector<double> weights(n_keys);
                for (uint32_t key = 0; key < n_keys; key++) {
                    for (uint32_t d = 0; d < dim; d++) {
                        const double query = wide(batch.queries[(size_t(row) * n_heads + head) * dim + d]);
                        weights[key] += query * number(batch.keys, batch.pool_keys, key, d);
                    }
                    weights[key] /= std::sqrt(double(dim));
                }
                const double largest = *std::max_element(weights.begin(), weights.end());
                double sum = 0, size = 0;
                for (double &weight : weights) sum += weight = std::exp(weight - largest);
                for (uint32_t d = 0; d < dim; d++) {
                    double seen = 0;
                    size = 0;
                    for (uint32_t key = 0; key < n_keys; key++) {
                        const double value = number(batch.values, batch.pool_values, key, d);
                        seen += weights[key] / sum * value;
                        size = std::max(size, std::fabs(value));
                    }
                    worst.compare(wide(out[(size_t(row) * n_heads + head) * dim + d]), seen, size);
                }
            }
        }
    }
    const std::vector<T> untouched = poisoned<T>(size_t(n_heads) * dim);
    for (uint32_t row = 0; row < batch.n_rows; row++) {
        const T *numbers = &out[size_t(row) * n_heads * dim];
        const bool is_same = std::memcmp(numbers, untouched.data(), untouched.size() * sizeof(T)) == 0;
        demand(is_covered[row] || is_same, worst.name + ": a row that no tile covers was written");
    }
}

// Tiles that are full, almost, hardly; lists that end with the keys that are held at once, and beside that.
static const std::vector<std::vector<Piece>> BATCHES = {
    {{1, 0}, {5, 0}, {16, 48}, {17, 47}, {1, 63}},
    {{64, 0}, {63, 1}, {150, 0}},
    {{1, 300}, {33, 95}, {2, 126}},
};

template <typename T>
static void attention(const std::string &name, Attend<T> kernel, uint32_t n_threads, const std::vector<uint32_t> &dims,
                      double allowed) {
    Worst worst{name, allowed};
    for (const uint32_t dim : dims) {
        const std::pair<uint32_t, uint32_t> heads[] = {{2, 2}, {4, 2}, {4, 1}};
        size_t turn = 0;
        for (const auto &pieces : BATCHES) {
            const auto [n_heads, n_kv_heads] = heads[turn++ % 3];
            // The second time almost all weight is on a few keys.
            for (const double peak : {1.0, 20.0}) {
                check_attend(Batch<T>(pieces, n_heads, n_kv_heads, dim, peak), kernel, n_threads, n_heads, n_kv_heads, dim, worst);
            }
        }
    }
    // What is no number is seen by those that look at it, and by no piece that does not.
    const uint32_t dim = dims.back();
    Batch<T> batch({{70, 0}, {3, 0}}, 1, 1, dim, 1);
    batch.keys[size_t(66) * dim + 1] = narrow<T>(NAN);
    const std::vector<T> out = attended(batch, kernel, n_threads, 1, 1, dim, name);
    for (uint32_t row = 0; row < 70; row++) {
        const float number = wide(out[size_t(row) * dim]);
        demand((number != number) == (row >= 66), name + ": a key that is no number, in row " + std::to_string(row));
    }
    const float other = wide(out[size_t(71) * dim]);
    demand(other == other, name + ": a key that is no number shows in another piece");
}

template <typename T>
static void rotations(const std::string &name, void (*kernel)(T *, const float *, const float *, uint32_t, uint32_t, uint32_t),
                      double allowed) {
    Worst worst{name, allowed};
    for (const auto &[n_rows, n_heads, dim] : std::vector<std::array<uint32_t, 3>>{{1, 1, 2}, {7, 3, 8}, {5, 4, 128}}) {
        const uint32_t width = n_heads * dim, half = dim / 2;
        // A tensor that begins within another.
        const std::vector<T> x = random_numbers<T>(size_t(n_rows + 2) * width);
        std::vector<float> cos, sin;
        for (uint32_t i = 0; i < n_rows * half; i++) {
            const double angle = 2000 * uniform();
            cos.push_back(float(std::cos(angle)));
            sin.push_back(float(std::sin(angle)));
        }
        const Dimensions grid{(n_rows * width / 2 + 255) / 256, 1};
        const uint32_t rows = n_rows;
        const std::vector<T> out = launched<T>(grid, 256, x, name, [&](T *out) {
            kernel(out + width, cos.data(), sin.data(), rows, width, 2 * half);
        });
        for (size_t i = 0; i < x.size(); i++) {
            const size_t row = i / width, d = i % width % dim;
            double expected = wide(x[i]);
            if (row >= 1 && row <= n_rows) {
                const size_t angle = (row - 1) * half + d % half;
                const double other = wide(x[d < half ? i + half : i - half]);
                expected = expected * cos[angle] + (d < half ? -other : other) * sin[angle];
            }
            worst.compare(wide(out[i]), expected, 4);
        }
    }
}

template <typename T>
static void gates(const std::string &name, void (*kernel)(T *, const T *, uint64_t), double allowed) {
    Worst worst{name, allowed};
    // Aligned and not, with and without a rest.
    for (const size_t offset : {size_t(0), size_t(1)}) {
        for (const size_t n : {size_t(1), size_t(8), size_t(4096), size_t(5003)}) {
            const std::vector<T> x = random_numbers<T>(n + offset + 1, 4), up = random_numbers<T>(n);
            const Dimensions grid{uint32_t((n + 2047) / 2048), 1};
            const std::vector<T> out =
                launched<T>(grid, 256, x, name, [&](T *out) { kernel(out + offset, up.data(), n); });
            for (size_t i = 0; i < x.size(); i++) {
                const double number = wide(x[i]);
                const bool is_outside = i < offset || i >= n + offset;
                const double gated = is_outside ? number : number / (1 + std::exp(-number)) * wide(up[i - offset]);
                worst.compare(wide(out[i]), gated, std::max(1.0, std::fabs(gated)));
            }
        }
    }
}

template <typename T>
static void keeps(const std::string &name,
                  void (*kernel)(T *, const T *, const uint32_t *, const uint32_t *, uint32_t)) {
    const uint32_t width = 300;
    const std::vector<T> rows = random_numbers<T>(10 * width), pool = random_numbers<T>(8 * width);
    const std::vector<uint32_t> from = {9, 0, 4}, to = {2, 7, 0};
    const std::vector<T> out = launched<T>({3, 1}, 256, pool, name, [&](T *out) {
        kernel(out, rows.data(), from.data(), to.data(), width);
    });
    std::vector<T> expected = pool;
    for (size_t i = 0; i < from.size(); i++) std::copy_n(&rows[from[i] * width], width, &expected[to[i] * width]);
    demand(same(out, expected), name + ": other rows than those that are kept");
    std::printf("%s: the rows that are kept\n", name.c_str());
}

template <typename T>
static void reads(const std::string &name, void (*kernel)(const T *, const uint32_t *, const uint32_t *, uint32_t, float *,
                                                          double *, uint32_t *)) {
    // Single precision's exponential is off by 2 units in the last place.
    Worst worst{name, 3e-7};
    for (const uint32_t vocabulary : {1u, 200u, 256u, 3001u}) {
        const uint32_t n_rows = 7;
        std::vector<T> logits = random_numbers<T>(size_t(n_rows) * vocabulary, 5);
        const auto row = [&](uint32_t i) { return &logits[size_t(i) * vocabulary]; };
        // The largest several times; no number in one row, one that is infinite in others.
        std::fill_n(row(1), vocabulary, narrow<T>(-30000));
        for (const uint32_t at : {vocabulary / 2, vocabulary - 1}) row(1)[at] = narrow<T>(3.0f);
        row(2)[vocabulary - 1] = narrow<T>(NAN);
        row(3)[0] = narrow<T>(INFINITY);
        if (vocabulary > 1) row(4)[0] = narrow<T>(-INFINITY);
        const std::vector<uint32_t> offsets = {0, 2, 2, 3, 4, 5, 6, 300};
        std::vector<uint32_t> tokens(300);
        for (uint32_t &token : tokens) token = below(vocabulary);

        std::vector<float> picked = poisoned<float>(300);
        std::vector<uint32_t> likeliest = poisoned<uint32_t>(n_rows);
        const std::vector<double> all = launched<double>({n_rows, 1}, 256, poisoned<double>(n_rows), name, [&](double *out) {
            kernel(logits.data(), tokens.data(), offsets.data(), vocabulary, picked.data(), out, likeliest.data());
        });
        for (uint32_t i = 0; i < n_rows; i++) {
            for (uint32_t j = offsets[i]; j < offsets[i + 1]; j++) {
                const float logit = wide(row(i)[tokens[j]]);
                demand(picked[j] == logit || logit != logit, name + ": another logit than the token's");
            }
            const bool is_broken = i == 2 || i == 3;
            demand(std::isfinite(all[i]) != is_broken, name + ": what is no number, in row " + std::to_string(i));
            if (is_broken) continue;
            uint32_t first = 0;
            for (uint32_t token = 0; token < vocabulary; token++) {
                if (wide(row(i)[token]) > wide(row(i)[first])) first = token;
            }
            demand(likeliest[i] == first, name + ": not the first of the largest, in row " + std::to_string(i));
            double sum = 0;
            for (uint32_t token = 0; token < vocabulary; token++) {
                sum += std::exp(double(wide(row(i)[token])) - double(wide(row(i)[first])));
            }
            worst.compare(all[i], wide(row(i)[first]) + std::log(sum), std::max(1.0, std::fabs(all[i])));
        }
    }
}

int main() {
    // Float32: a score of a hundred is off by a few of its last places, 1e-5, and its weight by as much of itself. Else the weights and
    // what comes out are rounded as well, to 11 bits and to 8.
    const double of_f32 = 3e-5, of_f16 = 1.5e-3, of_bf16 = 1.2e-2;
    const std::vector<uint32_t> any = {2, 6, 80, 256};
    attention<float>("attend_f32_any", attend_f32_any, 256, any, of_f32);
    attention<half_t>("attend_f16_any", attend_f16_any, 256, {8, 48}, of_f16);
    attention<bfloat_t>("attend_bf16_any", attend_bf16_any, 256, {8, 48}, of_bf16);
    attention<half_t>("attend_f16_64", attend_f16_64, 128, {64}, of_f16);
    attention<half_t>("attend_f16_96", attend_f16_96, 128, {96}, of_f16);
    attention<half_t>("attend_f16_128", attend_f16_128, 128, {128}, of_f16);
    attention<bfloat_t>("attend_bf16_64", attend_bf16_64, 128, {64}, of_bf16);
    attention<bfloat_t>("attend_bf16_96", attend_bf16_96, 128, {96}, of_bf16);
    attention<bfloat_t>("attend_bf16_128", attend_bf16_128, 128, {128}, of_bf16);
    rotations<float>("rotate_f32", rotate_f32, 1e-6);
    rotations<half_t>("rotate_f16", rotate_f16, 5e-4);
    rotations<bfloat_t>("rotate_bf16", rotate_bf16, 4e-3);
    gates<float>("gate_f32", gate_f32, 1e-6);
    gates<half_t>("gate_f16", gate_f16, 6e-4);
    gates<bfloat_t>("gate_bf16", gate_bf16, 5e-3);
    keeps<float>("keep_f32", keep_f32);
    keeps<half_t>("keep_f16", keep_f16);
    keeps<bfloat_t>("keep_bf16", keep_bf16);
    reads<float>("read_f32", read_f32);
    reads<half_t>("read_f16", read_f16);
    reads<bfloat_t>("read_bf16", read_bf16);
}
