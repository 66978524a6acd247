/* The fill's device code, compiled for the host. */
#ifndef DRAFTMETA_HOST_FILL_HPP
#define DRAFTMETA_HOST_FILL_HPP

#include <cstddef>
#include <vector>

#include "simt.hpp"

namespace host_fill
{

/* What a driver knows of a kernel. */
struct Kernel {
    const char *name;
    std::size_t parameter_bytes; /* of its only parameter */
    unsigned max_threads;
    simt::Body body;
};

extern const std::vector<Kernel> kernels;

void run(const simt::Machine &machine, const Kernel &kernel, const void *parameter, unsigned grid, unsigned block);

} // namespace host_fill

#endif
