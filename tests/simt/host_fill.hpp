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

/* Of the vendor. */
extern const std::vector<Kernel> kernels;

/* A kernel from what it does with its parameter. */
template <class Launch, auto body> Kernel make_kernel(const char *name, unsigned max_threads)
{
    const simt::Body call = [](const void *parameter) { body(*static_cast<const Launch *>(parameter)); };
    return {name, sizeof(Launch), max_threads, call};
}

} // namespace host_fill

#endif
