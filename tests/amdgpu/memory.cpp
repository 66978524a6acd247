/* Scalar loads, global memory and local data share (LDS). Every access is checked: a GPU would fault, or worse. */
#include <cstdio>

#include "wave.hpp"

namespace amdgpu
{

namespace
{

std::string hexadecimal(u64 value)
{
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

/* ---- Memory ---- */

/* The host's pointer for a checked access of bytes in pieces of unit. */
unsigned char *at(const Wave &wave, const Instruction &i, u64 address, u64 bytes, u64 unit, bool writes)
{
    Memory &memory = wave.block.memory;
    if (address % unit)
        fail(wave, i, "address " + hexadecimal(address) + " is not aligned");
    if (!memory.last.holds(address, bytes)) {
        if (memory.arguments.holds(address, bytes) || memory.code.holds(address, bytes)) {
            if (writes)
                fail(wave, i, "writes to its code or arguments");
            return reinterpret_cast<unsigned char *>(address);
        }
        memory.last = memory.allocation_at(address);
        if (!memory.last.holds(address, bytes))
            fail(wave, i, std::to_string(bytes) + " bytes at " + hexadecimal(address) + ", out of bounds");
    }
    return reinterpret_cast<unsigned char *>(address);
}

unsigned char *in_lds(const Wave &wave, const Instruction &i, u64 address, u64 bytes, u64 unit)
{
    std::vector<unsigned char> &lds = wave.block.lds;
    if (address % unit)
        fail(wave, i, "LDS address " + hexadecimal(address) + " is not aligned");
    if (address >= lds.size() || bytes > lds.size() - address)
        fail(wave, i,
             std::to_string(bytes) + " bytes at " + hexadecimal(address) + ", but the block has " +
                 std::to_string(lds.size()) + " bytes of LDS");
    return &lds[address];
}

template <class Do> void for_each_active(const Wave &wave, Do act)
{
    for (u64 lanes = wave.exec(); lanes; lanes &= lanes - 1)
        act(__builtin_ctzll(lanes));
}

/* words registers: one address gives several. */
template <int words> void scalar_load(Wave &wave, const Instruction &i)
{
    u64 address = read64(wave, i, i.operands[1]) + static_cast<u64>(i64(i.offsets[0]));
    if (i.operands[2].kind == Operand::constant)
        address += static_cast<u64>(i.operands[2].value);
    else
        address += read32(wave, i.operands[2]);
    const unsigned char *from = at(wave, i, address, 4 * words, 4, false);
    if (i.operands[0].count != words)
        fail(wave, i, "loads to another number of registers");
    std::memcpy(&wave.scalars[i.operands[0].index], from, 4 * words);
}

/* Where a lane's access goes: a 64-bit address, or a scalar base and a 32-bit offset. */
struct Address {
    const Wave &wave;
    const u32 *low, *high; /* high: nullptr if there is a base */
    u64 base;

    Address(const Wave &the_wave, const Instruction &i, const Operand &vector, const Operand *scalar) : wave(the_wave)
    {
        const bool has_base = scalar && scalar->kind == Operand::scalar;
        if (vector.kind != Operand::vector || vector.count != (has_base ? 1 : 2))
            fail(wave, i, "an address of a kind that the interpreter does not know");
        low = wave.vectors[vector.index];
        high = has_base ? nullptr : wave.vectors[vector.index + 1];
        base = static_cast<u64>(i64(i.offsets[0])) + (has_base ? read64(wave, i, *scalar) : 0);
    }

    u64 of(int lane) const
    {
        return base + (low[lane] | (high ? u64(high[lane]) << 32 : 0));
    }
};

/* An operand that may not be there: flat accesses have no base. */
const Operand *optional(const Instruction &i, std::size_t k)
{
    return k < i.operands.size() ? &i.operands[k] : nullptr;
}

template <class T> constexpr u64 unit_of = sizeof(T) < 4 ? sizeof(T) : 4;

/* A value of T goes to one register; words > 1: that many registers. */
template <class T, int words = 1> void global_load(Wave &wave, const Instruction &i)
{
    const Address address(wave, i, i.operands[1], optional(i, 2));
    if (i.operands[0].count != words)
        fail(wave, i, "loads to another number of registers");
    u64 addresses[max_lanes];
    for_each_active(wave, [&](int lane) { addresses[lane] = address.of(lane); });
    for_each_active(wave, [&](int lane) {
        T value[words];
        std::memcpy(value, at(wave, i, addresses[lane], sizeof value, unit_of<T>, false), sizeof value);
        for (int k = 0; k < words; k++)
            wave.vectors[i.operands[0].index + k][lane] = static_cast<u32>(value[k]);
    });
}

template <class T, int words = 1> void global_store(Wave &wave, const Instruction &i)
{
    const Address address(wave, i, i.operands[0], optional(i, 2));
    if (i.operands[1].count != words)
        fail(wave, i, "stores another number of registers");
    for_each_active(wave, [&](int lane) {
        T value[words];
        for (int k = 0; k < words; k++)
            value[k] = static_cast<T>(wave.vectors[i.operands[1].index + k][lane]);
        std::memcpy(at(wave, i, address.of(lane), sizeof value, unit_of<T>, true), value, sizeof value);
    });
}

/* ---- Atomics: lanes come one after another ---- */

template <class T> T add(T a, T b)
{
    return a + b;
}
template <class T> T sub(T a, T b)
{
    return a - b;
}
template <class T> T bit_and(T a, T b)
{
    return a & b;
}
template <class T> T bit_or(T a, T b)
{
    return a | b;
}
template <class T> T bit_xor(T a, T b)
{
    return a ^ b;
}
template <class T> T least(T a, T b)
{
    return b < a ? b : a;
}
template <class T> T greatest(T a, T b)
{
    return b > a ? b : a;
}
template <class T> T exchange(T, T b)
{
    return b;
}

template <class T> T lane_of(const Wave &wave, const Operand &operand, int lane)
{
    u64 value = wave.vectors[operand.index][lane];
    if (sizeof(T) == 8)
        value |= u64(wave.vectors[operand.index + 1][lane]) << 32;
    return static_cast<T>(value);
}

template <class T> void set_lane(Wave &wave, const Operand &operand, int lane, T value)
{
    wave.vectors[operand.index][lane] = static_cast<u32>(value);
    if (sizeof(T) == 8)
        wave.vectors[operand.index + 1][lane] = static_cast<u32>(static_cast<u64>(value) >> 32);
}

template <class T, T (*f)(T, T)> T update(unsigned char *place, T operand)
{
    T old, updated;
    std::memcpy(&old, place, sizeof old);
    updated = f(old, operand);
    std::memcpy(place, &updated, sizeof updated);
    return old;
}

template <class T, T (*f)(T, T)> void global_atomic(Wave &wave, const Instruction &i)
{
    const std::size_t first = i.returns;
    const Operand &data = i.operands.at(first + 1);
    const Address address(wave, i, i.operands[first], optional(i, first + 2));
    u64 addresses[max_lanes];
    for_each_active(wave, [&](int lane) { addresses[lane] = address.of(lane); });
    for_each_active(wave, [&](int lane) {
        unsigned char *place = at(wave, i, addresses[lane], sizeof(T), sizeof(T), true);
        const T old = update<T, f>(place, lane_of<T>(wave, data, lane));
        if (i.returns)
            set_lane(wave, i.operands[0], lane, old);
    });
}

/* The data are the new value, and behind it the one to compare with. */
template <class T> void global_compare_exchange(Wave &wave, const Instruction &i)
{
    const std::size_t first = i.returns;
    const Operand &wanted = i.operands.at(first + 1);
    const Operand expected = {Operand::vector, wanted.index + static_cast<int>(sizeof(T) / 4), 1};
    const Address address(wave, i, i.operands[first], optional(i, first + 2));
    u64 addresses[max_lanes];
    for_each_active(wave, [&](int lane) { addresses[lane] = address.of(lane); });
    for_each_active(wave, [&](int lane) {
        unsigned char *place = at(wave, i, addresses[lane], sizeof(T), sizeof(T), true);
        const T value = lane_of<T>(wave, wanted, lane), compared = lane_of<T>(wave, expected, lane);
        T old;
        std::memcpy(&old, place, sizeof old);
        if (old == compared)
            std::memcpy(place, &value, sizeof value);
        if (i.returns)
            set_lane(wave, i.operands[0], lane, old);
    });
}

/* ---- LDS ---- */

u64 lds_address(const Wave &wave, const Operand &operand, int lane, int offset)
{
    return u64(wave.vectors[operand.index][lane]) + static_cast<u64>(i64(offset));
}

template <class T, int words = 1> void lds_read(Wave &wave, const Instruction &i)
{
    u32 addresses[max_lanes];
    std::memcpy(addresses, wave.vectors[i.operands[1].index], sizeof addresses);
    for_each_active(wave, [&](int lane) {
        T value[words];
        const u64 address = u64(addresses[lane]) + static_cast<u64>(i64(i.offsets[0]));
        std::memcpy(value, in_lds(wave, i, address, sizeof value, unit_of<T>), sizeof value);
        for (int k = 0; k < words; k++)
            wave.vectors[i.operands[0].index + k][lane] = static_cast<u32>(value[k]);
    });
}

template <class T, int words = 1> void lds_write(Wave &wave, const Instruction &i)
{
    for_each_active(wave, [&](int lane) {
        T value[words];
        for (int k = 0; k < words; k++)
            value[k] = static_cast<T>(wave.vectors[i.operands[1].index + k][lane]);
        const u64 address = lds_address(wave, i.operands[0], lane, i.offsets[0]);
        std::memcpy(in_lds(wave, i, address, sizeof value, unit_of<T>), value, sizeof value);
    });
}

/* Two accesses of words registers, whose offsets count stride of them. */
template <int words, int stride> void lds_read_2(Wave &wave, const Instruction &i)
{
    u32 addresses[max_lanes];
    std::memcpy(addresses, wave.vectors[i.operands[1].index], sizeof addresses);
    for_each_active(wave, [&](int lane) {
        for (int which = 0; which < 2; which++) {
            u32 value[words];
            const u64 address = addresses[lane] + u64(4) * words * stride * static_cast<u64>(i.offsets[which]);
            std::memcpy(value, in_lds(wave, i, address, sizeof value, 4), sizeof value);
            for (int k = 0; k < words; k++)
                wave.vectors[i.operands[0].index + which * words + k][lane] = value[k];
        }
    });
}

template <int words, int stride> void lds_write_2(Wave &wave, const Instruction &i)
{
    for_each_active(wave, [&](int lane) {
        for (std::size_t which = 0; which < 2; which++) {
            u32 value[words];
            for (int k = 0; k < words; k++)
                value[k] = wave.vectors[i.operands[which + 1].index + k][lane];
            const u64 address = lds_address(wave, i.operands[0], lane, 4 * words * stride * i.offsets[which]);
            std::memcpy(in_lds(wave, i, address, sizeof value, 4), value, sizeof value);
        }
    });
}

template <class T, T (*f)(T, T), bool returns> void lds_atomic(Wave &wave, const Instruction &i)
{
    const Operand &address = i.operands[returns], &data = i.operands.at(returns + 1);
    u32 addresses[max_lanes];
    std::memcpy(addresses, wave.vectors[address.index], sizeof addresses);
    for_each_active(wave, [&](int lane) {
        const u64 place = u64(addresses[lane]) + static_cast<u64>(i64(i.offsets[0]));
        const T old = update<T, f>(in_lds(wave, i, place, sizeof(T), sizeof(T)), lane_of<T>(wave, data, lane));
        if (returns)
            set_lane(wave, i.operands[0], lane, old);
    });
}

/* ---- Lanes by way of the LDS hardware ---- */

int lane_at(const Wave &wave, const Instruction &i, const u32 *addresses, int lane)
{
    return static_cast<int>((addresses[lane] + static_cast<u32>(i.offsets[0])) / 4 % wave.program.wave_size);
}

/* Each lane takes data from the lane it names. From an inactive one a GPU would give 0; no shuffle here means that. */
void backward_permute(Wave &wave, const Instruction &i)
{
    u32 addresses[max_lanes], data[max_lanes];
    std::memcpy(addresses, wave.vectors[i.operands[1].index], sizeof addresses);
    std::memcpy(data, wave.vectors[i.operands[2].index], sizeof data);
    for_each_active(wave, [&](int lane) {
        const int from = lane_at(wave, i, addresses, lane);
        if (!(wave.exec() >> from & 1))
            fail(wave, i,
                 "lane " + std::to_string(lane) + " reads lane " + std::to_string(from) + ", which is inactive");
        wave.vectors[i.operands[0].index][lane] = data[from];
    });
}

/* Each lane gives data to the lane it names. */
void forward_permute(Wave &wave, const Instruction &i)
{
    u32 out[max_lanes] = {};
    for_each_active(wave, [&](int lane) {
        out[lane_at(wave, i, wave.vectors[i.operands[1].index], lane)] = wave.vectors[i.operands[2].index][lane];
    });
    write(wave, i, i.operands[0], out);
}

/* The lane that lane reads within its group, by the instruction's 16 bits. */
int swizzled(int lane, unsigned pattern)
{
    if (pattern & 0x8000) /* four lanes */
        return (lane & ~3) + static_cast<int>(pattern >> 2 * (lane & 3) & 3);
    const unsigned in_group = ((static_cast<unsigned>(lane) & pattern) | pattern >> 5) ^ pattern >> 10;
    return (lane & ~31) + static_cast<int>(in_group & 31);
}

void swizzle(Wave &wave, const Instruction &i)
{
    const u32 *data = wave.vectors[i.operands[1].index];
    u32 out[max_lanes] = {};
    for_each_active(wave, [&](int lane) {
        const int from = swizzled(lane, i.words[0] & 0xffff);
        if (!(wave.exec() >> from & 1))
            fail(wave, i,
                 "lane " + std::to_string(lane) + " reads lane " + std::to_string(from) + ", which is inactive");
        out[lane] = data[from];
    });
    write(wave, i, i.operands[0], out);
}

/* ---- The tables ---- */

template <int words> void add_words(Table &t, const std::string &old_name, const std::string &new_name)
{
    for (const std::string &name : {old_name, new_name}) {
        for (const char *space : {"global", "flat"}) {
            t[space + ("_load_" + name)] = {global_load<u32, words>, OFFSETS};
            t[space + ("_store_" + name)] = {global_store<u32, words>, OFFSETS};
        }
        t["s_load_" + name] = {scalar_load<words>, OFFSETS};
    }
    for (const char *verb : {"ds_read_", "ds_load_"})
        t[verb + new_name] = {lds_read<u32, words>, OFFSETS};
    for (const char *verb : {"ds_write_", "ds_store_"})
        t[verb + new_name] = {lds_write<u32, words>, OFFSETS};
}

template <class T> void add_small(Table &t, const std::string &old_name, const std::string &new_name)
{
    for (const char *space : {"global", "flat"})
        for (const std::string &name : {old_name, new_name})
            t[space + ("_load_" + name)] = {global_load<T>, OFFSETS};
    for (const char *verb : {"ds_read_", "ds_load_"})
        t[verb + new_name] = {lds_read<T>, OFFSETS};
}

template <class T> void add_small_stores(Table &t, const std::string &old_name, const std::string &new_name)
{
    for (const char *space : {"global", "flat"})
        for (const std::string &name : {old_name, new_name})
            t[space + ("_store_" + name)] = {global_store<T>, OFFSETS};
    for (const char *verb : {"ds_write_", "ds_store_"})
        t[verb + new_name] = {lds_write<T>, OFFSETS};
}

void add_lds_pairs(Table &t)
{
    t["ds_read2_b32"] = t["ds_load_2addr_b32"] = {lds_read_2<1, 1>, OFFSETS};
    t["ds_read2_b64"] = t["ds_load_2addr_b64"] = {lds_read_2<2, 1>, OFFSETS};
    t["ds_read2st64_b32"] = t["ds_load_2addr_stride64_b32"] = {lds_read_2<1, 64>, OFFSETS};
    t["ds_read2st64_b64"] = t["ds_load_2addr_stride64_b64"] = {lds_read_2<2, 64>, OFFSETS};
    t["ds_write2_b32"] = t["ds_store_2addr_b32"] = {lds_write_2<1, 1>, OFFSETS};
    t["ds_write2_b64"] = t["ds_store_2addr_b64"] = {lds_write_2<2, 1>, OFFSETS};
    t["ds_write2st64_b32"] = t["ds_store_2addr_stride64_b32"] = {lds_write_2<1, 64>, OFFSETS};
    t["ds_write2st64_b64"] = t["ds_store_2addr_stride64_b64"] = {lds_write_2<2, 64>, OFFSETS};
}

/* Names of atomics: old global ("or", "umax_x2"), new global ("or_b32", "max_u64") and LDS. */
template <class T, T (*f)(T, T)> void add_atomic(Table &t, const std::string &old_name, const std::string &new_name)
{
    const std::string wide = sizeof(T) == 8 ? "_x2" : "";
    for (const char *space : {"global_atomic_", "flat_atomic_"})
        t[space + old_name + wide] = t[space + new_name] = {global_atomic<T, f>, RETURNS | OFFSETS};
    t["ds_" + new_name] = {lds_atomic<T, f, false>, OFFSETS};
    const std::size_t type = new_name.find('_');
    t["ds_" + new_name.substr(0, type) + "_rtn" + new_name.substr(type)] = {lds_atomic<T, f, true>, OFFSETS};
}

template <class T> void add_atomics(Table &t, const std::string &bits)
{
    using Signed = std::make_signed_t<T>;
    add_atomic<T, add<T>>(t, "add", "add_u" + bits);
    add_atomic<T, sub<T>>(t, "sub", "sub_u" + bits);
    add_atomic<T, bit_and<T>>(t, "and", "and_b" + bits);
    add_atomic<T, bit_or<T>>(t, "or", "or_b" + bits);
    add_atomic<T, bit_xor<T>>(t, "xor", "xor_b" + bits);
    add_atomic<T, least<T>>(t, "umin", "min_u" + bits);
    add_atomic<T, greatest<T>>(t, "umax", "max_u" + bits);
    add_atomic<Signed, least<Signed>>(t, "smin", "min_i" + bits);
    add_atomic<Signed, greatest<Signed>>(t, "smax", "max_i" + bits);
    add_atomic<T, exchange<T>>(t, "swap", "swap_b" + bits);
    for (const char *space : {"global_atomic_", "flat_atomic_"})
        t[space + std::string("cmpswap") + (sizeof(T) == 8 ? "_x2" : "")] =
            t[space + ("cmpswap_b" + bits)] = {global_compare_exchange<T>, RETURNS | OFFSETS};
}

} // namespace

void add_memory(Table &table)
{
    add_words<1>(table, "dword", "b32");
    add_words<2>(table, "dwordx2", "b64");
    add_words<3>(table, "dwordx3", "b96");
    add_words<4>(table, "dwordx4", "b128");
    table["s_load_dwordx8"] = table["s_load_b256"] = {scalar_load<8>, OFFSETS};
    table["s_load_dwordx16"] = table["s_load_b512"] = {scalar_load<16>, OFFSETS};
    add_small<std::uint8_t>(table, "ubyte", "u8");
    add_small<std::int8_t>(table, "sbyte", "i8");
    add_small<u16>(table, "ushort", "u16");
    add_small<i16>(table, "sshort", "i16");
    add_small_stores<std::uint8_t>(table, "byte", "b8");
    add_small_stores<u16>(table, "short", "b16");
    add_lds_pairs(table);
    add_atomics<u32>(table, "32");
    add_atomics<u64>(table, "64");
    table["ds_bpermute_b32"] = {backward_permute, OFFSETS};
    table["ds_permute_b32"] = {forward_permute, OFFSETS};
    table["ds_swizzle_b32"] = {swizzle, OFFSETS};
}

} // namespace amdgpu
