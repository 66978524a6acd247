/* Streams, what is enqueued on them, captures, graphs and events. */
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "control.h"
#include "state.hpp"

/* The bounds of shared memory, a section, from the linker. */
extern "C" __attribute__((visibility("hidden"))) char __start_simt_shared[], __stop_simt_shared[];

namespace driver
{

namespace
{

using Clock = std::chrono::steady_clock;

enum CaptureMode { global_mode, thread_local_mode, relaxed_mode };
enum CaptureStatus { not_capturing, capturing, invalidated };
enum : unsigned { non_blocking = 1 };

/* Handles of the streams that are always there. */
constexpr std::uintptr_t legacy = 1, per_thread = 2;

struct KernelNode {
    Handle function;
    unsigned grid, block;
    std::vector<char> parameter; /* as it was when it was enqueued */
};

using Graph = std::vector<KernelNode>;

struct Stream {
    int device;
    bool is_blocking; /* waits for the legacy stream, and that for it */
    CaptureStatus status = not_capturing;
    CaptureMode mode = global_mode;
    std::thread::id capturer = {};
    Graph captured = {};
};

struct Exec {
    Graph graph;
};

struct Event {
    std::optional<Clock::time_point> recorded = {};
};

Pool<Stream> streams;
std::map<std::pair<std::thread::id, int>, Stream> thread_streams; /* by device */
Pool<Graph> graphs;
Pool<Exec> execs;
Pool<Event> events;
int launches;

template <class Do> void for_each_capture(Do act)
{
    for (auto &[handle, stream] : streams)
        if (stream->status != not_capturing)
            act(*stream);
    for (auto &[place, stream] : thread_streams)
        if (stream.status != not_capturing)
            act(stream);
}

/* The legacy stream would have to wait for blocking streams under capture: it fails, and so do they. */
int check_legacy(int device, bool invalidate)
{
    int error = success;
    for_each_capture([&](Stream &stream) {
        if (stream.device != device || !stream.is_blocking)
            return;
        error = capture_implicit;
        if (invalidate)
            stream.status = invalidated;
    });
    return error;
}

bool is_legacy(Handle handle)
{
    return !handle || reinterpret_cast<std::uintptr_t>(handle) == legacy;
}

/* The stream, of the current device; for the legacy stream, *stream is nullptr. */
int find_stream(Handle handle, Stream **stream, int *device)
{
    *stream = nullptr;
    const int error = current_device(device);
    if (error || is_legacy(handle))
        return error;
    if (reinterpret_cast<std::uintptr_t>(handle) == per_thread)
        *stream =
            &thread_streams.try_emplace({std::this_thread::get_id(), *device}, Stream{*device, true}).first->second;
    else
        *stream = streams.find(handle);
    return *stream && (*stream)->device == *device ? success : invalid_handle;
}

int run_kernel(const KernelNode &node, int device)
{
    const host_fill::Kernel *kernel = kernel_of(node.function, device);
    if (!kernel)
        return invalid_handle;
    launches++;
    simt::run(settings().machine, {kernel->body, node.parameter.data(), __start_simt_shared, __stop_simt_shared},
              node.grid, node.block);
    return success;
}

int run_graph(const Graph &graph, int device)
{
    for (const KernelNode &node : graph) {
        const int error = run_kernel(node, device);
        if (error)
            return error;
    }
    return success;
}

/* Runs the nodes, or adds them to the stream's capture. */
int enqueue(const Graph &nodes, Handle handle)
{
    Stream *stream;
    int device;
    int error = find_stream(handle, &stream, &device);
    if (!error && !stream)
        error = check_legacy(device, true);
    if (error)
        return error;
    if (!stream || stream->status == not_capturing)
        return run_graph(nodes, device);
    if (stream->status == invalidated)
        return capture_invalidated;
    stream->captured.insert(stream->captured.end(), nodes.begin(), nodes.end());
    return success;
}

} // namespace

/* ---- Streams ---- */

int stream_create(Handle *stream, unsigned flags)
{
    int device;
    const int error = current_device(&device);
    if (!error)
        *stream = streams.add(std::make_unique<Stream>(Stream{device, !(flags & non_blocking)}));
    return error;
}

int stream_destroy(Handle stream)
{
    return streams.destroy(stream);
}

int stream_is_capturing(Handle handle, int *status)
{
    Stream *stream;
    int device;
    const int error = find_stream(handle, &stream, &device);
    if (error)
        return error;
    *status = stream ? stream->status : not_capturing;
    return stream ? success : check_legacy(device, false);
}

int check_wait(Handle handle)
{
    Stream *stream;
    int device;
    const int error = find_stream(handle, &stream, &device);
    if (error)
        return error;
    if (!stream)
        return check_legacy(device, true);
    if (stream->status == not_capturing)
        return success;
    stream->status = invalidated;
    return capture_unsupported;
}

int stream_synchronize(Handle stream)
{
    return check_wait(stream);
}

Live live_streams()
{
    return {"stream(s)", streams.count()};
}

/* ---- Launches ---- */

int launch(Handle function, Shape grid, Shape block, Handle stream, void **params, void **extra)
{
    int device;
    const int error = current_device(&device);
    if (error)
        return error;
    const host_fill::Kernel *kernel = kernel_of(function, device);
    if (!kernel)
        return invalid_handle;
    if (!params || !params[0] || extra || !grid.x || grid.x > INT32_MAX || !block.x || block.x > simt::max_threads)
        return invalid_value;
    if (grid.y != 1 || grid.z != 1 || block.y != 1 || block.z != 1)
        return not_supported; /* by the fibers */
    if (block.x > kernel->max_threads)
        return out_of_resources;
    const char *parameter = static_cast<const char *>(params[0]);
    return enqueue({{function, grid.x, block.x, {parameter, parameter + kernel->parameter_bytes}}}, stream);
}

/* ---- Captures ---- */

int check_no_captures()
{
    int error = success;
    for_each_capture([&](Stream &stream) {
        const bool same_thread = stream.capturer == std::this_thread::get_id();
        if (stream.mode == relaxed_mode || (stream.mode == thread_local_mode && !same_thread))
            return;
        stream.status = invalidated;
        error = capture_unsupported;
    });
    return error;
}

int begin_capture(Handle handle, int mode)
{
    Stream *stream;
    int device;
    const int error = find_stream(handle, &stream, &device);
    if (error)
        return error;
    if (!stream)
        return capture_unsupported;
    if (stream->status != not_capturing)
        return illegal_state;
    stream->status = capturing;
    stream->mode = static_cast<CaptureMode>(mode);
    stream->capturer = std::this_thread::get_id();
    return success;
}

int end_capture(Handle handle, Handle *graph)
{
    Stream *stream;
    int device;
    *graph = nullptr;
    const int error = find_stream(handle, &stream, &device);
    if (error)
        return error;
    if (!stream || stream->status == not_capturing)
        return illegal_state;
    if (stream->mode != relaxed_mode && stream->capturer != std::this_thread::get_id())
        return capture_wrong_thread;
    Graph captured;
    captured.swap(stream->captured);
    const bool failed = stream->status == invalidated;
    stream->status = not_capturing;
    if (!failed)
        *graph = graphs.add(std::make_unique<Graph>(std::move(captured)));
    return failed ? capture_invalidated : success;
}

/* ---- Graphs ---- */

int graph_instantiate(Handle *exec, Handle graph)
{
    const Graph *found = graphs.find(graph);
    if (!found)
        return invalid_value;
    *exec = execs.add(std::make_unique<Exec>(Exec{*found}));
    return success;
}

int graph_launch(Handle exec, Handle stream)
{
    const Exec *found = execs.find(exec);
    return found ? enqueue(found->graph, stream) : invalid_value;
}

int graph_destroy(Handle graph)
{
    return graphs.destroy(graph);
}

int exec_destroy(Handle exec)
{
    return execs.destroy(exec);
}

Live live_graphs()
{
    return {"graph(s)", graphs.count() + execs.count()};
}

/* ---- Events ---- */

int event_create(Handle *event)
{
    int device;
    const int error = current_device(&device);
    if (!error)
        *event = events.add(std::make_unique<Event>());
    return error;
}

int event_destroy(Handle event)
{
    return events.destroy(event);
}

int event_record(Handle event, Handle handle)
{
    Stream *stream;
    int device;
    Event *found = events.find(event);
    const int error = find_stream(handle, &stream, &device);
    if (error || !found)
        return error ? error : invalid_handle;
    if (stream && stream->status != not_capturing)
        return not_supported; /* in this driver's captures */
    found->recorded = Clock::now();
    return success;
}

int event_synchronize(Handle event)
{
    return events.find(event) ? success : invalid_handle;
}

int event_elapsed(float *milliseconds, Handle start, Handle end)
{
    const Event *from = events.find(start), *to = events.find(end);
    if (!from || !to || !from->recorded || !to->recorded)
        return invalid_handle;
    *milliseconds = std::chrono::duration<float, std::milli>(*to->recorded - *from->recorded).count();
    return success;
}

Live live_events()
{
    return {"event(s)", events.count()};
}

} // namespace driver

int simt_launches(void)
{
    return driver::launches;
}
