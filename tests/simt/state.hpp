/* What the parts of the driver share. */
#ifndef DRAFTMETA_STATE_HPP
#define DRAFTMETA_STATE_HPP

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "driver.hpp"
#include "engine.hpp"

namespace driver
{

struct Settings {
    int devices = 2, multiprocessors = 8;
    unsigned warp = 32;   /* the fibers' */
    bool reverse = false; /* lanes and warps run from the last to the first */
    bool tell_leaks = false;
};

const Settings &settings();

/* The first handle of a pool. */
inline std::uintptr_t next_pool()
{
    static std::uintptr_t last = 0;
    return last += 1 << 20;
}

/* Objects with their handles, which are those of no other pool, and come again as soon as they can. */
template <class T> class Pool
{
  public:
    Handle add(std::unique_ptr<T> object)
    {
        if (free.empty())
            free.push_back(reinterpret_cast<Handle>(first + objects.size()));
        const Handle handle = free.back();
        free.pop_back();
        objects[handle] = std::move(object);
        return handle;
    }

    T *find(Handle handle) const
    {
        const auto found = objects.find(handle);
        return found == objects.end() ? nullptr : found->second.get();
    }

    int destroy(Handle handle)
    {
        if (!objects.erase(handle))
            return invalid_handle;
        free.push_back(handle);
        return success;
    }

    int count() const
    {
        return static_cast<int>(objects.size());
    }

    auto begin() const
    {
        return objects.begin();
    }

    auto end() const
    {
        return objects.end();
    }

  private:
    const std::uintptr_t first = next_pool();
    std::vector<Handle> free; /* that were given back */
    std::map<Handle, std::unique_ptr<T>> objects;
};

/* The calling thread's, or why it has none. */
int current_device(int *device);

/* What the handle stands for; nullptr if its code is not loaded on the device. */
const engine::Kernel *kernel_of(Handle function, int device);

/* For a call that is not for captures: why the stream cannot be waited for. */
int check_wait(Handle stream);

/* The same for a call that touches the whole device: any capture may forbid it. */
int check_no_captures();

/* The allocation that holds the address; empty if none does. */
struct Range {
    std::uintptr_t begin, end;
};
Range allocation_at(std::uintptr_t address);

struct Live {
    const char *kind;
    int count;
};

Live live_allocations(), live_modules(), live_contexts();
Live live_streams(), live_graphs(), live_events();

} // namespace driver

#endif
