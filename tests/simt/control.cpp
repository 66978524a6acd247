/* Settings, counting, failing on purpose, and what was not given back. */
#include "control.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "state.hpp"

namespace driver
{

namespace
{

struct Failure {
    std::string name;
    int after = 0; /* calls until it happens; 0: never */
    int error = unknown;
};

struct Control {
    std::mutex mutex; /* held during every call */
    std::map<std::string, int> calls;
    Failure failure;
};

/* Never destroyed: other libraries' last calls may come late. */
Control &control()
{
    static Control &made = *new Control;
    return made;
}

/* ---- The environment ---- */

[[noreturn]] void bad_variable(const char *name, const char *value)
{
    std::fprintf(stderr, "simt: %s cannot be \"%s\"\n", name, value);
    std::exit(2);
}

int number_from(const char *name, int otherwise)
{
    const char *value = std::getenv(name);
    if (!value)
        return otherwise;
    char *end;
    const long number = std::strtol(value, &end, 10);
    if (end == value || *end || number < 0 || number > 1024)
        bad_variable(name, value);
    return static_cast<int>(number);
}

unsigned warp_from_environment()
{
    unsigned warp = vendor.warp;
    if (!vendor.warp_is_fixed)
        warp = static_cast<unsigned>(number_from("SIMT_WARP", static_cast<int>(warp)));
    if (warp != 32 && warp != 64)
        bad_variable("SIMT_WARP", std::getenv("SIMT_WARP"));
    return warp;
}

bool reverse_from_environment()
{
    const char *order = std::getenv("SIMT_ORDER");
    const bool reverse = order && std::strcmp(order, "reverse") == 0;
    if (order && !reverse && std::strcmp(order, "forward") != 0)
        bad_variable("SIMT_ORDER", order);
    return reverse;
}

Settings settings_from_environment()
{
    Settings s;
    s.devices = number_from("SIMT_DEVICES", s.devices);
    s.multiprocessors = number_from("SIMT_MULTIPROCESSORS", s.multiprocessors);
    s.tell_leaks = number_from("SIMT_LEAKS", 0) != 0;
    s.warp = warp_from_environment();
    s.reverse = reverse_from_environment();
    return s;
}

/* NAME[:N[:CODE]] */
void fail_as_environment_says()
{
    const char *value = std::getenv("SIMT_FAIL");
    if (!value)
        return;
    char name[128];
    int nth = 1, error = unknown;
    if (std::sscanf(value, "%127[^:]:%d:%d", name, &nth, &error) < 1)
        bad_variable("SIMT_FAIL", value);
    simt_fail(name, nth, error);
}

[[gnu::constructor]] void begin()
{
    settings();
    fail_as_environment_says();
}

/* ---- What is live ---- */

template <class Tell> void for_each_live(Tell tell)
{
    for (auto live : {live_allocations, live_modules, live_contexts, live_streams, live_graphs, live_events})
        tell(live());
}

/* Made by the first call, so that it is destroyed before what it asks. */
struct LeakReport {
    ~LeakReport()
    {
        if (settings().tell_leaks)
            for_each_live([](const Live &live) {
                if (live.count)
                    std::fprintf(stderr, "simt: %d %s not given back\n", live.count, live.kind);
            });
    }
};

bool is_to_fail(const char *name)
{
    Failure &failure = control().failure;
    return failure.after && failure.name == name && --failure.after == 0;
}

} // namespace

const Settings &settings()
{
    static const Settings read = settings_from_environment();
    return read;
}

int enter(const char *name, const std::function<int()> &body)
{
    static const LeakReport at_exit;
    const std::lock_guard<std::mutex> lock(control().mutex);
    control().calls[name]++;
    return is_to_fail(name) ? control().failure.error : body();
}

const char *error_words(int error)
{
    static const std::map<int, const char *> words = {
        {success, "no error"},
        {invalid_value, "invalid argument"},
        {out_of_memory, "out of memory"},
        {not_initialized, "initialization error"},
        {no_device, "no GPU is detected"},
        {invalid_device, "invalid device ordinal"},
        {invalid_image, "device kernel image is invalid"},
        {invalid_context, "invalid device context"},
        {invalid_handle, "invalid resource handle"},
        {illegal_state, "the operation cannot be performed in the present state"},
        {not_found, "named symbol not found"},
        {not_ready, "device not ready"},
        {out_of_resources, "too many resources requested for launch"},
        {not_supported, "operation not supported"},
        {capture_unsupported, "operation not permitted when stream is capturing"},
        {capture_invalidated, "operation failed due to a previous error during capture"},
        {capture_implicit, "operation would make the legacy stream depend on a capturing blocking stream"},
        {capture_wrong_thread, "attempt to terminate a thread-local capture sequence from another thread"},
        {unknown, "unknown error"},
    };
    const auto found = words.find(error);
    return found == words.end() ? nullptr : found->second;
}

} // namespace driver

/* ---- The control that is exported ---- */

using driver::control;

void simt_fail(const char *entry_point, int nth, int error)
{
    const std::lock_guard<std::mutex> lock(control().mutex);
    control().failure = {entry_point, nth, error};
}

int simt_calls(const char *entry_point)
{
    const std::lock_guard<std::mutex> lock(control().mutex);
    return control().calls[entry_point];
}

int simt_live_objects(void)
{
    const std::lock_guard<std::mutex> lock(control().mutex);
    int count = 0;
    driver::for_each_live([&](const driver::Live &live) { count += live.count; });
    return count;
}
