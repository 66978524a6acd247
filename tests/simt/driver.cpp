/* Devices, contexts, device code and memory. */
#include "driver.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "state.hpp"

namespace driver
{

namespace
{

constexpr std::size_t alignment = 256, device_bytes = std::size_t(32) << 30;

struct Context {
    int retained = 0;
};

/* A function's handle is its address here. */
struct Module {
    int device;
    std::vector<engine::Kernel> functions;
};

bool initialized;
std::vector<Context> contexts(static_cast<std::size_t>(settings().devices));
Pool<Module> modules;
/* Bytes, by address. Never destroyed, so that what the library lost is no leak of the driver's. */
auto &memory = *new std::map<std::uintptr_t, std::size_t>;
thread_local int current = vendor.has_contexts ? -1 : 0;

int check_ordinal(int ordinal)
{
    if (!initialized)
        return not_initialized;
    return ordinal >= 0 && ordinal < settings().devices ? success : invalid_device;
}

Context &context_of(int device)
{
    return contexts[static_cast<std::size_t>(device)];
}

} // namespace

/* ---- Devices ---- */

int init(unsigned flags)
{
    if (flags)
        return invalid_value;
    initialized = settings().devices > 0;
    return initialized ? success : no_device;
}

int device_count(int *count)
{
    *count = settings().devices;
    return initialized ? success : not_initialized;
}

int device_get(int *device, int ordinal)
{
    *device = ordinal;
    return check_ordinal(ordinal);
}

int device_name(char *name, int size, int device)
{
    const int error = check_ordinal(device);
    if (!error)
        std::snprintf(name, static_cast<std::size_t>(size), "%s, %s, device %d", engine::describe().c_str(),
                      settings().reverse ? "reverse" : "forward", device);
    return error;
}

int device_attribute(int *value, int attribute, int device)
{
    const int error = check_ordinal(device);
    if (error)
        return error;
    *value = settings().multiprocessors;
    return attribute == vendor.multiprocessors_attribute ? success : invalid_value;
}

/* ---- Contexts, or a current ordinal ---- */

int current_device(int *device)
{
    if (!initialized)
        return not_initialized;
    *device = current;
    return current >= 0 && (!vendor.has_contexts || context_of(current).retained) ? success : invalid_context;
}

int context_retain(Handle *context, int device)
{
    const int error = check_ordinal(device);
    if (error)
        return error;
    context_of(device).retained++;
    *context = &context_of(device);
    return success;
}

int context_release(int device)
{
    const int error = check_ordinal(device);
    if (error)
        return error;
    if (!context_of(device).retained)
        return invalid_context;
    context_of(device).retained--;
    return success;
}

int context_get(Handle *context)
{
    if (!initialized)
        return not_initialized;
    *context = current < 0 ? nullptr : &context_of(current);
    return success;
}

int context_set(Handle context)
{
    if (!initialized)
        return not_initialized;
    for (int device = 0; device < settings().devices; device++)
        if (context == &context_of(device) && context_of(device).retained) {
            current = device;
            return success;
        }
    if (context)
        return invalid_context;
    current = -1;
    return success;
}

int ordinal_get(int *ordinal)
{
    *ordinal = current;
    return initialized ? success : not_initialized;
}

int ordinal_set(int ordinal)
{
    const int error = check_ordinal(ordinal);
    if (!error)
        current = ordinal;
    return error;
}

Live live_contexts()
{
    int count = 0;
    for (const Context &context : contexts)
        count += context.retained;
    return {"context(s)", count};
}

/* ---- Device code ---- */

int module_load(Handle *module, const void *image)
{
    int device;
    int error = current_device(&device);
    if (!error)
        error = check_no_captures();
    if (error)
        return error;
    auto loaded = std::make_unique<Module>(Module{device, image ? engine::load(image) : std::vector<engine::Kernel>()});
    if (loaded->functions.empty())
        return invalid_image;
    *module = modules.add(std::move(loaded));
    return success;
}

int module_unload(Handle module)
{
    int device;
    int error = current_device(&device);
    if (!error)
        error = check_no_captures();
    return error ? error : modules.destroy(module);
}

int module_function(Handle *function, Handle module, const char *name)
{
    Module *found = modules.find(module);
    if (!found)
        return invalid_handle;
    for (engine::Kernel &kernel : found->functions)
        if (kernel.name == name) {
            *function = &kernel;
            return success;
        }
    return not_found;
}

const engine::Kernel *kernel_of(Handle function, int device)
{
    for (const auto &[handle, module] : modules)
        for (const engine::Kernel &kernel : module->functions)
            if (function == &kernel && module->device == device)
                return &kernel;
    return nullptr;
}

Live live_modules()
{
    return {"module(s)", modules.count()};
}

/* ---- Memory ---- */

namespace
{

/* The allocation that holds ptr; memory.end() if none does. */
std::map<std::uintptr_t, std::size_t>::iterator allocation_of(const void *ptr)
{
    const auto address = reinterpret_cast<std::uintptr_t>(ptr);
    auto next = memory.upper_bound(address);
    if (next == memory.begin())
        return memory.end();
    --next;
    return address - next->first < next->second ? next : memory.end();
}

bool is_allocated(const void *ptr, std::size_t bytes)
{
    const auto found = allocation_of(ptr);
    return found != memory.end() && bytes <= found->second - (reinterpret_cast<std::uintptr_t>(ptr) - found->first);
}

int copy(void *dst, const void *src, std::size_t bytes, const void *on_device, Handle stream)
{
    const int error = check_wait(stream);
    if (error)
        return error;
    if (!is_allocated(on_device, bytes))
        return invalid_value;
    std::memcpy(dst, src, bytes);
    return success;
}

} // namespace

Range allocation_at(std::uintptr_t address)
{
    const auto found = allocation_of(reinterpret_cast<const void *>(address));
    return found == memory.end() ? Range{0, 0} : Range{found->first, found->first + found->second};
}

int mem_alloc(void **ptr, std::size_t bytes)
{
    int device;
    int error = current_device(&device);
    if (!error)
        error = check_no_captures();
    if (error)
        return error;
    if (!bytes)
        return invalid_value;
    if (bytes > device_bytes || posix_memalign(ptr, alignment, bytes))
        return out_of_memory;
    memory[reinterpret_cast<std::uintptr_t>(*ptr)] = bytes;
    return success;
}

int mem_free(void *ptr)
{
    int device;
    int error = current_device(&device);
    if (!error)
        error = check_no_captures();
    if (error || !ptr)
        return error;
    if (!memory.erase(reinterpret_cast<std::uintptr_t>(ptr)))
        return invalid_value;
    std::free(ptr);
    return success;
}

int copy_in(void *dst, const void *src, std::size_t bytes, Handle stream)
{
    return copy(dst, src, bytes, dst, stream);
}

int copy_out(void *dst, const void *src, std::size_t bytes, Handle stream)
{
    return copy(dst, src, bytes, src, stream);
}

int address_range(void **base, std::size_t *size, const void *ptr)
{
    int device;
    const int error = current_device(&device);
    if (error)
        return error;
    const auto found = allocation_of(ptr);
    if (found == memory.end())
        return not_found;
    *base = reinterpret_cast<void *>(found->first);
    *size = found->second;
    return success;
}

Live live_allocations()
{
    return {"allocation(s)", static_cast<int>(memory.size())};
}

} // namespace driver
