/* The engine of fibers. */
#include "fibers.hpp"

#include "state.hpp"

/* The bounds of shared memory, a section, from the linker. */
extern "C" __attribute__((visibility("hidden"))) char __start_simt_shared[], __stop_simt_shared[];

void fibers::run(simt::Body body, const void *parameter, unsigned grid, unsigned block)
{
    const simt::Machine machine = {driver::settings().warp, driver::settings().reverse};
    simt::run(machine, {body, parameter, __start_simt_shared, __stop_simt_shared}, grid, block);
}

std::vector<engine::Kernel> engine::load(const void *image)
{
    return *static_cast<const char *>(image) ? fibers::kernels() : std::vector<Kernel>();
}

std::string engine::describe()
{
    return "fibers, warp " + std::to_string(driver::settings().warp);
}
