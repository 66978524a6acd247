/* Waves: how they begin, run, and read lanes in unusual ways. */
#include "wave.hpp"

namespace amdgpu
{

namespace
{

constexpr u32 poison = 0xbad0bad0;
constexpr u64 most_instructions = u64(1) << 28; /* of a wave; one that executes more is taken to run for ever */

bool is_active(const Wave &wave, int lane)
{
    return wave.exec() >> lane & 1;
}

bool reads(const Wave &wave, const Permutation &permutation, int lane)
{
    const int from = permutation.from[lane];
    return from >= 0 && (permutation.from_inactive || is_active(wave, from));
}

u32 selected(u32 value, Select select)
{
    switch (select) {
    case Select::dword:
        return value;
    case Select::byte_0:
    case Select::byte_1:
    case Select::byte_2:
    case Select::byte_3:
        return value >> 8 * (static_cast<int>(select) - static_cast<int>(Select::byte_0)) & 0xff;
    case Select::word_0:
        return value & 0xffff;
    case Select::word_1:
        return value >> 16;
    }
    return value;
}

} // namespace

Wave::Wave(const Program &the_program, Block &the_block, unsigned the_index)
    : program(the_program), block(the_block), index(the_index)
{
    for (u32 &value : scalars)
        value = poison;
    scalars[NUL] = 0;
    for (auto &lanes : vectors)
        for (u32 &value : lanes)
            value = poison;
}

void Wave::show_active(u64 lanes)
{
    active_of = lanes;
    for (int lane = 0; lane < max_lanes; lane++)
        active[lane] = lanes >> lane & 1 ? ~u32(0) : 0;
}

void run(Wave &wave)
{
    const std::vector<Instruction> &instructions = wave.program.instructions;
    const auto end = static_cast<std::int64_t>(instructions.size());
    wave.state = State::running;
    while (wave.state == State::running) {
        const Instruction &instruction = instructions[static_cast<std::size_t>(wave.next)];
        wave.next++;
        instruction.execute(wave, instruction);
        if (++wave.executed > most_instructions)
            fail(wave, instruction, "the wave does not end");
        if (wave.next >= end && wave.state != State::ended)
            fail(wave, instruction, "runs past the kernel's end");
    }
}

void fail(const Wave &wave, const Instruction &instruction, const std::string &why)
{
    fail(wave.program, instruction,
         why + " (wave " + std::to_string(wave.index) + " of block " + std::to_string(wave.block.index) + ")");
}

void modify(const Wave &wave, const Instruction &instruction, unsigned k, u32 *lanes)
{
    for (int lane = 0; lane < max_lanes; lane++)
        lanes[lane] = selected(lanes[lane], instruction.select[k]);
    const Permutation *permutation = instruction.permutation.get();
    if (!permutation || k)
        return;
    u32 before[max_lanes];
    std::memcpy(before, lanes, sizeof before);
    for (int lane = 0; lane < static_cast<int>(wave.program.wave_size); lane++)
        lanes[lane] = reads(wave, *permutation, lane) ? before[permutation->from[lane]] : 0;
}

u64 written_lanes(const Wave &wave, const Instruction &instruction)
{
    const Permutation *permutation = instruction.permutation.get();
    u64 lanes = wave.exec();
    if (!permutation)
        return lanes;
    lanes &= permutation->writable;
    if (!permutation->zero_if_none)
        for (int lane = 0; lane < static_cast<int>(wave.program.wave_size); lane++)
            if (!reads(wave, *permutation, lane))
                lanes &= ~(u64(1) << lane);
    return lanes;
}

} // namespace amdgpu
