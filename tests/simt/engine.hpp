/* What runs device code. A driver library is the core and one engine: the fibers (fibers.hpp), or the interpreter of
 * AMD machine code (tests/amdgpu). */
#ifndef DRAFTMETA_ENGINE_HPP
#define DRAFTMETA_ENGINE_HPP

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace engine
{

struct Kernel {
    std::string name;
    std::size_t parameter_bytes; /* of its only parameter */
    unsigned max_threads;        /* of a block */
    std::function<void(const void *parameter, unsigned grid, unsigned block)> run;
};

/* The kernels in a module's image; none if the engine cannot load it. */
std::vector<Kernel> load(const void *image);

/* A few words for a device's name. */
std::string describe();

} // namespace engine

#endif
