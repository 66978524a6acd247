/* A wave's registers, and the reading and writing of operands that all instructions share. */
#ifndef DRAFTMETA_AMDGPU_WAVE_HPP
#define DRAFTMETA_AMDGPU_WAVE_HPP

#include <cstring>
#include <functional>

#include "instruction.hpp"

namespace amdgpu
{

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

struct Range {
    u64 begin, end;

    bool holds(u64 address, u64 bytes) const
    {
        return address >= begin && address < end && bytes <= end - address;
    }
};

/* What addresses stand for: they are the host's own. */
struct Memory {
    std::function<Range(u64)> allocation_at;
    Range arguments, code; /* which may be read only */
    Range last = {0, 0};   /* the allocation that was found last */
};

/* A block's waves share it. */
struct Block {
    Memory &memory;
    std::vector<unsigned char> lds;
    unsigned index;
};

enum class State { running, at_barrier, ended };

struct Wave {
    const Program &program;
    Block &block;
    unsigned index; /* in the block */
    State state = State::running;
    std::int64_t next = 0; /* instruction */
    u64 executed = 0;
    bool scc = false;
    u32 scalars[NUM_SCALARS];
    u32 vectors[256][max_lanes];
    u64 active_of = 0; /* the exec that active shows: all ones in active lanes */
    u32 active[max_lanes] = {};

    Wave(const Program &the_program, Block &the_block, unsigned the_index);

    u64 exec() const
    {
        return scalars[EXEC] | (program.wave_size == 64 ? u64(scalars[EXEC + 1]) << 32 : 0);
    }

