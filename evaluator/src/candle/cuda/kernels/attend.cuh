// Attention by tables (evaluator/src/candle/table.rs). A block takes a tile, of up to 64 queries of one piece, and a head; its
// warps take 16 queries each and go over the keys 64 at a time with a softmax that is corrected as larger scores come (Dao, 2023).
//
// Every query sees a key of the first 64, so that a row's largest score is a number from there on. What lies behind the keys of a
// tile is filled with zeros. A value that is not finite makes earlier rows of its tile not finite as well, since weights of zero
// are multiplied with it.
#pragma once

#include "primitives.cuh"

// Queries of a tile, and of one of its four warps.
constexpr uint32_t QUERIES = 64;
constexpr uint32_t OF_WARP = 16;

// Keys that are held at once.
constexpr uint32_t KEYS = 64;

struct Tile {
    uint32_t first, n, begin, visible;

    __device__ explicit Tile(const uint32_t *tiles)
        : first(tiles[4 * blockIdx.x]), n(tiles[4 * blockIdx.x + 1]), begin(tiles[4 * blockIdx.x + 2]),
          visible(tiles[4 * blockIdx.x + 3]) {}

    // Keys that any of its queries sees.
    __device__ uint32_t n_keys() const { return visible + n - 1; }
};

// Where the numbers of a head begin in the row that an entry names.
template <typename T>
__device__ inline const T *row_of(uint32_t entry, const T *own, const T *pool, size_t width, size_t at) {
    return (entry & OWN ? own : pool) + size_t(entry & ~OWN) * width + at;
}

// On the matrix units, for heads that are D wide: blocks of 128 threads.
template <typename T, uint32_t D>
__device__ inline void attend(T *out, const T *queries, const T *keys, const T *values, const T *pool_keys,
                              const T *pool_values, const uint32_t *entries, const uint32_t *tiles, uint32_t n_heads,
                              uint32_t n_kv_heads, float scale) {
    // Eight numbers more a row, so that the rows which lanes read together lie in different banks.
    constexpr uint32_t STRIDE = D + 8;
    constexpr uint32_t AT_ONCE = sizeof(Sixteen) / sizeof(T);
    constexpr uint32_t STEPS = D / 16, KEY_GROUPS = KEYS / 8, VALUE_GROUPS = D / 8;
    alignas(16) __shared__ T held_keys[KEYS * STRIDE];
    alignas(16) __shared__ T held_values[KEYS * STRIDE];
    shared_is_new(held_keys);
    shared_is_new(held_values);

    const Tile tile(tiles);
    const uint32_t head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t group = lane / 4, pair_of_lane = 2 * (lane % 4);
    const size_t width = size_t(n_heads) * D, kv_width = size_t(n_kv_heads) * D;
    const size_t at = size_t(head / (n_heads / n_kv_heads)) * D;
    // The two queries whose numbers a lane holds, counted from the tile's first.
    const uint32_t mine[2] = {warp * OF_WARP + group, warp * OF_WARP + group + 8};
    const bool is_idle = warp * OF_WARP >= tile.n;

    uint32_t query[STEPS][4] = {};
    for (uint32_t half = 0; half < 2; half++) {
        if (mine[half] >= tile.n) continue;
        const T *row = queries + size_t(tile.first + mine[half]) * width + size_t(head) * D;
#pragma unroll
        for (uint32_t step = 0; step < STEPS; step++) {
            const uint32_t column = 16 * step + pair_of_lane;
            query[step][half] = two(row + column);
            query[step][half + 2] = two(row + column + 8);
        }
    }

    // Powers of two are the card's own: e^x is 2^(x · log2 e).
    const float power = scale * 1.4426950408889634f;
    float seen[VALUE_GROUPS][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    for (uint32_t begin = 0; begin < tile.n_keys(); begin += KEYS) {
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < KEYS * D / AT_ONCE; i += blockDim.x) {
            const uint32_t key = i / (D / AT_ONCE), column = i % (D / AT_ONCE) * AT_ONCE;
            Sixteen of_key = {}, of_value = {};
            if (begin + key < tile.n_keys()) {
                const uint32_t entry = entries[size_t(tile.begin) + begin + key];
                of_key = *reinterpret_cast<const Sixteen *>(row_of(entry, keys, pool_keys, kv_width, at) + column);
                of_value = *reinterpret_cast<const Sixteen *>(row_of(entry, values, pool_values, kv_width, at) + column);
            }
            *reinterpret_cast<Sixteen *>(held_keys + key * STRIDE + column) = of_key;
            *reinterpret_cast<Sixteen *>(held_values + key * STRIDE + column) = of_value;
        }
        __syncthreads();
        if (is_idle) continue;

        float scores[KEY_GROUPS][4] = {};
#pragma unroll
        for (uint32_t step = 0; step < STEPS; step++) {
#pragma unroll
            for (uint32_t keys_of = 0; keys_of < KEY_GROUPS; keys_of++) {
                const T *row = held_keys + (8 * keys_of + group) * STRIDE + 16 * step + pair_of_lane;
                multiply<T>(scores[keys_of], query[step], two(row), two(row + 8));
            }
        }

        float larger[2] = {largest[0], largest[1]};
#pragma unroll
        for (uint32_t keys_of = 0; keys_of < KEY_GROUPS; keys_of++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                const uint32_t key = begin + 8 * keys_of + pair_of_lane + i % 2;
                if (key >= tile.visible + mine[i / 2]) scores[keys_of][i] = -INFINITY;
                larger[i / 2] = fmaxf(larger[i / 2], scores[keys_of][i]);
            }
        }
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            larger[half] = largest_of_four(larger[half]);
            const float factor = exp2f((largest[half] - larger[half]) * power);
            largest[half] = larger[half];
            sum[half] *= factor;
#pragma unroll
            for (uint32_t values_of = 0; values_of < VALUE_GROUPS; values_of++) {
                seen[values_of][2 * half] *= factor;
                seen[values_of][2 * half + 1] *= factor;
            }
        }
