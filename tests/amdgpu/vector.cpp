/* Vector arithmetic: every active lane of a wave does the same. */
#include <cmath>

#include "wave.hpp"

namespace amdgpu
{

namespace
{

/* ---- Operations of one lane ---- */

template <class T> T mov(T a)
{
    return a;
}
u32 bit_not(u32 a)
{
    return ~a;
}
u32 reversed(u32 a)
{
    a = (a >> 1 & 0x55555555) | (a & 0x55555555) << 1;
    a = (a >> 2 & 0x33333333) | (a & 0x33333333) << 2;
    a = (a >> 4 & 0x0f0f0f0f) | (a & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(a);
}
u32 leading_zeros(u32 a)
{
    return a ? static_cast<u32>(__builtin_clz(a)) : ~u32(0);
}
u32 leading_signs(u32 a)
{
    return leading_zeros(static_cast<i32>(a) < 0 ? ~a : a);
}
u32 lowest_one(u32 a)
{
    return a ? static_cast<u32>(__builtin_ctz(a)) : ~u32(0);
}

template <class T> T add(T a, T b)
{
    return static_cast<T>(a + b);
}
template <class T> T sub(T a, T b)
{
    return static_cast<T>(a - b);
}
template <class T> T mul(T a, T b)
{
    return static_cast<T>(u32(a) * u32(b));
}
u32 add_clamped(u32 a, u32 b)
{
    return a + b < a ? ~u32(0) : a + b;
}
u32 sub_clamped(u32 a, u32 b)
{
    return a < b ? 0 : a - b;
}
u32 mul_high(u32 a, u32 b)
{
    return static_cast<u32>(u64(a) * b >> 32);
}
u32 mul_high_signed(i32 a, i32 b)
{
    return static_cast<u32>(i64(a) * b >> 32);
}
u32 low_24(u32 a)
{
    return a & 0xffffff;
}
i32 signed_24(u32 a)
{
    return static_cast<i32>(a << 8) >> 8;
}
u32 mul_24(u32 a, u32 b)
{
    return low_24(a) * low_24(b);
}
u32 mul_high_24(u32 a, u32 b)
{
    return static_cast<u32>(u64(low_24(a)) * low_24(b) >> 32);
}
u32 mul_signed_24(u32 a, u32 b)
{
    return static_cast<u32>(i64(signed_24(a)) * signed_24(b));
}
u32 mad_24(u32 a, u32 b, u32 c)
{
    return mul_24(a, b) + c;
}
u32 mad_signed_24(u32 a, u32 b, u32 c)
{
    return mul_signed_24(a, b) + c;
}
template <class T> T least(T a, T b)
{
    return a < b ? a : b;
}
template <class T> T greatest(T a, T b)
{
    return a > b ? a : b;
}
template <class T> T least_of_3(T a, T b, T c)
{
    return least(least(a, b), c);
}
template <class T> T greatest_of_3(T a, T b, T c)
{
    return greatest(greatest(a, b), c);
}
template <class T> T median(T a, T b, T c)
{
    return greatest(least(a, b), least(greatest(a, b), c));
}
template <class T> T min_of_max(T a, T b, T c)
{
    return least(greatest(a, b), c);
}
template <class T> T max_of_min(T a, T b, T c)
{
    return greatest(least(a, b), c);
}

u32 bit_and(u32 a, u32 b)
{
    return a & b;
}
u32 bit_or(u32 a, u32 b)
{
    return a | b;
}
u32 bit_xor(u32 a, u32 b)
{
    return a ^ b;
}
u32 xnor(u32 a, u32 b)
{
    return ~(a ^ b);
}
u32 or_3(u32 a, u32 b, u32 c)
{
    return a | b | c;
}
u32 xor_3(u32 a, u32 b, u32 c)
{
    return a ^ b ^ c;
}
u32 and_or(u32 a, u32 b, u32 c)
{
    return (a & b) | c;
}
u32 choose_bits(u32 mask, u32 a, u32 b)
{
    return (mask & a) | (~mask & b);
}
/* Shifts have the count first; only its low bits count. */
template <class T> T shift_left(u32 count, T a)
{
    return static_cast<T>(a << count % (8 * sizeof(T)));
}
template <class T> T shift_right(u32 count, T a)
{
    return static_cast<T>(a >> count % (8 * sizeof(T)));
}
u32 shift_left_add(u32 a, u32 b, u32 c)
{
    return (a << b % 32) + c;
}
u32 add_shift_left(u32 a, u32 b, u32 c)
{
    return (a + b) << c % 32;
}
u32 shift_left_or(u32 a, u32 b, u32 c)
{
    return (a << b % 32) | c;
}
u32 xor_add(u32 a, u32 b, u32 c)
{
    return (a ^ b) + c;
}
u32 add_3(u32 a, u32 b, u32 c)
{
    return a + b + c;
}
u64 shift_left_add_64(u64 a, u32 b, u64 c)
{
    return (a << (b & 7)) + c;
}
u32 field(u32 a, u32 first, u32 width)
{
    return (a >> first % 32) & ((u32(1) << width % 32) - 1);
}
u32 field_signed(u32 a, u32 first, u32 width)
{
    const u32 wide = width % 32, low = a >> first % 32;
    if (!wide)
        return 0;
    if (first % 32 + wide >= 32)
        return static_cast<u32>(static_cast<i32>(a) >> first % 32);
    return static_cast<u32>(static_cast<i32>(low << (32 - wide)) >> (32 - wide));
}
u32 field_mask(u32 width, u32 first)
{
    return ((u32(1) << width % 32) - 1) << first % 32;
}
u32 align_bits(u32 high, u32 low, u32 count)
{
    return static_cast<u32>((u64(high) << 32 | low) >> count % 32);
}
u32 align_bytes(u32 high, u32 low, u32 count)
{
    return static_cast<u32>((u64(high) << 32 | low) >> 8 * (count % 4));
}
u32 permuted_byte(u64 bytes, u32 selector)
{
    if (selector >= 13)
        return 0xff;
    if (selector == 12)
        return 0;
    if (selector >= 8) /* the sign of one of four halves */
        return bytes >> (16 * (selector - 8) + 15) & 1 ? 0xff : 0;
    return bytes >> 8 * selector & 0xff;
}
u32 permute_bytes(u32 high, u32 low, u32 selectors)
{
    u32 out = 0;
    for (int k = 0; k < 4; k++)
        out |= permuted_byte(u64(high) << 32 | low, selectors >> 8 * k & 0xff) << 8 * k;
    return out;
}
u32 count_ones_add(u32 a, u32 b)
{
    return static_cast<u32>(__builtin_popcount(a)) + b;
}

float add_float(float a, float b)
{
    return a + b;
}
float sub_float(float a, float b)
{
    return a - b;
}
float mul_float(float a, float b)
{
    return a * b;
}
float fused(float a, float b, float c)
{
    return std::fma(a, b, c);
}
float multiply_add(float a, float b, float c)
{
    const volatile float product = a * b; /* rounded by itself */
    return product + c;
}
float reciprocal(float a) /* the GPU's may be off by one unit in the last place */
{
    return 1 / a;
}
float truncated(float a)
{
    return std::trunc(a);
}
float rounded_down(float a)
{
    return std::floor(a);
}
template <class T> float to_float(T a)
{
    return static_cast<float>(a);
}
template <unsigned byte> float byte_to_float(u32 a)
{
    return static_cast<float>(a >> 8 * byte & 0xff);
}
u32 to_unsigned(float a)
{
    if (!(a > 0))
        return 0;
    return a >= 4294967296.0f ? ~u32(0) : static_cast<u32>(a);
}
i32 to_signed(float a)
{
    if (std::isnan(a))
        return 0;
    return a >= 2147483648.0f ? INT32_MAX : a < -2147483648.0f ? INT32_MIN : static_cast<i32>(a);
}

/* ---- From operations to instructions ---- */

template <class R, class A> void apply(R (*f)(A), Wave &wave, const Instruction &i)
{
    const Source<A> a(wave, i, 0, i.operands[1]);
    R out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        out[lane] = f(a[lane]);
    write(wave, i, i.operands[0], out);
}

template <class R, class A, class B>
void apply_2(R (*f)(A, B), Wave &wave, const Instruction &i, const Source<A> &a, const Source<B> &b)
{
    R out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        out[lane] = f(a[lane], b[lane]);
    write(wave, i, i.operands[0], out);
}

template <class R, class A, class B> void apply(R (*f)(A, B), Wave &wave, const Instruction &i)
{
    apply_2(f, wave, i, Source<A>(wave, i, 0, i.operands[1]), Source<B>(wave, i, 1, i.operands[2]));
}

template <class R, class A, class B, class C> void apply(R (*f)(A, B, C), Wave &wave, const Instruction &i)
{
    const Source<A> a(wave, i, 0, i.operands[1]);
    const Source<B> b(wave, i, 1, i.operands[2]);
    const Source<C> c(wave, i, 2, i.operands[3]);
    R out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        out[lane] = f(a[lane], b[lane], c[lane]);
    write(wave, i, i.operands[0], out);
}

template <auto f> void vector(Wave &wave, const Instruction &instruction)
{
    apply(f, wave, instruction);
}

/* The sources in the other order. */
template <class R, class A, class B> void apply_reversed(R (*f)(A, B), Wave &wave, const Instruction &i)
{
    apply_2(f, wave, i, Source<A>(wave, i, 1, i.operands[2]), Source<B>(wave, i, 0, i.operands[1]));
}

template <auto f> void reverse(Wave &wave, const Instruction &instruction)
{
    apply_reversed(f, wave, instruction);
}

/* The destination is the addend too. */
template <float (*f)(float, float, float)> void accumulate(Wave &wave, const Instruction &i)
{
    const Source<float> a(wave, i, 0, i.operands[1]), b(wave, i, 1, i.operands[2]), c(wave, i, 2, i.operands[0]);
    float out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        out[lane] = f(a[lane], b[lane], c[lane]);
    write(wave, i, i.operands[0], out);
}

/* A mask from the lanes where bits is 1; 0 for inactive lanes. The product gathers the low bits of eight bytes in its
 * highest. */
u64 mask_of(const Wave &wave, const bool *bits)
{
    u64 mask = 0;
    for (int lane = 0; lane < max_lanes; lane += 8) {
        u64 eight;
        std::memcpy(&eight, bits + lane, sizeof eight);
        mask |= (eight * 0x0102040810204080 >> 56) << lane;
    }
    return mask & wave.exec();
}

/* ---- Sums with carries ---- */

struct Carried {
    u32 value;
    bool carry;
};

Carried add_carry(u32 a, u32 b, bool carry)
{
    const u64 sum = u64(a) + b + carry;
    return {static_cast<u32>(sum), (sum >> 32) != 0};
}
Carried sub_borrow(u32 a, u32 b, bool borrow)
{
    const u64 taken = u64(b) + borrow;
    return {static_cast<u32>(a - taken), taken > a};
}
Carried sub_borrow_reversed(u32 a, u32 b, bool borrow)
{
    return sub_borrow(b, a, borrow);
}

template <Carried (*f)(u32, u32, bool)> void carry(Wave &wave, const Instruction &i)
{
    const Source<u32> a(wave, i, 0, i.operands[2]), b(wave, i, 1, i.operands[3]);
    const u64 in = i.operands.size() > 4 ? read_mask(wave, i, i.operands[4]) : 0;
    u32 out[max_lanes];
    bool carries[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++) {
        const Carried r = f(a[lane], b[lane], in >> lane & 1);
        out[lane] = r.value;
        carries[lane] = r.carry;
    }
    const u64 mask = mask_of(wave, carries);
    write(wave, i, i.operands[0], out);
    write_mask(wave, i.operands[1], mask);
}

/* a * b + c in 64 bits, and whether that left them. */
template <class T, class Wide> void multiply_add_64(Wave &wave, const Instruction &i)
{
    const Source<T> a(wave, i, 0, i.operands[2]), b(wave, i, 1, i.operands[3]);
    const Source<Wide> c(wave, i, 2, i.operands[4]);
    Wide out[max_lanes];
    bool carries[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        carries[lane] = __builtin_add_overflow(Wide(a[lane]) * b[lane], c[lane], &out[lane]);
    const u64 mask = mask_of(wave, carries);
    write(wave, i, i.operands[0], out);
    write_mask(wave, i.operands[1], mask);
}

/* ---- Comparisons ---- */

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

template <class T, bool (*f)(T, T)> u64 compared(const Wave &wave, const Instruction &i, std::size_t first)
{
    const Source<T> a(wave, i, 0, i.operands[first]), b(wave, i, 1, i.operands[first + 1]);
    bool bits[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        bits[lane] = f(a[lane], b[lane]);
    return mask_of(wave, bits);
}

template <class T, bool (*f)(T, T)> void compare(Wave &wave, const Instruction &i)
{
    write_mask(wave, i.operands[0], compared<T, f>(wave, i, 1));
}

/* Writes exec; gfx9 another mask too, which its text names first. */
template <class T, bool (*f)(T, T)> void compare_exec(Wave &wave, const Instruction &i)
{
    static const Operand exec = {Operand::scalar, EXEC, 2};
    const std::size_t first = i.operands.size() - 2;
    const u64 mask = compared<T, f>(wave, i, first);
    if (first)
        write_mask(wave, i.operands[0], mask);
    write_mask(wave, exec, mask);
}

/* ---- Across lanes, and the rest ---- */

void choose(Wave &wave, const Instruction &i)
{
    const Source<u32> a(wave, i, 0, i.operands[1]), b(wave, i, 1, i.operands[2]);
    const u64 mask = read_mask(wave, i, i.operands[3]);
    u32 out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++)
        out[lane] = mask >> lane & 1 ? b[lane] : a[lane];
    write(wave, i, i.operands[0], out);
}

/* The lowest active lane's; lane 0's if none is. */
void read_first_lane(Wave &wave, const Instruction &i)
{
    u32 scratch[max_lanes];
    const u32 *lanes = read_lanes(wave, i, i.operands[1], 0, scratch);
    write32(wave, i.operands[0], lanes[wave.exec() ? __builtin_ctzll(wave.exec()) : 0]);
}

unsigned lane_number(const Wave &wave, const Instruction &i)
{
    const u32 lane = read32(wave, i.operands[2]);
    if (lane >= wave.program.wave_size)
        fail(wave, i, "lane " + std::to_string(lane) + " of a wave of " + std::to_string(wave.program.wave_size));
    return lane;
}

void read_lane(Wave &wave, const Instruction &i)
{
    write32(wave, i.operands[0], wave.vectors[i.operands[1].index][lane_number(wave, i)]);
}

void write_lane(Wave &wave, const Instruction &i)
{
    wave.vectors[i.operands[0].index][lane_number(wave, i)] = read32(wave, i.operands[1]);
}

/* Adds how many of mask's bits stand for lanes below this one, of the lower or the upper 32. */
template <int first> void count_below(Wave &wave, const Instruction &i)
{
    const Source<u32> mask(wave, i, 0, i.operands[1]), addend(wave, i, 1, i.operands[2]);
    u32 out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++) {
        const int below = lane < first ? 0 : lane - first > 32 ? 32 : lane - first;
        const u32 bits = static_cast<u32>((u64(1) << below) - 1);
        out[lane] = addend[lane] + static_cast<u32>(__builtin_popcount(mask[lane] & bits));
    }
    write(wave, i, i.operands[0], out);
}

/* Each half of a pair is a half of a source, as op_sel says. */
void move_pair(Wave &wave, const Instruction &i)
{
    u32 out[2][max_lanes];
    for (unsigned k = 0; k < 2; k++) {
        const Source<u64> source(wave, i, 2, i.operands[k + 1]);
        for (int lane = 0; lane < max_lanes; lane++)
            out[k][lane] = static_cast<u32>(source[lane] >> (i.op_sel[k] ? 32 : 0));
    }
    for (int k = 0; k < 2; k++)
        write_lanes(wave, i, i.operands[0].index + k, out[k]);
}

void swap(Wave &wave, const Instruction &i)
{
    u32 a[max_lanes], b[max_lanes];
    std::memcpy(a, wave.vectors[i.operands[0].index], sizeof a);
    std::memcpy(b, wave.vectors[i.operands[1].index], sizeof b);
    write_lanes(wave, i, i.operands[0].index, b);
    write_lanes(wave, i, i.operands[1].index, a);
}

/* Within rows of 16 lanes, or from the neighbouring row: four bits of two scalars name each lane's source. op_sel: read
 * inactive lanes too; 0 from them. */
template <int other_row> void permute_rows(Wave &wave, const Instruction &i)
{
    const u64 selectors = read32(wave, i.operands[2]) | u64(read32(wave, i.operands[3])) << 32;
    const u32 *from = wave.vectors[i.operands[1].index];
    u32 out[max_lanes];
    for (int lane = 0; lane < max_lanes; lane++) {
        const int source = ((lane & ~15) ^ other_row) + static_cast<int>(selectors >> 4 * (lane & 15) & 15);
        const bool valid = i.op_sel[0] || (wave.exec() >> source & 1);
        out[lane] = valid ? from[source] : i.op_sel[1] ? 0 : wave.vectors[i.operands[0].index][lane];
    }
    write(wave, i, i.operands[0], out);
}

/* ---- The tables ---- */

template <class T, bool (*f)(T, T)> void add_compare(Table &t, const std::string &name)
{
    const unsigned accepts = std::is_floating_point_v<T> ? FLOATS | MODIFIED : MODIFIED;
    t["v_cmp_" + name] = {compare<T, f>, accepts};
    t["v_cmpx_" + name] = {compare_exec<T, f>, accepts};
}

template <class T> void add_compares(Table &t, const std::string &type)
{
    add_compare<T, is_equal<T>>(t, "eq_" + type);
    add_compare<T, is_other<T>>(t, (std::is_floating_point_v<T> ? "neq_" : "ne_") + type);
    add_compare<T, is_less<T>>(t, "lt_" + type);
    add_compare<T, is_at_most<T>>(t, "le_" + type);
    add_compare<T, is_greater<T>>(t, "gt_" + type);
    add_compare<T, is_at_least<T>>(t, "ge_" + type);
}

void add_sums(Table &t)
{
    t["v_add_u32"] = t["v_add_nc_u32"] = t["v_add_i32"] = t["v_add_nc_i32"] = {vector<add<u32>>, MODIFIED};
    t["v_sub_u32"] = t["v_sub_nc_u32"] = t["v_sub_i32"] = t["v_sub_nc_i32"] = {vector<sub<u32>>, MODIFIED};
    t["v_subrev_u32"] = t["v_subrev_nc_u32"] = {reverse<sub<u32>>, MODIFIED};
    t["v_add_u32 clamp"] = t["v_add_nc_u32 clamp"] = {vector<add_clamped>, MODIFIED};
    t["v_sub_u32 clamp"] = t["v_sub_nc_u32 clamp"] = {vector<sub_clamped>, MODIFIED};
    t["v_add_co_u32"] = t["v_addc_co_u32"] = t["v_add_co_ci_u32"] = {carry<add_carry>, MODIFIED};
    t["v_sub_co_u32"] = t["v_subb_co_u32"] = t["v_sub_co_ci_u32"] = {carry<sub_borrow>, MODIFIED};
    t["v_subrev_co_u32"] = t["v_subbrev_co_u32"] = t["v_subrev_co_ci_u32"] = {carry<sub_borrow_reversed>, MODIFIED};
    t["v_add3_u32"] = {vector<add_3>, 0};
    t["v_lshl_add_u32"] = {vector<shift_left_add>, 0};
    t["v_add_lshl_u32"] = {vector<add_shift_left>, 0};
    t["v_xad_u32"] = {vector<xor_add>, 0};
    t["v_lshl_add_u64"] = {vector<shift_left_add_64>, 0};
    t["v_add_u16"] = t["v_add_nc_u16"] = {vector<add<u16>>, MODIFIED};
    t["v_sub_u16"] = t["v_sub_nc_u16"] = {vector<sub<u16>>, MODIFIED};
    t["v_subrev_u16"] = {reverse<sub<u16>>, MODIFIED};
}

void add_products(Table &t)
{
    t["v_mul_lo_u32"] = {vector<mul<u32>>, 0};
    t["v_mul_lo_u16"] = {vector<mul<u16>>, MODIFIED};
    t["v_mul_hi_u32"] = {vector<mul_high>, 0};
    t["v_mul_hi_i32"] = {vector<mul_high_signed>, 0};
    t["v_mul_u32_u24"] = {vector<mul_24>, MODIFIED};
    t["v_mul_hi_u32_u24"] = {vector<mul_high_24>, MODIFIED};
    t["v_mul_i32_i24"] = {vector<mul_signed_24>, MODIFIED};
    t["v_mad_u32_u24"] = {vector<mad_24>, 0};
    t["v_mad_i32_i24"] = {vector<mad_signed_24>, 0};
    t["v_mad_u64_u32"] = {multiply_add_64<u32, u64>, 0};
    t["v_mad_i64_i32"] = {multiply_add_64<i32, i64>, 0};
}

template <class T> void add_extremes(Table &t, const std::string &type)
{
    t["v_min_" + type] = {vector<least<T>>, MODIFIED};
    t["v_max_" + type] = {vector<greatest<T>>, MODIFIED};
    t["v_min3_" + type] = {vector<least_of_3<T>>, 0};
    t["v_max3_" + type] = {vector<greatest_of_3<T>>, 0};
    t["v_med3_" + type] = {vector<median<T>>, 0};
    t["v_minmax_" + type] = {vector<max_of_min<T>>, 0};
    t["v_maxmin_" + type] = {vector<min_of_max<T>>, 0};
}

void add_bits(Table &t)
{
    t["v_not_b32"] = {vector<bit_not>, MODIFIED};
    t["v_bfrev_b32"] = {vector<reversed>, MODIFIED};
    t["v_ffbh_u32"] = t["v_clz_i32_u32"] = {vector<leading_zeros>, MODIFIED};
    t["v_ffbh_i32"] = t["v_cls_i32"] = {vector<leading_signs>, MODIFIED};
    t["v_ffbl_b32"] = t["v_ctz_i32_b32"] = {vector<lowest_one>, MODIFIED};
    t["v_and_b32"] = {vector<bit_and>, MODIFIED};
    t["v_or_b32"] = {vector<bit_or>, MODIFIED};
    t["v_xor_b32"] = {vector<bit_xor>, MODIFIED};
    t["v_xnor_b32"] = {vector<xnor>, MODIFIED};
    t["v_or3_b32"] = {vector<or_3>, 0};
    t["v_xor3_b32"] = {vector<xor_3>, 0};
    t["v_and_or_b32"] = {vector<and_or>, 0};
    t["v_bfi_b32"] = {vector<choose_bits>, 0};
    t["v_lshlrev_b32"] = {vector<shift_left<u32>>, MODIFIED};
    t["v_lshrrev_b32"] = {vector<shift_right<u32>>, MODIFIED};
    t["v_ashrrev_i32"] = {vector<shift_right<i32>>, MODIFIED};
    t["v_lshlrev_b64"] = {vector<shift_left<u64>>, 0};
    t["v_lshrrev_b64"] = {vector<shift_right<u64>>, 0};
    t["v_ashrrev_i64"] = {vector<shift_right<i64>>, 0};
    t["v_lshlrev_b16"] = {vector<shift_left<u16>>, MODIFIED};
    t["v_lshrrev_b16"] = {vector<shift_right<u16>>, MODIFIED};
    t["v_ashrrev_i16"] = {vector<shift_right<i16>>, MODIFIED};
    t["v_lshl_or_b32"] = {vector<shift_left_or>, 0};
    t["v_bfe_u32"] = {vector<field>, 0};
    t["v_bfe_i32"] = {vector<field_signed>, 0};
    t["v_bfm_b32"] = {vector<field_mask>, 0};
    t["v_alignbit_b32"] = {vector<align_bits>, 0};
    t["v_alignbyte_b32"] = {vector<align_bytes>, 0};
    t["v_perm_b32"] = {vector<permute_bytes>, 0};
    t["v_bcnt_u32_b32"] = {vector<count_ones_add>, 0};
}

/* As far as integer division needs them. */
void add_floats(Table &t)
{
    t["v_add_f32"] = {vector<add_float>, FLOATS};
    t["v_sub_f32"] = {vector<sub_float>, FLOATS};
    t["v_mul_f32"] = {vector<mul_float>, FLOATS};
    t["v_fma_f32"] = t["v_fmamk_f32"] = t["v_fmaak_f32"] = {vector<fused>, FLOATS};
    t["v_mad_f32"] = t["v_madmk_f32"] = t["v_madak_f32"] = {vector<multiply_add>, FLOATS};
    t["v_fmac_f32"] = {accumulate<fused>, FLOATS};
    t["v_mac_f32"] = {accumulate<multiply_add>, FLOATS};
    t["v_rcp_f32"] = t["v_rcp_iflag_f32"] = {vector<reciprocal>, FLOATS};
    t["v_trunc_f32"] = {vector<truncated>, FLOATS};
    t["v_floor_f32"] = {vector<rounded_down>, FLOATS};
    t["v_cvt_f32_u32"] = {vector<to_float<u32>>, 0};
    t["v_cvt_f32_i32"] = {vector<to_float<i32>>, 0};
    t["v_cvt_f32_ubyte0"] = {vector<byte_to_float<0>>, 0};
    t["v_cvt_f32_ubyte1"] = {vector<byte_to_float<1>>, 0};
    t["v_cvt_f32_ubyte2"] = {vector<byte_to_float<2>>, 0};
    t["v_cvt_f32_ubyte3"] = {vector<byte_to_float<3>>, 0};
    t["v_cvt_u32_f32"] = {vector<to_unsigned>, FLOATS};
    t["v_cvt_i32_f32"] = {vector<to_signed>, FLOATS};
}

void add_moves(Table &t)
{
    t["v_mov_b32"] = {vector<mov<u32>>, MODIFIED};
    t["v_mov_b64"] = {vector<mov<u64>>, 0};
    t["v_pk_mov_b32"] = {move_pair, OP_SEL};
    t["v_swap_b32"] = {swap, 0};
    t["v_cndmask_b32"] = {choose, MODIFIED};
    t["v_readfirstlane_b32"] = {read_first_lane, 0};
    t["v_readlane_b32"] = {read_lane, 0};
    t["v_writelane_b32"] = {write_lane, 0};
    t["v_mbcnt_lo_u32_b32"] = {count_below<0>, 0};
    t["v_mbcnt_hi_u32_b32"] = {count_below<32>, 0};
    t["v_permlane16_b32"] = {permute_rows<0>, OP_SEL};
    t["v_permlanex16_b32"] = {permute_rows<16>, OP_SEL};
}

} // namespace

void add_vector(Table &table)
{
    add_compares<u16>(table, "u16");
    add_compares<i16>(table, "i16");
    add_compares<u32>(table, "u32");
    add_compares<i32>(table, "i32");
    add_compares<u64>(table, "u64");
    add_compares<i64>(table, "i64");
    add_compares<float>(table, "f32");
    add_extremes<u16>(table, "u16");
    add_extremes<i16>(table, "i16");
    add_extremes<u32>(table, "u32");
    add_extremes<i32>(table, "i32");
    add_sums(table);
    add_products(table);
    add_bits(table);
    add_floats(table);
    add_moves(table);
}

} // namespace amdgpu
