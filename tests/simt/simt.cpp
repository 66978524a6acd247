/* Blocks, warps and lanes, and where lanes wait for each other. */
#include "simt.hpp"

#include <cstdio>
#include <cstdlib>

#include "fiber.hpp"

namespace simt
{

Index threadIdx, blockIdx, blockDim, gridDim;

namespace
{

enum class At { ready, exit, barrier, shift_up, from_lane, ballot, warp_sum };

const char *const names[] = {"running",       "its end",    "__syncthreads", "gpu_shift_up",
                             "gpu_from_lane", "gpu_ballot", "gpu_warp_sum"};

constexpr std::uint64_t shared_poison = 0xa5a5a5a5a5a5a5a5;
constexpr std::uint64_t undefined = 0xbad1a9e5bad1a9e5; /* what a shuffle gives where it gives nothing */

struct Lane {
    Fiber fiber;
    At at = At::exit;
    unsigned line = 0;           /* of the source, where it waits */
    std::uint64_t offered = 0;   /* to the warp operation where it waits */
    std::uint64_t published = 0; /* by the last warp operation */
};

Machine machine;
Work work;
Lane lanes[max_threads];

[[noreturn]] void kernel_bug(const char *what, unsigned a, unsigned b)
{
    std::fprintf(
        stderr,
        "simt: kernel bug in block %u of %u: %s: thread %u of %u is at %s (line %u), thread %u at %s (line %u)\n",
        blockIdx.x, gridDim.x, what, a, blockDim.x, names[static_cast<int>(lanes[a].at)], lanes[a].line, b,
        names[static_cast<int>(lanes[b].at)], lanes[b].line);
    std::abort();
}

bool is_at_warp_operation(const Lane &lane)
{
    return lane.at >= At::shift_up;
}

bool wait_for_the_same(unsigned a, unsigned b)
{
    return lanes[a].at == lanes[b].at && lanes[a].line == lanes[b].line;
}

/* ---- Running ---- */

void lane_main()
{
    work.body(work.parameter);
    lanes[threadIdx.x].at = At::exit;
    lanes[threadIdx.x].line = 0;
}

void resume(unsigned thread)
{
    threadIdx.x = thread;
    lanes[thread].fiber.resume();
}

/* Lets go the warp from thread first, if all its lanes are at one warp operation; false if none is at any. */
bool meet_warp(unsigned first, unsigned end)
{
    unsigned waiting = end;
    for (unsigned i = first; i < end; i++)
        if (is_at_warp_operation(lanes[i]))
            waiting = i;
    if (waiting == end)
        return false;
    if (end - first < machine.warp)
        kernel_bug("the warp is not full", waiting, waiting);
    for (unsigned i = first; i < end; i++) {
        if (!wait_for_the_same(i, waiting))
            kernel_bug("a warp's lanes wait for each other at different places", i, waiting);
        lanes[i].published = lanes[i].offered;
    }
    for (unsigned i = first; i < end; i++)
        lanes[i].at = At::ready;
    return true;
}

/* Until every lane of the warp is at a barrier or has ended. */
void run_warp(unsigned first)
{
    const unsigned end = first + machine.warp < blockDim.x ? first + machine.warp : blockDim.x;
    do {
        for (unsigned i = first; i < end; i++)
            resume(machine.reverse ? end - 1 - (i - first) : i);
    } while (meet_warp(first, end));
}

/* Lets go the block, which is all at one barrier; false if it has ended. */
bool meet_block()
{
    for (unsigned i = 1; i < blockDim.x; i++)
        if (!wait_for_the_same(i, 0))
            kernel_bug("a block's threads wait for each other at different places", 0, i);
    return lanes[0].at == At::barrier;
}

/* Not by memset, which would object to the sanitizer's own bytes between the arrays. */
__attribute__((no_sanitize("address"))) void poison_shared()
{
    char *byte = work.shared;
    for (; work.shared_end - byte >= 8; byte += 8)
        *reinterpret_cast<std::uint64_t *>(byte) = shared_poison;
    for (; byte != work.shared_end; byte++)
        *byte = static_cast<char>(shared_poison);
}

void run_block()
{
    const unsigned warps = (blockDim.x + machine.warp - 1) / machine.warp;
    poison_shared();
    for (unsigned i = 0; i < blockDim.x; i++)
        lanes[i].fiber.start(lane_main);
    do {
        for (unsigned w = 0; w < warps; w++)
            run_warp((machine.reverse ? warps - 1 - w : w) * machine.warp);
    } while (meet_block());
}

/* ---- Waiting ---- */

void wait(At at, unsigned line)
{
    Lane &lane = lanes[threadIdx.x];
    lane.at = at;
    lane.line = line;
    Fiber::suspend();
}

void exchange(At at, unsigned line, std::uint64_t value)
{
    lanes[threadIdx.x].offered = value;
    wait(at, line);
}

std::uint64_t published_by(unsigned lane)
{
    return lanes[threadIdx.x / machine.warp * machine.warp + lane].published;
}

} // namespace

void run(const Machine &the_machine, const Work &the_work, unsigned grid, unsigned block)
{
    machine = the_machine;
    work = the_work;
    gridDim.x = grid;
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++)
        run_block();
}

unsigned warp_size()
{
    return machine.warp;
}

void barrier(unsigned line)
{
    wait(At::barrier, line);
}

std::uint64_t shift_up(std::uint64_t value, int d, unsigned line)
{
    const unsigned lane = threadIdx.x % machine.warp, distance = static_cast<unsigned>(d);
    exchange(At::shift_up, line, value);
    return lane >= distance ? published_by(lane - distance) : undefined;
}

std::uint64_t from_lane(std::uint64_t value, int lane, unsigned line)
{
    exchange(At::from_lane, line, value);
    return static_cast<unsigned>(lane) < machine.warp ? published_by(static_cast<unsigned>(lane)) : undefined;
}

std::uint64_t ballot(bool predicate, unsigned line)
{
    std::uint64_t answer = 0;
    exchange(At::ballot, line, predicate);
    for (unsigned lane = 0; lane < machine.warp; lane++)
        answer |= published_by(lane) << lane;
    return answer;
}

std::uint64_t warp_sum(std::uint64_t value, unsigned line)
{
    std::uint64_t sum = 0;
    exchange(At::warp_sum, line, value);
    for (unsigned lane = 0; lane < machine.warp; lane++)
        sum += published_by(lane);
    return sum;
}

} // namespace simt
