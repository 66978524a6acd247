/* A kernel that does nothing, with the parameter size of the fill's: what a launch costs. */
#include "launch.h"

extern "C" __global__ void draftmeta_empty(const __grid_constant__ gpu_job)
{
}
