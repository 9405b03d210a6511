// A card on the CPU: what the kernels' sources take from CUDA. The threads of a block are contexts of one thread of the system, of
// which each runs until it waits for others; what one has not been made to wait for, it finds undone in one order or the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

#define __device__
#define __global__
#define __shared__ static

struct Dimensions {
    uint32_t x = 1, y = 1;
};

inline Dimensions blockIdx, threadIdx, blockDim;

[[noreturn]] inline void fail(const char *what) {
    std::fprintf(stderr, "block (%u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, threadIdx.x, what);
    std::exit(1);
}

// Numbers of 16 bits, rounded to the nearest, to the even one of two.
struct half_t {
    _Float16 number;
};

struct bfloat_t {
    uint16_t bits;
};

inline float __half2float(half_t x) { return float(x.number); }
inline half_t __float2half_rn(float x) { return {_Float16(x)}; }

inline float __bfloat162float(bfloat_t x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

inline bfloat_t __float2bfloat16_rn(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return {0x7fff};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

constexpr uint32_t LANES = 32;

// What the lanes of a warp give each other: two times, since one lane may be at the next exchange while others read the last.
struct Exchange {
    uint32_t words[2][LANES][6];
};

class Block {
  public:
    static constexpr size_t STACK = 256 * 1024;

    enum class State { Ready, AtBarrier, AtExchange, Ended };

    // A context is entered once; from then on jumps do, which leave the system alone.
    struct Thread {
        ucontext_t context;
        jmp_buf place;
        bool has_begun = false;
        State state = State::Ready;
        uint32_t n_exchanges = 0;
        std::vector<char> stack = std::vector<char>(STACK);
    };

    inline static Block *current = nullptr;
    std::vector<Thread> threads;
    std::vector<Exchange> exchanges;
    std::set<const void *> shared;
    ucontext_t origin;
    jmp_buf scheduler;
    const std::function<void()> *kernel = nullptr;

    // Runs a block to its end, its threads from the first to the last each time, or from the last to the first.
    void run(uint32_t n_threads, const std::function<void()> &called, bool is_descending) {
        current = this;
        kernel = &called;
        shared.clear();
        threads.resize(n_threads);
        exchanges.resize((n_threads + LANES - 1) / LANES);
        for (Thread &thread : threads) {
            thread.state = State::Ready;
            thread.n_exchanges = 0;
            thread.has_begun = false;
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.data();
            thread.context.uc_stack.ss_size = thread.stack.size();
            thread.context.uc_link = nullptr;
            makecontext(&thread.context, begin, 0);
        }
        for (;;) {
            bool has_run = false;
            for (uint32_t i = 0; i < n_threads; i++) {
                const uint32_t number = is_descending ? n_threads - 1 - i : i;
                if (threads[number].state != State::Ready) continue;
                has_run = true;
                threadIdx.x = number;
                go_on(threads[number]);
            }
            if (!has_run && !release()) break;
        }
        for (Thread &thread : threads) {
            if (thread.state != State::Ended) fail("waits for threads that have ended or wait elsewhere");
        }
    }

    // Gives the other threads their turn until all that it waits for have come.
    void wait(State at) {
        const uint32_t number = threadIdx.x;
        threads[number].state = at;
        if (_setjmp(threads[number].place) == 0) _longjmp(scheduler, 1);
    }

  private:
    static void begin() {
        (*current->kernel)();
        current->threads[threadIdx.x].state = State::Ended;
        _longjmp(current->scheduler, 1);
    }

    void go_on(Thread &thread) {
        if (_setjmp(scheduler) != 0) return;
        if (thread.has_begun) _longjmp(thread.place, 1);
        thread.has_begun = true;
        swapcontext(&origin, &thread.context);
    }

    // Lets those go on that have all come to where they wait for each other.
    bool release() {
        bool has_released = false;
        for (size_t first = 0; first < threads.size(); first += LANES) {
            const size_t end = std::min(first + LANES, threads.size());
            bool is_whole = end == first + LANES;
            for (size_t i = first; i < end; i++) is_whole &= threads[i].state == State::AtExchange;
            for (size_t i = first; is_whole && i < end; i++) threads[i].state = State::Ready;
            has_released |= is_whole;
        }
        if (has_released) return true;
        size_t n_waiting = 0, n_ended = 0;
        for (const Thread &thread : threads) {
            n_waiting += thread.state == State::AtBarrier;
            n_ended += thread.state == State::Ended;
        }
        if (n_waiting == 0 || n_waiting + n_ended != threads.size()) return false;
        for (Thread &thread : threads) {
            if (thread.state == State::AtBarrier) thread.state = State::Ready;
        }
        return true;
    }
};

inline void __syncthreads() { Block::current->wait(Block::State::AtBarrier); }

// Memory that a block shares holds nothing that is a number when the block begins.
template <typename T, size_t N> inline void shared_is_new(T (&numbers)[N]) {
    if (Block::current->shared.insert(numbers).second) std::memset(numbers, 0xff, sizeof numbers);
}

// Gives the other lanes of the warp so many words; what they gave.
inline const uint32_t (*exchanged(const uint32_t *words, size_t n))[6] {
    Block &block = *Block::current;
    const uint32_t thread = threadIdx.x, round = block.threads[thread].n_exchanges++ % 2;
    Exchange &exchange = block.exchanges[thread / LANES];
    std::memcpy(exchange.words[round][thread % LANES], words, n * sizeof *words);
    block.wait(Block::State::AtExchange);
    return exchange.words[round];
}

inline float __shfl_xor_sync(uint32_t mask, float x, uint32_t lanes) {
    if (mask != 0xffffffff) fail("an exchange that leaves lanes out");
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    const uint32_t other = exchanged(&word, 1)[threadIdx.x % LANES ^ lanes][0];
    std::memcpy(&x, &other, sizeof x);
    return x;
}

template <typename T> float wide(T x);

// PTX's mma.m16n8k16, as the manual says which lane has which numbers (Parallel Thread Execution ISA, "Matrix Fragments for
// mma.m16n8k16"), with sums in double precision.
template <typename T> inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const uint32_t(*given)[6] = exchanged(mine, 6);
    const auto number = [](uint32_t word, uint32_t which) {
        T numbers[2];
        std::memcpy(numbers, &word, sizeof word);
        return double(wide(numbers[which]));
    };
    const uint32_t lane = threadIdx.x % LANES;
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + i % 2;
        double sum = c[i];
        for (uint32_t k = 0; k < 16; k++) {
            const uint32_t of_a = row % 8 * 4 + k % 8 / 2, register_of_a = (row < 8 ? 0 : 1) + (k < 8 ? 0 : 2);
            const uint32_t of_b = column * 4 + k % 8 / 2, register_of_b = k < 8 ? 4 : 5;
            sum += number(given[of_a][register_of_a], k % 2) * number(given[of_b][register_of_b], k % 2);
        }
        c[i] = float(sum);
    }
}
