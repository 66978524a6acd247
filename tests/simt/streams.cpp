/* Streams, what is enqueued on them, captures, graphs and events. */
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "control.h"
#include "state.hpp"

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

/* Of a stream: no other has it, not even later. Those of the legacy streams are the devices'. */
unsigned long long next_id()
{
    static unsigned long long last = 1000;
    return ++last;
}

struct Stream {
    int device;
    bool is_blocking; /* waits for the legacy stream, and that for it */
    int priority = 0;
    unsigned long long id = next_id();
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
void (*watcher)(const char *kernel);

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
    const engine::Kernel *kernel = kernel_of(node.function, device);
    if (!kernel)
        return invalid_handle;
    launches++;
    if (watcher)
        watcher(kernel->name.c_str());
    kernel->run(node.parameter.data(), node.grid, node.block);
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

int make_node(const KernelCall &call, KernelNode *node)
{
    int device;
    const int error = current_device(&device);
    if (error)
        return error;
    const engine::Kernel *kernel = kernel_of(call.function, device);
    if (!kernel)
        return invalid_handle;
    if (!call.params || !call.params[0] || call.extra || !call.grid.x || call.grid.x > INT32_MAX || !call.block.x)
        return invalid_value;
    if (call.grid.y != 1 || call.grid.z != 1 || call.block.y != 1 || call.block.z != 1)
        return not_supported; /* by the engines */
    if (call.block.x > kernel->max_threads)
        return out_of_resources;
    const char *parameter = static_cast<const char *>(call.params[0]);
    *node = {call.function, call.grid.x, call.block.x, {parameter, parameter + kernel->parameter_bytes}};
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

int stream_create(Handle *stream, unsigned flags, int priority)
{
    int device;
    const int error = current_device(&device);
    if (!error)
        *stream = streams.add(std::make_unique<Stream>(Stream{device, !(flags & non_blocking), priority}));
    return error;
}

int stream_destroy(Handle stream)
{
    return streams.destroy(stream);
}

int stream_id(Handle handle, unsigned long long *id)
{
    Stream *stream;
    int device;
    const int error = find_stream(handle, &stream, &device);
    if (!error)
        *id = stream ? stream->id : static_cast<unsigned long long>(device);
    return error;
}

int stream_priority(Handle handle, int *priority)
{
    Stream *stream;
    int device;
    const int error = find_stream(handle, &stream, &device);
    if (!error)
        *priority = stream ? stream->priority : 0;
    return error;
}

/* Streams are used in their context, which is current. */
int stream_context(Handle handle, Handle *context)
{
    Stream *stream;
    int device;
    const int error = find_stream(handle, &stream, &device);
    return error ? error : context_get(context);
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

int launch(const KernelCall &call, Handle stream)
{
    KernelNode node;
    const int error = make_node(call, &node);
    return error ? error : enqueue({node}, stream);
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

int graph_create(Handle *graph)
{
    *graph = graphs.add(std::make_unique<Graph>());
    return success;
}

/* A node's handle is its number, from 1; nodes run in the order in which they were added. */
int graph_add_kernel(Handle *node, Handle graph, std::size_t dependencies, const KernelCall *call)
{
    Graph *found = graphs.find(graph);
    KernelNode made;
    if (!found || dependencies != found->size())
        return invalid_value;
    const int error = make_node(*call, &made);
    if (error)
        return error;
    found->push_back(made);
    *node = reinterpret_cast<Handle>(found->size());
    return success;
}

int graph_set_kernel(Handle exec, Handle node, const KernelCall *call)
{
    Exec *found = execs.find(exec);
    const auto number = reinterpret_cast<std::uintptr_t>(node);
    if (!found || !number || number > found->graph.size())
        return invalid_value;
    return make_node(*call, &found->graph[number - 1]);
}

int graph_instantiate(Handle *exec, Handle graph)
{
    const Graph *found = graphs.find(graph);
    if (!found)
        return invalid_value;
    *exec = execs.add(std::make_unique<Exec>(Exec{*found}));
    return success;
}

int graph_upload(Handle exec, Handle stream)
{
    return execs.find(exec) ? check_wait(stream) : invalid_value;
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

void simt_watch(void (*watcher)(const char *kernel))
{
    driver::watcher = watcher;
}
