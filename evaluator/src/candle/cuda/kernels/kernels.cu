// The kernels by the names that evaluator/src/candle/cuda calls them by: OPERATION_DTYPE, and of attention by the width of a head.
// All tensors lie whole and row by row. Blocks are of as many threads as each operation says; none takes dynamic shared memory.
//
//   attend_DTYPE_WIDTH   grid [tiles, heads]          128 threads
//   attend_DTYPE_any     grid [tiles, heads]          256 threads
//   rotate_DTYPE         grid [N · width / 2 / 256]   256 threads
//   gate_DTYPE           grid [numbers / 8 / 256]     256 threads
//   keep_DTYPE           grid [rows that are kept]    256 threads
//   read_DTYPE           grid [rows of logits]        256 threads

#include "attend.cuh"
#include "rows.cuh"

#define ATTEND(NAME, T, CALL)                                                                                              \
    extern "C" __global__ void NAME(T *out, const T *queries, const T *keys, const T *values, const T *pool_keys,          \
                                    const T *pool_values, const uint32_t *entries, const uint32_t *tiles,                  \
                                    uint32_t n_heads, uint32_t n_kv_heads, [[maybe_unused]] uint32_t dim, float scale) {   \
        CALL;                                                                                                              \
    }

#define ATTEND_ANY(NAME, T)                                                                                                \
    ATTEND(NAME, T,                                                                                                        \
           attend_any<T>(out, queries, keys, values, pool_keys, pool_values, entries, tiles, n_heads, n_kv_heads, dim, scale))

#define ATTEND_TILES(NAME, T, D)                                                                                           \
    ATTEND(NAME, T,                                                                                                        \
           (attend<T, D>(out, queries, keys, values, pool_keys, pool_values, entries, tiles, n_heads, n_kv_heads, scale)))

#define ROWS(DTYPE, T)                                                                                                     \
    extern "C" __global__ void rotate_##DTYPE(T *x, const float *cos, const float *sin, uint32_t n_rows, uint32_t width,   \
                                              uint32_t dim) {                                                              \
        rotate<T>(x, cos, sin, n_rows, width, dim);                                                                        \
    }                                                                                                                      \
    extern "C" __global__ void gate_##DTYPE(T *gates, const T *ups, uint64_t n) { gate<T>(gates, ups, n); }                \
    extern "C" __global__ void keep_##DTYPE(T *pool, const T *rows, const uint32_t *from, const uint32_t *to,              \
                                            uint32_t width) {                                                              \
        keep<T>(pool, rows, from, to, width);                                                                              \
    }                                                                                                                      \
    extern "C" __global__ void read_##DTYPE(const T *logits, const uint32_t *tokens, const uint32_t *offsets,              \
                                            uint32_t vocabulary, float *picked, double *all, uint32_t *likeliest) {        \
        read<T>(logits, tokens, offsets, vocabulary, picked, all, likeliest);                                              \
    }

ATTEND_ANY(attend_f32_any, float)
ATTEND_ANY(attend_f16_any, half_t)
ATTEND_ANY(attend_bf16_any, bfloat_t)
ATTEND_TILES(attend_f16_64, half_t, 64)
ATTEND_TILES(attend_f16_96, half_t, 96)
ATTEND_TILES(attend_f16_128, half_t, 128)
ATTEND_TILES(attend_bf16_64, bfloat_t, 64)
ATTEND_TILES(attend_bf16_96, bfloat_t, 96)
ATTEND_TILES(attend_bf16_128, bfloat_t, 128)
ROWS(f32, float)
ROWS(f16, half_t)
ROWS(bf16, bfloat_t)
