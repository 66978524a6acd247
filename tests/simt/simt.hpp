/* Runs device code on the host, so that it can be tested and sanitised without a GPU.
 *
 * Every lane is a fiber. A block's lanes run one at a time, each until it waits for others: a warp operation is where
 * all lanes of a warp meet, a barrier where all of the block do. A warp runs as far as it can before the next one
 * begins, so that a missing barrier shows; forward and reverse order show different ones. Blocks run one after another.
 *
 * What a GPU would hang on, or leave undefined, ends the program with a message: a warp operation or a barrier that not
 * all lanes reach, at the same line, with none of them gone. Shared memory holds a poison when a block begins. */
#ifndef DRAFTMETA_SIMT_HPP
#define DRAFTMETA_SIMT_HPP

#include <cstdint>

namespace simt
{

constexpr unsigned max_threads = 1024;

/* ---- For the host; one thread at a time ---- */

struct Machine {
    unsigned warp = 32;   /* 32 or 64 */
    bool reverse = false; /* lanes and warps run from the last to the first */
};

using Body = void (*)(const void *parameter);

struct Work {
    Body body; /* of every lane */
    const void *parameter;
    char *shared, *shared_end; /* shared memory, aligned to 8 */
};

/* Runs grid blocks of block <= max_threads threads. */
void run(const Machine &machine, const Work &work, unsigned grid, unsigned block);

/* ---- For device code ---- */

struct Index {
    unsigned x;
};

extern Index threadIdx, blockIdx, blockDim, gridDim;

unsigned warp_size();
void barrier(unsigned line);

/* These are for full warps. The result is undefined below lane d. */
std::uint64_t shift_up(std::uint64_t value, int d, unsigned line);
std::uint64_t from_lane(std::uint64_t value, int lane, unsigned line);
std::uint64_t ballot(bool predicate, unsigned line);
std::uint64_t warp_sum(std::uint64_t value, unsigned line);

} // namespace simt

#endif
