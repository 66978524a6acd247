/* Single waves for the interpreter's own tests. */
#include "interpreter.h"

#include "wave.hpp"

using namespace amdgpu;

void amdgpu_run_snippet(const char *target, const char *text, amdgpu_wave *state)
{
    Program program;
    program.target = target;
    program.kernel = "snippet";
    program.wave_size = state->lanes;
    decode(program, text, text + std::strlen(text));

    const auto memory_begin = reinterpret_cast<u64>(state->memory);
    const Range memory_range = {memory_begin, memory_begin + state->memory_bytes};
    Memory memory = {[=](u64) { return memory_range; }, {0, 0}, {0, 0}};
    Block block = {memory, {}, 0};
    const auto *lds = reinterpret_cast<const unsigned char *>(state->lds);
    block.lds.assign(lds, lds + sizeof state->lds);

    const auto wave = std::make_unique<Wave>(program, block, 0);
    std::memcpy(wave->scalars, state->scalars, sizeof wave->scalars);
    std::memcpy(wave->vectors, state->vectors, sizeof state->vectors);
    wave->scc = state->scc;
    run(*wave);
    std::memcpy(state->scalars, wave->scalars, sizeof wave->scalars);
    std::memcpy(state->vectors, wave->vectors, sizeof state->vectors);
    std::memcpy(state->lds, block.lds.data(), sizeof state->lds);
    state->scc = wave->scc;
    state->executed = wave->executed;
}
