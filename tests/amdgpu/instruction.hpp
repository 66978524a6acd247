/* AMD machine instructions, decoded once: LLVM's disassembly, which names every operand, is parsed into these. */
#ifndef DRAFTMETA_AMDGPU_INSTRUCTION_HPP
#define DRAFTMETA_AMDGPU_INSTRUCTION_HPP

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace amdgpu
{

constexpr int max_lanes = 64;

struct Wave;
struct Instruction;
using Execute = void (*)(Wave &, const Instruction &);

/* Scalar registers that have names. Those before are s0 to s105. */
enum : int { VCC = 106, TTMP = 108, M0 = 124, NUL = 125, EXEC = 126, NUM_SCALARS = 128 };

struct Operand {
    enum Kind { none, vector, scalar, constant } kind = none; /* none: "off" */
    int index = 0, count = 0;                                 /* registers */
    std::int64_t value = 0, value_of_64 = 0;                  /* of a constant, and where 64 bits are read */
    bool negative = false, absolute = false;                  /* of a float */
};

/* The first source's lanes, as data-parallel primitives (DPP) permute them. */
struct Permutation {
    std::int8_t from[max_lanes]; /* -1: no lane */
    std::uint64_t writable = ~std::uint64_t(0);
    bool zero_if_none = false, from_inactive = false;
};

enum class Select { dword, byte_0, byte_1, byte_2, byte_3, word_0, word_1 }; /* sub-dword addressing (SDWA) */

struct Instruction {
    Execute execute = nullptr;
    std::vector<Operand> operands;
    int offsets[2] = {0, 0}; /* in bytes, or of two accesses in elements */
    bool returns = false;    /* an atomic's old value */
    bool op_sel[3] = {false, false, false};
    bool is_modified = false; /* by what follows */
    Select select[2] = {Select::dword, Select::dword};
    std::shared_ptr<const Permutation> permutation;

    std::uint64_t address = 0;
    std::int64_t target = -1; /* of a branch: index into the program */
    std::vector<std::uint32_t> words;
    std::string text;
};

/* What an instruction does, and which modifiers it knows; others are refused. */
enum Accepts : unsigned {
    OFFSETS = 1,
    FLOATS = 2,
    OP_SEL = 4,
    MODIFIED = 8,
    RETURNS = 16,
    BRANCHES = 32,
    IGNORED = 64
};
struct Meaning {
    Execute execute;
    unsigned accepts;
};
using Table = std::unordered_map<std::string, Meaning>;

void add_scalar(Table &table);
void add_vector(Table &table);
void add_memory(Table &table);

struct Program {
    std::string target, kernel; /* for messages */
    unsigned wave_size = 64;
    int vector_registers = 256;
    std::uint64_t base = 0;                /* what addresses are relative to */
    std::uint64_t end = ~std::uint64_t(0); /* lines from this address on are not the kernel's */
    std::vector<Instruction> instructions;

    bool is_gfx9() const
    {
        return target.compare(0, 4, "gfx9") == 0;
    }
};

/* Decodes lines of llvm-objdump -d, from begin to end; what is not understood ends the program with a message. */
void decode(Program &program, const char *begin, const char *end);

[[noreturn]] void fail(const Program &program, const Instruction &instruction, const std::string &why);

} // namespace amdgpu

#endif
