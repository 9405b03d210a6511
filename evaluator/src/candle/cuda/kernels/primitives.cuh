// What the kernels take from the card, each with a form for the CPU, where evaluator/tests/kernels runs them.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef FINELINE_EMULATED
#include "emulated.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
using half_t = __half;
using bfloat_t = __nv_bfloat16;

// Where the threads are simulated, memory that a block shares holds something else than it last did.
template <typename T, size_t N> __device__ inline void shared_is_new(T (&)[N]) {}
#endif

// Marks an entry of a piece's list that is a row of the batch; others are rows of the pool.
constexpr uint32_t OWN = 1u << 31;

// Numbers of a type to float32 and back, rounded to the nearest even one.
template <typename T> __device__ inline float wide(T x);
template <typename T> __device__ inline T narrow(float x);

template <> __device__ inline float wide(float x) { return x; }
template <> __device__ inline float narrow(float x) { return x; }
template <> __device__ inline float wide(half_t x) { return __half2float(x); }
template <> __device__ inline half_t narrow(float x) { return __float2half_rn(x); }
template <> __device__ inline float wide(bfloat_t x) { return __bfloat162float(x); }
template <> __device__ inline bfloat_t narrow(float x) { return __float2bfloat16_rn(x); }

// Sixteen bytes that are read or written at once.
struct alignas(16) Sixteen {
    uint32_t words[4];
};

// Two numbers of 16 bits as a register of the matrix units, the first in the lower half.
template <typename T> __device__ inline uint32_t pair(T first, T second) {
    static_assert(sizeof(T) == 2, "numbers of 16 bits");
    union {
        T numbers[2];
        uint32_t word;
    } both;
    both.numbers[0] = first;
    both.numbers[1] = second;
    return both.word;
}

// The same of two numbers that stand together, the first at an even place.
template <typename T> __device__ inline uint32_t two(const T *numbers) {
    static_assert(sizeof(T) == 2, "numbers of 16 bits");
    return *reinterpret_cast<const uint32_t *>(numbers);
}

#ifndef FINELINE_EMULATED
// c += a · b on the matrix units, for a [16, 16], b [16, 8], c [16, 8] held by the 32 lanes of a warp as PTX's
// mma.m16n8k16 has them: with g = lane / 4 and t = lane % 4, a is rows g and g + 8 by columns 2t and 2t + 8 (and the one
// behind each), b is rows 2t and 2t + 8 (and the one behind each) of column g, c is rows g and g + 8 by columns 2t, 2t + 1.
template <typename T>
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ inline void multiply<half_t>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void multiply<bfloat_t>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

// The largest and the sum over four lanes that stand together.
__device__ inline float largest_of_four(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

__device__ inline float sum_of_four(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}
