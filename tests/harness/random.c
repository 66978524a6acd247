/* Seeded random numbers: splitmix64. */
#include "harness.h"

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

rng rng_seeded(uint64_t seed, uint64_t stream)
{
    return (rng){mix(mix(seed + 1) + stream)};
}

uint64_t rng_next(rng *r)
{
    r->state += 0x9e3779b97f4a7c15u;
    return mix(r->state);
}

int64_t rng_between(rng *r, int64_t lo, int64_t hi)
{
    uint64_t span = (uint64_t)hi - (uint64_t)lo + 1; /* 0: all of them */
    uint64_t x = rng_next(r);
    return (int64_t)((uint64_t)lo + (span ? x % span : x));
}

bool rng_chance(rng *r, int percent)
{
    return rng_between(r, 0, 99) < percent;
}
