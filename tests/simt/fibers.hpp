/* The engine of fibers, but for the kernels: those are of a vendor, host_fill.cpp's or hip_fill.cpp's. */
#ifndef DRAFTMETA_FIBERS_HPP
#define DRAFTMETA_FIBERS_HPP

#include <vector>

#include "engine.hpp"
#include "launch.h"
#include "simt.hpp"

namespace fibers
{

std::vector<engine::Kernel> kernels();

void run(simt::Body body, const void *parameter, unsigned grid, unsigned block);

/* A kernel from what it does with its parameter. */
template <class Launch, auto body> engine::Kernel make_kernel(const char *name)
{
    const simt::Body call = [](const void *parameter) { body(*static_cast<const Launch *>(parameter)); };
    return {name, sizeof(Launch), GPU_MAX_THREADS,
            [=](const void *parameter, unsigned grid, unsigned block) { run(call, parameter, grid, block); }};
}

} // namespace fibers

#endif