    void show_active(u64 lanes);
};

/* Until it stops at a barrier or ends. */
void run(Wave &wave);

[[noreturn]] void fail(const Wave &wave, const Instruction &instruction, const std::string &why);

/* ---- Scalar operands ---- */

inline u32 read32(const Wave &wave, const Operand &operand)
{
    return operand.kind == Operand::scalar ? wave.scalars[operand.index] : static_cast<u32>(operand.value);
}

/* Small constants are signed; a literal of 32 bits is extended with zeros; a float is a double. */
inline u64 read64(const Wave &wave, const Instruction &instruction, const Operand &operand)
{
    if (operand.kind == Operand::constant)
        return static_cast<u64>(operand.value_of_64);
    if (operand.count != 2)
        fail(wave, instruction, "64 bits from one register");
    return wave.scalars[operand.index] | u64(wave.scalars[operand.index + 1]) << 32;
}

inline void write32(Wave &wave, const Operand &operand, u32 value)
{
    if (operand.index != NUL)
        wave.scalars[operand.index] = value;
}

inline void write64(Wave &wave, const Operand &operand, u64 value)
{
    if (operand.index == NUL)
        return;
    wave.scalars[operand.index] = static_cast<u32>(value);
    wave.scalars[operand.index + 1] = static_cast<u32>(value >> 32);
}

/* One bit for each lane. */
inline u64 read_mask(const Wave &wave, const Instruction &instruction, const Operand &operand)
{
    return wave.program.wave_size == 64 ? read64(wave, instruction, operand) : read32(wave, operand);
}

inline void write_mask(Wave &wave, const Operand &operand, u64 mask)
{
    if (wave.program.wave_size == 64)
        write64(wave, operand, mask);
    else
        write32(wave, operand, static_cast<u32>(mask));
}

/* ---- Vector operands: always 64 lanes, so that loops are plain; a wave of 32 does not use the upper ones ---- */

/* What SDWA and DPP make of source k, 0 or 1. */
void modify(const Wave &wave, const Instruction &instruction, unsigned k, u32 *lanes);

/* Source k, 0 for the first, as 32-bit lanes; in scratch if they are not a register's as they stand. */
inline const u32 *read_lanes(const Wave &wave, const Instruction &instruction, const Operand &operand, unsigned k,
                             u32 *scratch)
{
    if (operand.kind == Operand::vector && !instruction.is_modified)
        return wave.vectors[operand.index];
    if (operand.kind == Operand::vector)
        std::memcpy(scratch, wave.vectors[operand.index], sizeof wave.vectors[0]);
    else
        for (int lane = 0; lane < max_lanes; lane++)
            scratch[lane] = read32(wave, operand);
    if (instruction.is_modified && k < 2)
        modify(wave, instruction, k, scratch);
    return scratch;
}

/* Which lanes the instruction writes. */
u64 written_lanes(const Wave &wave, const Instruction &instruction);

inline void write_lanes(Wave &wave, const Instruction &instruction, int index, const u32 *values)
{
    const u64 lanes = instruction.is_modified ? written_lanes(wave, instruction) : wave.exec();
    if (lanes != wave.active_of)
        wave.show_active(lanes);
    u32 *to = wave.vectors[index];
    for (int lane = 0; lane < max_lanes; lane++)
        to[lane] = (values[lane] & wave.active[lane]) | (to[lane] & ~wave.active[lane]);
}

/* An operand's lanes as values of type T. */
template <class T> struct Source {
    T scratch[max_lanes];
    const T *lanes = scratch;

    Source(const Wave &wave, const Instruction &instruction, unsigned k, const Operand &operand)
    {
        if constexpr (sizeof(T) == 8)
            read_pairs(wave, instruction, operand);
        else if constexpr (std::is_floating_point_v<T>)
            read_floats(wave, instruction, k, operand);
        else if constexpr (sizeof(T) == 4)
            lanes = reinterpret_cast<const T *>(
                read_lanes(wave, instruction, operand, k, reinterpret_cast<u32 *>(scratch)));
        else
            read_halves(wave, instruction, k, operand);
    }
    Source(const Source &) = delete;

    T operator[](int lane) const
    {
        return lanes[lane];
    }

  private:
    void read_pairs(const Wave &wave, const Instruction &instruction, const Operand &operand)
    {
        if (operand.kind != Operand::vector) {
            if (std::is_signed_v<T> && operand.value_of_64 > INT32_MAX && operand.value_of_64 <= UINT32_MAX)
                fail(wave, instruction, "a literal that may be extended by its sign or not");
            const u64 value = read64(wave, instruction, operand);
            for (T &lane : scratch)
                lane = static_cast<T>(value);
            return;
        }
        if (operand.count != 2)
            fail(wave, instruction, "64 bits from one register");
        const u32 *low = wave.vectors[operand.index], *high = wave.vectors[operand.index + 1];
        for (int lane = 0; lane < max_lanes; lane++)
            scratch[lane] = static_cast<T>(low[lane] | u64(high[lane]) << 32);
    }

    void read_floats(const Wave &wave, const Instruction &instruction, unsigned k, const Operand &operand)
    {
        u32 bits[max_lanes];
        std::memcpy(scratch, read_lanes(wave, instruction, operand, k, bits), sizeof scratch);
        for (T &lane : scratch) {
            if (operand.absolute)
                lane = lane < 0 ? -lane : lane;
            if (operand.negative)
                lane = -lane;
        }
    }

    void read_halves(const Wave &wave, const Instruction &instruction, unsigned k, const Operand &operand)
    {
        u32 bits[max_lanes];
        const u32 *from = read_lanes(wave, instruction, operand, k, bits);
        for (int lane = 0; lane < max_lanes; lane++)
            scratch[lane] = static_cast<T>(from[lane]);
    }
};

/* Writes the active lanes of a result. */
template <class T> void write(Wave &wave, const Instruction &instruction, const Operand &operand, const T *values)
{
    u32 low[max_lanes], high[max_lanes];
    if constexpr (sizeof(T) == 8) {
        for (int lane = 0; lane < max_lanes; lane++) {
            low[lane] = static_cast<u32>(values[lane]);
            high[lane] = static_cast<u32>(static_cast<u64>(values[lane]) >> 32);
        }
        write_lanes(wave, instruction, operand.index + 1, high);
    } else if constexpr (sizeof(T) == 4) {
        std::memcpy(low, values, sizeof low);
    } else { /* gfx9 zeroes the upper half of the register, later ones keep it */
        for (int lane = 0; lane < max_lanes; lane++)
            low[lane] = static_cast<u16>(values[lane]) |
                        (wave.program.is_gfx9() ? 0 : wave.vectors[operand.index][lane] & 0xffff0000);
    }
    write_lanes(wave, instruction, operand.index, low);
}

} // namespace amdgpu

#endif