#pragma unroll
        for (uint32_t keys_of = 0; keys_of < KEY_GROUPS; keys_of++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                scores[keys_of][i] = exp2f((scores[keys_of][i] - largest[i / 2]) * power);
                sum[i / 2] += scores[keys_of][i];
            }
        }

        // A lane holds of the weights just what it has to hold of the second product's left side.
#pragma unroll
        for (uint32_t step = 0; step < KEYS / 16; step++) {
            const float(&first)[4] = scores[2 * step], (&second)[4] = scores[2 * step + 1];
            const uint32_t weights[4] = {
                pair(narrow<T>(first[0]), narrow<T>(first[1])), pair(narrow<T>(first[2]), narrow<T>(first[3])),
                pair(narrow<T>(second[0]), narrow<T>(second[1])), pair(narrow<T>(second[2]), narrow<T>(second[3]))};
            const T *rows = held_values + (16 * step + pair_of_lane) * STRIDE + group;
#pragma unroll
            for (uint32_t values_of = 0; values_of < VALUE_GROUPS; values_of++) {
                const T *row = rows + 8 * values_of;
                multiply<T>(seen[values_of], weights, pair(row[0], row[STRIDE]), pair(row[8 * STRIDE], row[9 * STRIDE]));
            }
        }
    }

    if (is_idle) return;
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        const float factor = 1 / sum_of_four(sum[half]);
        if (mine[half] >= tile.n) continue;
        T *row = out + size_t(tile.first + mine[half]) * width + size_t(head) * D;
#pragma unroll
        for (uint32_t values_of = 0; values_of < VALUE_GROUPS; values_of++) {
            row[8 * values_of + pair_of_lane] = narrow<T>(seen[values_of][2 * half] * factor);
            row[8 * values_of + pair_of_lane + 1] = narrow<T>(seen[values_of][2 * half + 1] * factor);
        }
    }
}

// Without the matrix units, in float32, for heads of any even width up to MAX_WIDTH: blocks of 256 threads, four a query, of which
// each has every fourth number of the query's. Slower: for float32, and for widths that the above is not compiled for.
constexpr uint32_t MAX_WIDTH = 256;
constexpr uint32_t FEW_KEYS = 16;
constexpr uint32_t OF_THREAD = MAX_WIDTH / 4;

template <typename T>
__device__ inline void attend_any(T *out, const T *queries, const T *keys, const T *values, const T *pool_keys,
                                  const T *pool_values, const uint32_t *entries, const uint32_t *tiles, uint32_t n_heads,
                                  uint32_t n_kv_heads, uint32_t dim, float scale) {
    __shared__ float held_keys[FEW_KEYS * MAX_WIDTH];
    __shared__ float held_values[FEW_KEYS * MAX_WIDTH];
    shared_is_new(held_keys);
    shared_is_new(held_values);

    const Tile tile(tiles);
    const uint32_t head = blockIdx.y, query = threadIdx.x / 4, side = threadIdx.x % 4;
    const uint32_t padded = (dim + 3) / 4 * 4;
    const size_t width = size_t(n_heads) * dim, kv_width = size_t(n_kv_heads) * dim;
    const size_t at = size_t(head / (n_heads / n_kv_heads)) * dim;
    const bool is_idle = query >= tile.n;
    const size_t row = size_t(tile.first + (is_idle ? 0 : query)) * width + size_t(head) * dim;

    float asked[OF_THREAD], seen[OF_THREAD];
#pragma unroll
    for (uint32_t i = 0; i < OF_THREAD; i++) {
        const uint32_t column = 4 * i + side;
        asked[i] = column < dim ? wide(queries[row + column]) : 0;
        seen[i] = 0;
    }
    float largest = -INFINITY, sum = 0;

    for (uint32_t begin = 0; begin < tile.n_keys(); begin += FEW_KEYS) {
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < FEW_KEYS * padded; i += blockDim.x) {
            const uint32_t key = i / padded, column = i % padded;
            float of_key = 0, of_value = 0;
            if (begin + key < tile.n_keys() && column < dim) {
                const uint32_t entry = entries[size_t(tile.begin) + begin + key];
                of_key = wide(row_of(entry, keys, pool_keys, kv_width, at)[column]);
                of_value = wide(row_of(entry, values, pool_values, kv_width, at)[column]);
            }
            held_keys[key * MAX_WIDTH + column] = of_key;
            held_values[key * MAX_WIDTH + column] = of_value;
        }
        __syncthreads();

        for (uint32_t key = 0; key < FEW_KEYS; key++) {
            float score = 0;
#pragma unroll
            for (uint32_t i = 0; i < OF_THREAD; i++) {
                if (4 * i < dim) score += asked[i] * held_keys[key * MAX_WIDTH + 4 * i + side];
            }
            score = sum_of_four(score) * scale;
            if (is_idle || begin + key >= tile.visible + query) continue;
            const float larger = fmaxf(largest, score);
            const float factor = expf(largest - larger), weight = expf(score - larger);
            largest = larger;
            sum = sum * factor + weight;
#pragma unroll
            for (uint32_t i = 0; i < OF_THREAD; i++) {
                if (4 * i < dim) seen[i] = seen[i] * factor + weight * held_values[key * MAX_WIDTH + 4 * i + side];
            }
        }
    }
    if (is_idle) return;
#pragma unroll
    for (uint32_t i = 0; i < OF_THREAD; i++) {
        const uint32_t column = 4 * i + side;
        if (column < dim) out[row + column] = narrow<T>(seen[i] / sum);
    }
}
