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

/* The benchmark's kernels that are not fills; they do nothing. */
static void add_others(std::vector<engine::Kernel> &kernels)
{
    const auto nothing = [](const void *, unsigned, unsigned) {};
    kernels.push_back({"draftmeta_empty", 8, GPU_MAX_THREADS, nothing});
    for (int i = 0; i < 10; i++)
        kernels.push_back({"draftmeta_foreign_" + std::to_string(i), 8, GPU_MAX_THREADS, nothing});
}

std::vector<engine::Kernel> engine::load(const void *image)
{
    std::vector<Kernel> kernels;
    if (*static_cast<const char *>(image)) {
        kernels = fibers::kernels();
        add_others(kernels);
    }
    return kernels;
}

std::string engine::describe()
{
    return "fibers, warp " + std::to_string(driver::settings().warp);
}
