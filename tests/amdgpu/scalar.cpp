/* Scalar instructions: arithmetic, tests, branches, and loads of constants. */
#include "wave.hpp"

namespace amdgpu
{

namespace
{

/* Operations by the type of their operands. Those that set SCC do so through the reference; it holds SCC before. */

template <class T> T mov(T a, bool &)
{
    return a;
}
template <class T> T bit_not(T a, bool &scc)
{
    return scc = static_cast<T>(~a) != 0, static_cast<T>(~a);
}
template <class T> T reversed(T a, bool &)
{
    T out = 0;
    for (unsigned bit = 0; bit < 8 * sizeof(T); bit++)
        out |= (a >> bit & 1) << (8 * sizeof(T) - 1 - bit);
    return out;
}
template <class T> u32 count_ones(T a, bool &scc)
{
    const auto count = static_cast<u32>(__builtin_popcountll(a));
    return scc = count != 0, count;
}
template <class T> u32 count_zeros(T a, bool &scc)
{
    const auto count = static_cast<u32>(8 * sizeof(T) - static_cast<unsigned>(__builtin_popcountll(a)));
    return scc = count != 0, count;
}
template <class T> u32 lowest_one(T a, bool &)
{
    return a ? static_cast<u32>(__builtin_ctzll(a)) : ~u32(0);
}
template <class T> u32 lowest_zero(T a, bool &scc)
{
    return lowest_one<T>(static_cast<T>(~a), scc);
}
template <class T> u32 leading_zeros(T a, bool &)
{
    return a ? static_cast<u32>(__builtin_clzll(a)) - (64 - 8 * static_cast<u32>(sizeof(T))) : ~u32(0);
}
/* The first bit that differs from the sign, counted from the top. */
template <class T> u32 leading_signs(T a, bool &scc)
{
    using Signed = std::make_signed_t<T>;
    return leading_zeros<T>(static_cast<Signed>(a) < 0 ? static_cast<T>(~a) : a, scc);
}
template <class T> u32 extended(u32 a, bool &)
{
    return static_cast<u32>(static_cast<i32>(static_cast<T>(a)));
}
u32 absolute(u32 a, bool &scc)
{
    const u32 r = static_cast<i32>(a) < 0 ? 0 - a : a;
    return scc = r != 0, r;
}

u32 add_unsigned(u32 a, u32 b, bool &scc)
{
    const u32 r = a + b;
    return scc = r < a, r;
}
u32 sub_unsigned(u32 a, u32 b, bool &scc)
{
    return scc = a < b, a - b;
}
u32 add_carry(u32 a, u32 b, bool &scc)
{
    const u64 r = u64(a) + b + scc;
    return scc = r >> 32, static_cast<u32>(r);
}
u32 sub_borrow(u32 a, u32 b, bool &scc)
{
    const u64 taken = u64(b) + scc;
    return scc = taken > a, static_cast<u32>(a - taken);
}
u32 add_signed(u32 a, u32 b, bool &scc)
{
    i32 r;
    return scc = __builtin_add_overflow(static_cast<i32>(a), static_cast<i32>(b), &r), static_cast<u32>(r);
}
u32 sub_signed(u32 a, u32 b, bool &scc)
{
    i32 r;
    return scc = __builtin_sub_overflow(static_cast<i32>(a), static_cast<i32>(b), &r), static_cast<u32>(r);
}
u32 mul(u32 a, u32 b, bool &)
{
    return a * b;
}
u32 mul_high(u32 a, u32 b, bool &)
{
    return static_cast<u32>(u64(a) * b >> 32);
}
u32 mul_high_signed(u32 a, u32 b, bool &)
{
    return static_cast<u32>(i64(static_cast<i32>(a)) * static_cast<i32>(b) >> 32);
}
/* SCC: whether the first one was it. */
template <class T> u32 least(u32 a, u32 b, bool &scc)
{
    scc = static_cast<T>(a) < static_cast<T>(b);
    return scc ? a : b;
}
template <class T> u32 greatest(u32 a, u32 b, bool &scc)
{
    scc = static_cast<T>(a) > static_cast<T>(b);
    return scc ? a : b;
}
u32 difference(u32 a, u32 b, bool &scc)
{
    const u32 r = static_cast<i32>(a) > static_cast<i32>(b) ? a - b : b - a;
    return scc = r != 0, r;
}
template <class T> T select(T a, T b, bool &scc)
{
    return scc ? a : b;
}

template <class T> T with_scc(T r, bool &scc)
{
    return scc = r != 0, r;
}
template <class T> T bit_and(T a, T b, bool &scc)
{
    return with_scc<T>(a & b, scc);
}
template <class T> T bit_or(T a, T b, bool &scc)
{
    return with_scc<T>(a | b, scc);
}
template <class T> T bit_xor(T a, T b, bool &scc)
{
    return with_scc<T>(a ^ b, scc);
}
template <class T> T and_not(T a, T b, bool &scc)
{
    return with_scc<T>(a & ~b, scc);
}
template <class T> T not_and(T a, T b, bool &scc)
{
    return with_scc<T>(~a & b, scc);
}
template <class T> T or_not(T a, T b, bool &scc)
{
    return with_scc<T>(a | ~b, scc);
}
template <class T> T not_or(T a, T b, bool &scc)
{
    return with_scc<T>(~a | b, scc);
}
template <class T> T nand(T a, T b, bool &scc)
{
    return with_scc<T>(~(a & b), scc);
}
template <class T> T nor(T a, T b, bool &scc)
{
    return with_scc<T>(~(a | b), scc);
}
template <class T> T xnor(T a, T b, bool &scc)
{
    return with_scc<T>(~(a ^ b), scc);
}

template <class T> T shift_left(T a, u32 b, bool &scc)
{
    return with_scc<T>(a << b % (8 * sizeof(T)), scc);
}
template <class T> T shift_right(T a, u32 b, bool &scc)
{
    return with_scc<T>(a >> b % (8 * sizeof(T)), scc);
}
template <class T> T shift_right_signed(T a, u32 b, bool &scc)
{
    return with_scc<T>(static_cast<T>(static_cast<std::make_signed_t<T>>(a) >> b % (8 * sizeof(T))), scc);
}
template <unsigned shift> u32 shift_add(u32 a, u32 b, bool &scc)
{
    const u64 r = (u64(a) << shift) + b;
    return scc = r >> 32, static_cast<u32>(r);
}
/* b: where the field begins, and from bit 16 on how wide it is. */
template <class T> T field(T a, u32 b, bool &scc)
{
    const u32 bits = 8 * sizeof(T), first = b % bits, width = b >> 16 & 0x7f;
    const T low = static_cast<T>(a >> first);
    return with_scc<T>(width >= bits ? low : low & ((T(1) << width) - 1), scc);
}
template <class T> T field_signed(T a, u32 b, bool &scc)
{
    const u32 bits = 8 * sizeof(T), first = b % bits, width = b >> 16 & 0x7f;
    if (!width)
        return with_scc<T>(0, scc);
    const u32 kept = width > bits - first ? bits - first : width;
    const T high = static_cast<T>(a << (bits - first - kept));
    return with_scc<T>(static_cast<T>(static_cast<std::make_signed_t<T>>(high) >> (bits - kept)), scc);
}
template <class T> T field_mask(u32 a, u32 b, bool &)
{
    const u32 bits = 8 * sizeof(T);
    return static_cast<T>(((T(1) << a % bits) - 1) << b % bits);
}
u32 pack_low_low(u32 a, u32 b, bool &)
{
    return (a & 0xffff) | b << 16;
}
u32 pack_low_high(u32 a, u32 b, bool &)
{
    return (a & 0xffff) | (b & 0xffff0000);
}
u32 pack_high_high(u32 a, u32 b, bool &)
{
    return a >> 16 | (b & 0xffff0000);
}

template <class T> bool is_equal(T a, T b)
{
    return a == b;
}
template <class T> bool is_other(T a, T b)
{
    return a != b;
}
template <class T> bool is_less(T a, T b)
{
    return a < b;
}
template <class T> bool is_at_most(T a, T b)
{
    return a <= b;
}
template <class T> bool is_greater(T a, T b)
{
    return a > b;
}
template <class T> bool is_at_least(T a, T b)
{
    return a >= b;
}
template <class T> bool bit_is_0(T a, u32 b)
{
    return !(a >> b % (8 * sizeof(T)) & 1);
}
template <class T> bool bit_is_1(T a, u32 b)
{
    return a >> b % (8 * sizeof(T)) & 1;
}

/* ---- From operations to instructions ---- */

template <class T> T read(const Wave &wave, const Instruction &instruction, const Operand &operand)
{
    if constexpr (sizeof(T) == 8)
        return static_cast<T>(read64(wave, instruction, operand));
    else
        return static_cast<T>(read32(wave, operand));
}

void write(Wave &wave, const Operand &operand, u32 value)
{
    write32(wave, operand, value);
}

void write(Wave &wave, const Operand &operand, u64 value)
{
    write64(wave, operand, value);
}

template <class R, class A> void apply(R (*f)(A, bool &), Wave &wave, const Instruction &i)
{
    const R result = f(read<A>(wave, i, i.operands[1]), wave.scc);
    write(wave, i.operands[0], result);
}

template <class R, class A, class B> void apply(R (*f)(A, B, bool &), Wave &wave, const Instruction &i)
{
    const R result = f(read<A>(wave, i, i.operands[1]), read<B>(wave, i, i.operands[2]), wave.scc);
    write(wave, i.operands[0], result);
}

template <class A, class B> void apply(bool (*f)(A, B), Wave &wave, const Instruction &i)
{
    wave.scc = f(read<A>(wave, i, i.operands[0]), read<B>(wave, i, i.operands[1]));
}

template <auto f> void scalar(Wave &wave, const Instruction &instruction)
{
    apply(f, wave, instruction);
}

/* The 16 bits of an instruction that has its constant within itself. */
template <class T> T inner_constant(const Instruction &i)
{
    if constexpr (std::is_signed_v<T>)
        return static_cast<i16>(i.operands[1].value);
    else
        return static_cast<u16>(i.operands[1].value);
}

/* The destination is the first source too. */
template <auto f> void in_place(Wave &wave, const Instruction &i)
{
    const auto b = static_cast<u32>(inner_constant<i32>(i));
    write32(wave, i.operands[0], f(read32(wave, i.operands[0]), b, wave.scc));
}

void move_inner(Wave &wave, const Instruction &i)
{
    write32(wave, i.operands[0], static_cast<u32>(inner_constant<i32>(i)));
}

void move_inner_if_scc(Wave &wave, const Instruction &i)
{
    if (wave.scc)
        move_inner(wave, i);
}

template <class T, bool (*f)(T, T)> void compare_inner(Wave &wave, const Instruction &i)
{
    wave.scc = f(static_cast<T>(read32(wave, i.operands[0])), inner_constant<T>(i));
}

template <class T, bool value> void set_bit(Wave &wave, const Instruction &i)
{
    const T bit = T(1) << read32(wave, i.operands[1]) % (8 * sizeof(T)), old = read<T>(wave, i, i.operands[0]);
    write(wave, i.operands[0], static_cast<T>(value ? old | bit : old & ~bit));
}

template <class T> void move_if_scc(Wave &wave, const Instruction &i)
{
    if (wave.scc)
        write(wave, i.operands[0], read<T>(wave, i, i.operands[1]));
}

/* exec becomes f(source, exec), and the destination exec as it was. */
template <class T, T (*f)(T, T, bool &)> void save_exec(Wave &wave, const Instruction &i)
{
    static const Operand exec = {Operand::scalar, EXEC, sizeof(T) / 4};
    const T source = read<T>(wave, i, i.operands[1]), before = read<T>(wave, i, exec);
    write(wave, i.operands[0], before);
    write(wave, exec, f(source, before, wave.scc));
}

/* exec and the destination become f(source, exec). */
template <class T, T (*f)(T, T, bool &)> void write_exec(Wave &wave, const Instruction &i)
{
    static const Operand exec = {Operand::scalar, EXEC, sizeof(T) / 4};
    const T result = f(read<T>(wave, i, i.operands[1]), read<T>(wave, i, exec), wave.scc);
    write(wave, i.operands[0], result);
    write(wave, exec, result);
}

/* ---- Control ---- */

void nothing(Wave &, const Instruction &)
{
}

void end(Wave &wave, const Instruction &)
{
    wave.state = State::ended;
}

void barrier(Wave &wave, const Instruction &)
{
    wave.state = State::at_barrier;
}

void code_end(Wave &wave, const Instruction &instruction)
{
    fail(wave, instruction, "runs past the kernel's end");
}

u64 vcc_of(const Wave &wave)
{
    return wave.scalars[VCC] | (wave.program.wave_size == 64 ? u64(wave.scalars[VCC + 1]) << 32 : 0);
}

bool always(const Wave &)
{
    return true;
}
bool scc_is_0(const Wave &wave)
{
    return !wave.scc;
}
bool scc_is_1(const Wave &wave)
{
    return wave.scc;
}
bool vcc_is_0(const Wave &wave)
{
    return !vcc_of(wave);
}
bool vcc_is_not_0(const Wave &wave)
{
    return vcc_of(wave);
}
bool exec_is_0(const Wave &wave)
{
    return !wave.exec();
}
bool exec_is_not_0(const Wave &wave)
{
    return wave.exec();
}

template <bool (*condition)(const Wave &)> void branch(Wave &wave, const Instruction &instruction)
{
    if (condition(wave))
        wave.next = instruction.target;
}

/* Addresses are the host's, those of code included. */
void get_pc(Wave &wave, const Instruction &i)
{
    write64(wave, i.operands[0], wave.program.base + i.address + 4 * i.words.size());
}

/* ---- The tables ---- */

template <class T> void add_logic(Table &t, const std::string &b)
{
    t["s_and_" + b] = {scalar<bit_and<T>>, 0};
    t["s_or_" + b] = {scalar<bit_or<T>>, 0};
    t["s_xor_" + b] = {scalar<bit_xor<T>>, 0};
    t["s_andn2_" + b] = t["s_and_not1_" + b] = {scalar<and_not<T>>, 0};
    t["s_orn2_" + b] = t["s_or_not1_" + b] = {scalar<or_not<T>>, 0};
    t["s_nand_" + b] = {scalar<nand<T>>, 0};
    t["s_nor_" + b] = {scalar<nor<T>>, 0};
    t["s_xnor_" + b] = {scalar<xnor<T>>, 0};
    t["s_and_saveexec_" + b] = {save_exec<T, bit_and<T>>, 0};
    t["s_or_saveexec_" + b] = {save_exec<T, bit_or<T>>, 0};
    t["s_xor_saveexec_" + b] = {save_exec<T, bit_xor<T>>, 0};
    t["s_andn2_saveexec_" + b] = t["s_and_not1_saveexec_" + b] = {save_exec<T, and_not<T>>, 0};
    t["s_andn1_saveexec_" + b] = t["s_and_not0_saveexec_" + b] = {save_exec<T, not_and<T>>, 0};
    t["s_orn2_saveexec_" + b] = t["s_or_not1_saveexec_" + b] = {save_exec<T, or_not<T>>, 0};
    t["s_orn1_saveexec_" + b] = t["s_or_not0_saveexec_" + b] = {save_exec<T, not_or<T>>, 0};
    t["s_andn2_wrexec_" + b] = t["s_and_not1_wrexec_" + b] = {write_exec<T, and_not<T>>, 0};
    t["s_andn1_wrexec_" + b] = t["s_and_not0_wrexec_" + b] = {write_exec<T, not_and<T>>, 0};
}

template <class T> void add_bits(Table &t, const std::string &b)
{
    t["s_mov_" + b] = {scalar<mov<T>>, 0};
    t["s_cmov_" + b] = {move_if_scc<T>, 0};
    t["s_cselect_" + b] = {scalar<select<T>>, 0};
    t["s_not_" + b] = {scalar<bit_not<T>>, 0};
    t["s_brev_" + b] = {scalar<reversed<T>>, 0};
    t["s_bcnt0_i32_" + b] = {scalar<count_zeros<T>>, 0};
    t["s_bcnt1_i32_" + b] = {scalar<count_ones<T>>, 0};
    t["s_ff0_i32_" + b] = {scalar<lowest_zero<T>>, 0};
    t["s_ff1_i32_" + b] = t["s_ctz_i32_" + b] = {scalar<lowest_one<T>>, 0};
    t["s_flbit_i32_" + b] = {scalar<leading_zeros<T>>, 0};
    t["s_bitset0_" + b] = {set_bit<T, false>, 0};
    t["s_bitset1_" + b] = {set_bit<T, true>, 0};
    t["s_lshl_" + b] = {scalar<shift_left<T>>, 0};
    t["s_lshr_" + b] = {scalar<shift_right<T>>, 0};
    t["s_bfm_" + b] = {scalar<field_mask<T>>, 0};
    t["s_bitcmp0_" + b] = {scalar<bit_is_0<T>>, 0};
    t["s_bitcmp1_" + b] = {scalar<bit_is_1<T>>, 0};
}

template <class T, bool (*f)(T, T)> void add_compare(Table &t, const std::string &name)
{
    t["s_cmp_" + name] = {scalar<f>, 0};
    if constexpr (sizeof(T) == 4)
        t["s_cmpk_" + name] = {compare_inner<T, f>, 0};
}

template <class T> void add_compares(Table &t, const std::string &type)
{
    add_compare<T, is_equal<T>>(t, "eq_" + type);
    add_compare<T, is_other<T>>(t, "lg_" + type);
    add_compare<T, is_less<T>>(t, "lt_" + type);
    add_compare<T, is_at_most<T>>(t, "le_" + type);
    add_compare<T, is_greater<T>>(t, "gt_" + type);
    add_compare<T, is_at_least<T>>(t, "ge_" + type);
}

void add_arithmetic(Table &t)
{
    t["s_add_u32"] = {scalar<add_unsigned>, 0};
    t["s_sub_u32"] = {scalar<sub_unsigned>, 0};
    t["s_addc_u32"] = {scalar<add_carry>, 0};
    t["s_subb_u32"] = {scalar<sub_borrow>, 0};
    t["s_add_i32"] = {scalar<add_signed>, 0};
    t["s_sub_i32"] = {scalar<sub_signed>, 0};
    t["s_addk_i32"] = {in_place<add_signed>, 0};
    t["s_mulk_i32"] = {in_place<mul>, 0};
    t["s_mul_i32"] = {scalar<mul>, 0};
    t["s_mul_hi_u32"] = {scalar<mul_high>, 0};
    t["s_mul_hi_i32"] = {scalar<mul_high_signed>, 0};
    t["s_min_u32"] = {scalar<least<u32>>, 0};
    t["s_min_i32"] = {scalar<least<i32>>, 0};
    t["s_max_u32"] = {scalar<greatest<u32>>, 0};
    t["s_max_i32"] = {scalar<greatest<i32>>, 0};
    t["s_abs_i32"] = {scalar<absolute>, 0};
    t["s_absdiff_i32"] = {scalar<difference>, 0};
    t["s_movk_i32"] = {move_inner, 0};
    t["s_cmovk_i32"] = {move_inner_if_scc, 0};
    t["s_sext_i32_i8"] = {scalar<extended<std::int8_t>>, 0};
    t["s_sext_i32_i16"] = {scalar<extended<i16>>, 0};
    t["s_ashr_i32"] = {scalar<shift_right_signed<u32>>, 0};
    t["s_ashr_i64"] = {scalar<shift_right_signed<u64>>, 0};
    t["s_lshl1_add_u32"] = {scalar<shift_add<1>>, 0};
    t["s_lshl2_add_u32"] = {scalar<shift_add<2>>, 0};
    t["s_lshl3_add_u32"] = {scalar<shift_add<3>>, 0};
    t["s_lshl4_add_u32"] = {scalar<shift_add<4>>, 0};
    t["s_bfe_u32"] = {scalar<field<u32>>, 0};
    t["s_bfe_u64"] = {scalar<field<u64>>, 0};
    t["s_bfe_i32"] = {scalar<field_signed<u32>>, 0};
    t["s_bfe_i64"] = {scalar<field_signed<u64>>, 0};
    t["s_clz_i32_u32"] = {scalar<leading_zeros<u32>>, 0};
    t["s_clz_i32_u64"] = {scalar<leading_zeros<u64>>, 0};
    t["s_flbit_i32"] = t["s_cls_i32"] = {scalar<leading_signs<u32>>, 0};
    t["s_flbit_i32_i64"] = t["s_cls_i32_i64"] = {scalar<leading_signs<u64>>, 0};
    t["s_pack_ll_b32_b16"] = {scalar<pack_low_low>, 0};
    t["s_pack_lh_b32_b16"] = {scalar<pack_low_high>, 0};
    t["s_pack_hh_b32_b16"] = {scalar<pack_high_high>, 0};
}

void add_control(Table &t)
{
    t["s_endpgm"] = {end, 0};
    t["s_barrier"] = {barrier, 0};
    t["s_code_end"] = {code_end, 0};
    t["s_getpc_b64"] = {get_pc, 0};
    t["s_branch"] = {branch<always>, BRANCHES};
    t["s_cbranch_scc0"] = {branch<scc_is_0>, BRANCHES};
    t["s_cbranch_scc1"] = {branch<scc_is_1>, BRANCHES};
    t["s_cbranch_vccz"] = {branch<vcc_is_0>, BRANCHES};
    t["s_cbranch_vccnz"] = {branch<vcc_is_not_0>, BRANCHES};
    t["s_cbranch_execz"] = {branch<exec_is_0>, BRANCHES};
    t["s_cbranch_execnz"] = {branch<exec_is_not_0>, BRANCHES};
    /* Time, order and caches: here every access is done when its instruction is. */
    for (const char *name : {"s_nop",
                             "s_waitcnt",
                             "s_waitcnt_depctr",
                             "s_waitcnt_vscnt",
                             "s_waitcnt_vmcnt",
                             "s_waitcnt_lgkmcnt",
                             "s_waitcnt_expcnt",
                             "s_clause",
                             "s_delay_alu",
                             "s_inst_prefetch",
                             "s_set_inst_prefetch_distance",
                             "s_setprio",
                             "s_sleep",
                             "s_icache_inv",
                             "s_dcache_wb",
                             "s_wait_idle",
                             "s_sendmsg",
                             "buffer_gl0_inv",
                             "buffer_gl1_inv",
                             "buffer_wbinvl1",
                             "buffer_wbinvl1_vol",
                             "buffer_wbl2",
                             "buffer_invl2",
                             "buffer_inv"})
        t[name] = {nothing, IGNORED};
}

} // namespace

void add_scalar(Table &table)
{
    add_bits<u32>(table, "b32");
    add_bits<u64>(table, "b64");
    add_logic<u32>(table, "b32");
    add_logic<u64>(table, "b64");
    add_compares<u32>(table, "u32");
    add_compares<i32>(table, "i32");
    add_compares<u64>(table, "u64");
    add_arithmetic(table);
    add_control(table);
}

} // namespace amdgpu
