"""Clocks: the same names for a GPU and, so that everything can be tried without one, for the host.

All implementations of a point take turns, round by round, so that they meet the same clocks of the device."""

import ctypes
import time

import numpy as np
import torch

NODES, GRAPH_US, SLOW_US, ROUNDS, FEWEST_ROUNDS = 48, 200, 800, 50, 12


class Cuda:
    most_nodes = NODES

    def __init__(self):
        self.side = torch.cuda.Stream()
        self.driver = ctypes.CDLL("libcuda.so.1")

    def sync(self):
        torch.cuda.synchronize()

    def stream(self):
        return torch.cuda.current_stream().cuda_stream

    def capture(self, calls, nodes):
        """A graph of that many calls, in turns, one behind the other."""
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        torch.cuda.synchronize()
        with torch.cuda.stream(self.side):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                for i in range(nodes):
                    calls[i % len(calls)]()
            finally:
                graph.capture_end()
        graph.instantiate()
        return graph

    def nodes(self, graph):
        count = ctypes.c_size_t()
        status = self.driver.cuGraphGetNodes(
            ctypes.c_void_p(graph.raw_cuda_graph()), None, ctypes.byref(count)
        )
        return count.value if status == 0 else None

    def hide_launch(self):
        """Keeps the device busy while the host enqueues a round."""
        torch.cuda._sleep(60000)

    def time(self, graph):
        """Enqueues a replay; returns a function that, after sync, has its microseconds."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        return lambda: start.elapsed_time(end) * 1e3


class Host:
    """Replays by calling: the times mean nothing on a device, the checks do."""

    most_nodes = 0

    def sync(self):
        pass

    def stream(self):
        return None

    def capture(self, calls, nodes):
        return [calls[i % len(calls)] for i in range(nodes)]

    def nodes(self, graph):
        return len(graph)

    def hide_launch(self):
        pass

    def time(self, graph):
        start = time.perf_counter()
        for call in graph:
            call()
        elapsed = (time.perf_counter() - start) * 1e6
        return lambda: elapsed


def first_call_us(clock, call):
    """One call and the wait for it."""
    clock.sync()
    start = time.perf_counter()
    call()
    clock.sync()
    return (time.perf_counter() - start) * 1e6


def sized_graph(clock, calls):
    """A graph long enough that launching it does not matter, short enough for slow calls; (graph, calls, us a call)."""
    graph = clock.capture(calls, len(calls))
    for _ in range(2):
        clock.hide_launch()
        read = clock.time(graph)
        clock.sync()
    us = max(read() / len(calls), 0.1)
    nodes = max(1, min(int(GRAPH_US / us), clock.most_nodes) // len(calls)) * len(calls)
    return (graph if nodes == len(calls) else clock.capture(calls, nodes)), nodes, us


def graph_times(clock, calls_of, rounds, failed):
    """Microseconds a call on the device: {name: (samples, graph nodes a call)}. Slow ones take part less often; what
    cannot be captured is told to failed(name, error)."""
    graphs, samples, every = {}, {}, {}
    for name, calls in calls_of.items():
        try:
            graph, nodes, us = sized_graph(clock, calls)
        except Exception as error:  # a peer that fails must not end the run
            failed(name, error)
            continue
        graphs[name], samples[name] = (graph, nodes), []
        every[name] = int(np.clip(us * nodes / SLOW_US, 1, max(1, rounds // FEWEST_ROUNDS)))
    for i in range(-min(2, rounds - 1), rounds):  # the first rounds warm up
        clock.hide_launch()
        reads = {n: clock.time(graphs[n][0]) for n in graphs if i < 0 or i % every[n] == 0}
        clock.sync()
        if i >= 0:
            for name, read in reads.items():
                samples[name].append(read() / graphs[name][1])
    return {n: (samples[n], (clock.nodes(g) or 0) / count) for n, (g, count) in graphs.items()}


def calls_us(calls, count):
    """The caller's time for a call of count, in turns, none waited for."""
    turns = -(-count // len(calls))
    start = time.perf_counter_ns()
    for _ in range(turns):
        for call in calls:
            call()
    return (time.perf_counter_ns() - start) / (turns * len(calls)) / 1e3


def host_times(clock, timers, calls, rounds, row=1, rest=0):
    """Host microseconds a call: timers maps a name to a function of the number of calls. row: so many samples of each
    before the next has its turn, of which the first is not counted if there are several. rest: seconds before a turn, in
    which the threads of the one before fall asleep."""
    samples = {name: [] for name in timers}
    for i in range(-min(2, rounds - 1), rounds, row):
        for name, timer in timers.items():
            clock.sync()
            time.sleep(rest)
            turn = [timer(calls) for _ in range(row)]
            if i >= 0:
                samples[name] += turn[row > 1 :]
    clock.sync()
    return samples


def wall_us(clock, timer, calls):
    """Wall time a call of many in a row, and of the wait at their end."""
    clock.sync()
    start = time.perf_counter()
    timer(calls)
    clock.sync()
    return (time.perf_counter() - start) * 1e6 / calls
