/* Kernels that are not draftmeta's, as an engine has them between two fills: together 640 KB of instructions, none of
 * which runs twice in a launch, and a little memory that is read and written. After all of them no multiprocessor's
 * cache of instructions holds a fill's any more.
 *
 * SPDX-License-Identifier: Apache-2.0 */

enum { STEPS = 1000, THREADS = 128 }; /* a step is four instructions of 16 bytes */

/* Any numbers, different for each kernel and step, known to the compiler. */
static __device__ constexpr unsigned noise(unsigned kernel, unsigned step)
{
    return ((kernel * STEPS + step + 1) * 2654435761u) ^ (step << 7);
}

/* Every thread of the grid changes a word of its own. Two chains of numbers that nobody can shorten. */
template <unsigned kernel> static __device__ __forceinline__ void foreign(unsigned *memory)
{
    unsigned *word = memory + blockIdx.x * THREADS + threadIdx.x;
    unsigned x = *word, y = x + kernel;
#pragma unroll
    for (unsigned step = 0; step < STEPS; step++) {
        x = (x ^ noise(kernel, step)) * (noise(kernel, step + STEPS) | 1);
        y = (y ^ noise(kernel, step + 2 * STEPS)) * (noise(kernel, step + 3 * STEPS) | 1);
    }
    *word = x ^ y;
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_0(unsigned *memory)
{
    foreign<0>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_1(unsigned *memory)
{
    foreign<1>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_2(unsigned *memory)
{
    foreign<2>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_3(unsigned *memory)
{
    foreign<3>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_4(unsigned *memory)
{
    foreign<4>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_5(unsigned *memory)
{
    foreign<5>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_6(unsigned *memory)
{
    foreign<6>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_7(unsigned *memory)
{
    foreign<7>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_8(unsigned *memory)
{
    foreign<8>(memory);
}

extern "C" __global__ void __launch_bounds__(THREADS) draftmeta_foreign_9(unsigned *memory)
{
    foreign<9>(memory);
}
