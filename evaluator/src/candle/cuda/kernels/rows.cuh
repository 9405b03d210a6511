// What goes over rows or single numbers: rotary embeddings, gates, keys and values that are kept, and what logits say.
#pragma once

#include "primitives.cuh"

// Turns the pairs (i, i + D / 2) of each head in place: x [N, heads · D], cos and sin [N, D / 2] (Su et al., 2021). A thread a pair.
template <typename T>
__device__ inline void rotate(T *x, const float *cos, const float *sin, uint32_t n_rows, uint32_t width, uint32_t dim) {
    const size_t number = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const uint32_t half = dim / 2, pairs = width / 2;
    const size_t row = number / pairs;
    if (row >= n_rows) return;
    const uint32_t of_row = uint32_t(number % pairs), head = of_row / half, i = of_row % half;
    T *first = x + row * width + size_t(head) * dim + i, *second = first + half;
    const float c = cos[row * half + i], s = sin[row * half + i];
    const float a = wide(*first), b = wide(*second);
    *first = narrow<T>(a * c - b * s);
    *second = narrow<T>(b * c + a * s);
}

// silu(gate) · up in place of the gate, silu(x) = x / (1 + e^-x) (Shazeer, 2020). A thread has eight numbers.
template <typename T> __device__ inline void gate(T *gates, const T *ups, uint64_t n) {
    constexpr uint32_t OF_THREAD = 8;
    union Numbers {
        Sixteen sixteen[OF_THREAD * sizeof(T) / sizeof(Sixteen)];
        T numbers[OF_THREAD];
        __device__ Numbers() {}
    };
    const uint64_t begin = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * OF_THREAD;
    const auto gated = [](T of_gate, T of_up) {
        const float x = wide(of_gate);
        return narrow<T>(x / (1 + expf(-x)) * wide(of_up));
    };
    const bool is_aligned = (uintptr_t(gates) | uintptr_t(ups)) % sizeof(Sixteen) == 0;
    if (is_aligned && begin + OF_THREAD <= n) {
        Numbers mine, up;
        for (uint32_t i = 0; i < sizeof(Numbers) / sizeof(Sixteen); i++) {
            mine.sixteen[i] = reinterpret_cast<const Sixteen *>(gates + begin)[i];
            up.sixteen[i] = reinterpret_cast<const Sixteen *>(ups + begin)[i];
        }
        for (uint32_t i = 0; i < OF_THREAD; i++) mine.numbers[i] = gated(mine.numbers[i], up.numbers[i]);
        for (uint32_t i = 0; i < sizeof(Numbers) / sizeof(Sixteen); i++) {
            reinterpret_cast<Sixteen *>(gates + begin)[i] = mine.sixteen[i];
        }
        return;
    }
    for (uint64_t i = begin; i < n && i < begin + OF_THREAD; i++) gates[i] = gated(gates[i], ups[i]);
}

// Row to[i] of the pool becomes row from[i] of the batch's, [width] each. A block a row.
template <typename T>
__device__ inline void keep(T *pool, const T *rows, const uint32_t *from, const uint32_t *to, uint32_t width) {
    const T *row = rows + size_t(from[blockIdx.x]) * width;
    T *kept = pool + size_t(to[blockIdx.x]) * width;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) kept[i] = row[i];
}

// What a row of logits [V] says: its logits of the tokens that it is asked for, the logarithm of the sum of all its exponentials,
// and the first of its largest. A block of 256 threads a row; the sum is in double precision and always in the same order.
// Not a number where one of the row is none, or infinite.
template <typename T>
__device__ inline void read(const T *logits, const uint32_t *tokens, const uint32_t *offsets, uint32_t vocabulary,
                            float *picked, double *all, uint32_t *likeliest) {
    constexpr uint32_t THREADS = 256;
    __shared__ float largest_of[THREADS];
    __shared__ uint32_t where_of[THREADS];
    __shared__ double sum_of[THREADS];
    shared_is_new(largest_of);
    shared_is_new(where_of);
    shared_is_new(sum_of);

    const uint32_t mine = threadIdx.x;
    const T *row = logits + size_t(blockIdx.x) * vocabulary;
    float largest = -INFINITY;
    uint32_t where = 0xffffffff;
    for (uint32_t i = mine; i < vocabulary; i += THREADS) {
        const float logit = wide(row[i]);
        if (logit > largest || where == 0xffffffff) {
            largest = logit == logit ? logit : largest;
            where = i;
        }
    }
    largest_of[mine] = largest;
    where_of[mine] = where;
    for (uint32_t reach = THREADS / 2; reach > 0; reach /= 2) {
        __syncthreads();
        if (mine >= reach) continue;
        const float other = largest_of[mine + reach];
        const bool is_first = other == largest_of[mine] && where_of[mine + reach] < where_of[mine];
        if (other > largest_of[mine] || is_first) {
            largest_of[mine] = other;
            where_of[mine] = where_of[mine + reach];
        }
    }
    __syncthreads();
    largest = largest_of[0];

    double sum = 0;
    for (uint32_t i = mine; i < vocabulary; i += THREADS) sum += double(expf(wide(row[i]) - largest));
    sum_of[mine] = sum;
    for (uint32_t reach = THREADS / 2; reach > 0; reach /= 2) {
        __syncthreads();
        if (mine < reach) sum_of[mine] += sum_of[mine + reach];
    }
    if (mine == 0) {
        all[blockIdx.x] = double(largest) + log(sum_of[0]);
        likeliest[blockIdx.x] = where_of[0];
    }
    for (uint32_t i = offsets[blockIdx.x] + mine; i < offsets[blockIdx.x + 1]; i += THREADS) {
        picked[i] = wide(row[tokens[i]]);
    }
}
