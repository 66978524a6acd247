/* From a line of disassembly to an Instruction. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "instruction.hpp"

namespace amdgpu
{

void fail(const Program &program, const Instruction &instruction, const std::string &why)
{
    std::fprintf(stderr, "amdgpu: %s %s, address %llx: %s: %s\n", program.target.c_str(), program.kernel.c_str(),
                 static_cast<unsigned long long>(instruction.address), instruction.text.c_str(), why.c_str());
    std::abort();
}

namespace
{

const Table &table()
{
    static const Table made = [] {
        Table t;
        add_scalar(t);
        add_vector(t);
        add_memory(t);
        return t;
    }();
    return made;
}

bool begins_with(const std::string &text, const char *start)
{
    return text.compare(0, std::strlen(start), start) == 0;
}

/* Removes the end, if text has it. */
bool drop_end(std::string &text, const char *end)
{
    const std::size_t length = std::strlen(end);
    if (text.size() < length || text.compare(text.size() - length, length, end) != 0)
        return false;
    text.resize(text.size() - length);
    return true;
}

std::string trimmed(const std::string &text)
{
    const std::size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
    return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

/* At separators that stand outside of brackets. */
std::vector<std::string> split(const std::string &text, char separator)
{
    std::vector<std::string> parts(1);
    int depth = 0;
    for (const char c : text) {
        depth += c == '[' || c == '(';
        depth -= c == ']' || c == ')';
        if (c == separator && !depth)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

bool parse_number(const std::string &text, std::int64_t &value)
{
    char *end;
    if (text.find('.') != std::string::npos) { /* a float's bits */
        const float number = std::strtof(text.c_str(), &end);
        std::uint32_t bits;
        std::memcpy(&bits, &number, sizeof bits);
        value = bits;
    } else {
        value = std::strtoll(text.c_str(), &end, 0);
    }
    return !text.empty() && !*end;
}

/* ---- Operands ---- */

/* "3" or "[4:7]", behind a letter. */
bool parse_registers(const std::string &text, Operand &operand)
{
    int first, last, length = 0;
    if (std::sscanf(text.c_str(), "[%d:%d]%n", &first, &last, &length) != 2 || !length) {
        length = 0;
        if (std::sscanf(text.c_str(), "%d%n", &first, &length) != 1)
            return false;
        last = first;
    }
    operand.index = first;
    operand.count = last - first + 1;
    return static_cast<std::size_t>(length) == text.size() && first >= 0 && last >= first;
}

bool parse_named(const std::string &text, Operand &operand)
{
    static const struct {
        const char *name;
        int index, count;
    } names[] = {{"vcc", VCC, 2},   {"vcc_lo", VCC, 1},   {"vcc_hi", VCC + 1, 1},   {"m0", M0, 1},
                 {"exec", EXEC, 2}, {"exec_lo", EXEC, 1}, {"exec_hi", EXEC + 1, 1}, {"null", NUL, 1}};
    for (const auto &known : names)
        if (text == known.name) {
            operand.kind = Operand::scalar;
            operand.index = known.index;
            operand.count = known.count;
            return true;
        }
    return false;
}

bool parse_operand(std::string text, Operand &operand)
{
    if (text.size() > 1 && text[0] == '-' && !std::strchr("0123456789", text[1])) {
        operand.negative = true;
        text.erase(0, 1);
    }
    if (text.size() > 1 && text.front() == '|' && text.back() == '|') {
        operand.absolute = true;
        text = text.substr(1, text.size() - 2);
    }
    if (text == "off" || parse_named(text, operand))
        return true;
    if (begins_with(text, "ttmp")) {
        operand.kind = Operand::scalar;
        const bool ok = parse_registers(text.substr(4), operand);
        operand.index += TTMP;
        return ok && operand.index + operand.count <= M0;
    }
    if (text[0] == 'v' || text[0] == 's') {
        operand.kind = text[0] == 'v' ? Operand::vector : Operand::scalar;
        return parse_registers(text.substr(1), operand) &&
               (operand.kind == Operand::vector || operand.index + operand.count <= VCC);
    }
    operand.kind = Operand::constant;
    const bool ok = parse_number(text, operand.value);
    operand.value_of_64 = operand.value;
    if (text.find('.') != std::string::npos) {
        const double number = std::strtod(text.c_str(), nullptr);
        std::memcpy(&operand.value_of_64, &number, sizeof number);
    }
    return ok;
}

/* ---- Modifiers ---- */

struct Modifiers {
    bool offsets = false, returns = false, op_sel = false, clamp = false, modified = false;
};

/* Numbers in "[1,0,1]"; how many there were. */
int parse_list(const std::string &text, int *numbers, int most)
{
    if (text.size() < 2 || text.front() != '[' || text.back() != ']')
        return 0;
    int count = 0;
    for (const std::string &part : split(text.substr(1, text.size() - 2), ',')) {
        std::int64_t value;
        if (count == most || !parse_number(part, value))
            return 0;
        numbers[count++] = static_cast<int>(value);
    }
    return count;
}

bool parse_select(const std::string &value, Select &select)
{
    static const char *const names[] = {"DWORD", "BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1"};
    for (int i = 0; i < 7; i++)
        if (value == names[i]) {
            select = static_cast<Select>(i);
            return true;
        }
    return false;
}

/* Which lane lane reads; -1 for none. n is the modifier's number. */
int dpp_source(const std::string &name, int lane, int n, int wave_size)
{
    const int row = lane & ~15, in_row = lane & 15;
    if (name == "row_shl")
        return in_row + n < 16 ? lane + n : -1;
    if (name == "row_shr")
        return in_row >= n ? lane - n : -1;
    if (name == "row_ror")
        return row + ((in_row - n) & 15);
    if (name == "row_mirror")
        return row + 15 - in_row;
    if (name == "row_half_mirror")
        return (lane & ~7) + 7 - (lane & 7);
    if (name == "row_share" || name == "row_newbcast")
        return row + n;
    if (name == "row_xmask")
        return row + (in_row ^ n);
    if (name == "wave_shr")
        return lane - 1;
    if (name == "wave_shl")
        return lane + 1 < wave_size ? lane + 1 : -1;
    if (name == "row_bcast" && n == 15) /* the last lane of each row, to the next row */
        return row - 1;
    if (name == "row_bcast" && n == 31) /* lane 31 to the upper half */
        return lane >= 32 ? 31 : -1;
    return -2;
}

bool fill_permutation(const std::string &name, const std::string &value, int wave_size, Permutation &permutation)
{
    int list[8];
    const bool quad = name == "quad_perm";
    const int group = quad ? 4 : 8;
    if (quad || name == "dpp8") {
        if (parse_list(value, list, group) != group)
            return false;
        for (int lane = 0; lane < wave_size; lane++)
            permutation.from[lane] = static_cast<std::int8_t>(lane / group * group + list[lane % group]);
        return true;
    }
    std::int64_t n = 0;
    if (!value.empty() && !parse_number(value, n))
        return false;
    for (int lane = 0; lane < wave_size; lane++) {
        const int from = dpp_source(name, lane, static_cast<int>(n), wave_size);
        if (from == -2)
            return false;
        permutation.from[lane] = static_cast<std::int8_t>(from);
    }
    return true;
}

/* The lanes that a mask of rows, or of banks (four lanes each) within rows, leaves. */
std::uint64_t lanes_of_mask(unsigned mask, bool rows)
{
    std::uint64_t lanes = 0;
    for (int lane = 0; lane < max_lanes; lane++)
        lanes |= std::uint64_t(mask >> (rows ? lane / 16 : lane % 16 / 4) & 1) << lane;
    return lanes;
}

bool parse_dpp(const std::string &name, const std::string &value, int wave_size, Instruction &instruction)
{
    auto permutation = instruction.permutation ? std::make_shared<Permutation>(*instruction.permutation)
                                               : std::make_shared<Permutation>();
    std::int64_t n = 0;
    instruction.permutation = permutation;
    if (name == "row_mask" || name == "bank_mask") {
        permutation->writable &=
            lanes_of_mask(static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 0)), name == "row_mask");
        return true;
    }
    if (name == "bound_ctrl")
        return permutation->zero_if_none = true;
    if (name == "fi") {
        permutation->from_inactive = parse_number(value, n) && n;
        return true;
    }
    return fill_permutation(name, value, wave_size, *permutation);
}

bool parse_offset(const std::string &value, int &offset)
{
    std::int64_t n;
    if (!parse_number(value, n))
        return false;
    offset = static_cast<int>(n);
    return true;
}

/* One modifier, "name" or "name:value". */
bool parse_modifier(const std::string &text, const Program &program, Instruction &instruction, Modifiers &found)
{
    const std::size_t colon = text.find(':');
    const std::string name = text.substr(0, colon), value = colon == std::string::npos ? "" : text.substr(colon + 1);
    if (name == "slc" || name == "dlc" || name == "sc1" || name == "nt" || name == "dst_unused")
        return true; /* of no consequence here */
    if (name == "glc" || name == "sc0")
        return found.returns = instruction.returns = true;
    if (name == "clamp")
        return found.clamp = true;
    if (name == "offset" || name == "offset0" || name == "offset1") {
        found.offsets = true;
        if (begins_with(value, "swizzle("))
            return true; /* the instruction reads its bits */
        return parse_offset(value, instruction.offsets[name == "offset1"]);
    }
    if (name == "op_sel") {
        int list[3] = {0, 0, 0};
        const int count = parse_list(value, list, 3);
        for (int k = 0; k < count; k++)
            instruction.op_sel[k] = list[k];
        return found.op_sel = count > 0;
    }
    found.modified = instruction.is_modified = true;
    if (name == "src0_sel" || name == "src1_sel")
        return parse_select(value, instruction.select[name == "src1_sel"]);
    if (name == "dst_sel")
        return value == "DWORD";
    return parse_dpp(name, value, static_cast<int>(program.wave_size), instruction);
}

/* ---- Instructions ---- */

void check_accepted(const Program &program, const Instruction &instruction, const Modifiers &found, unsigned accepts)
{
    bool is_float = false;
    for (const Operand &operand : instruction.operands) {
        is_float |= operand.negative || operand.absolute;
        if (operand.kind == Operand::vector && operand.index + operand.count > program.vector_registers)
            fail(program, instruction, "a vector register that the kernel was not given");
    }
    if ((is_float && !(accepts & FLOATS)) || (found.offsets && !(accepts & OFFSETS)) ||
        (found.returns && !(accepts & (RETURNS | OFFSETS))) || (found.op_sel && !(accepts & OP_SEL)) ||
        (found.modified && !(accepts & MODIFIED)))
        fail(program, instruction, "a modifier that the interpreter does not know for this instruction");
}

/* Operands are separated by commas; behind the last one, modifiers by spaces. */
void parse_operands(const Program &program, const std::string &text, Instruction &instruction, Modifiers &found)
{
    const std::vector<std::string> parts = split(text, ',');
    for (std::size_t k = 0; k < parts.size(); k++) {
        std::vector<std::string> words = split(trimmed(parts[k]), ' ');
        if (k + 1 < parts.size() && words.size() > 1)
            fail(program, instruction, "an operand that the interpreter cannot read");
        instruction.operands.emplace_back();
        if (!parse_operand(words[0], instruction.operands.back()))
            fail(program, instruction, "operand \"" + words[0] + "\" is not known to the interpreter");
        for (std::size_t m = 1; m < words.size(); m++)
            if (!words[m].empty() && !parse_modifier(words[m], program, instruction, found))
                fail(program, instruction, "modifier \"" + words[m] + "\" is not known to the interpreter");
    }
}

void parse_instruction(const Program &program, Instruction &instruction)
{
    const std::string &text = instruction.text;
    const std::size_t space = text.find(' ');
    std::string name = text.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : trimmed(text.substr(space));
    for (const char *encoding : {"_e32", "_e64", "_sdwa", "_dpp", "_dpp8", "_e64_dpp"})
        if (drop_end(name, encoding))
            break;
    auto meaning = table().find(name);
    Modifiers found;
    if (!rest.empty() && (meaning == table().end() || !(meaning->second.accepts & IGNORED)))
        parse_operands(program, rest, instruction, found);
    if (found.clamp)
        meaning = table().find(name + " clamp");
    if (meaning == table().end())
        fail(program, instruction, "the interpreter does not know this instruction");
    check_accepted(program, instruction, found, meaning->second.accepts);
    instruction.execute = meaning->second.execute;
    if (meaning->second.accepts & BRANCHES) /* by words, from the next instruction on; resolved to an index later */
        instruction.target = static_cast<std::int64_t>(instruction.address) + 4 +
                             4 * static_cast<std::int16_t>(instruction.operands.at(0).value);
}

/* "TEXT // ADDRESS: WORD WORD... <label>". */
void parse_comment(const Program &program, const std::string &comment, Instruction &instruction)
{
    const std::size_t colon = comment.find(':');
    char *end;
    const std::uint64_t address = std::strtoull(comment.c_str(), &end, 16);
    if (colon == std::string::npos || *end != ':')
        fail(program, instruction, "no address in the listing");
    if (instruction.address && address != instruction.address)
        fail(program, instruction, "the listing's addresses have a gap");
    instruction.address = address;
    for (const std::string &word : split(trimmed(comment.substr(colon + 1)), ' ')) {
        const auto value = static_cast<std::uint32_t>(std::strtoul(word.c_str(), &end, 16));
        if (*end)
            break; /* a branch's label */
        instruction.words.push_back(value);
    }
}

void decode_line(Program &program, const std::string &line, std::uint64_t &next)
{
    const std::size_t comment = line.find("//");
    Instruction instruction;
    instruction.text = trimmed(line.substr(0, comment));
    instruction.address = next;
    if (instruction.text.empty())
        return;
    if (comment != std::string::npos)
        parse_comment(program, trimmed(line.substr(comment + 2)), instruction);
    if (instruction.words.empty())
        instruction.words.push_back(0); /* in a snippet without a comment, all are one word */
    next = instruction.address + 4 * instruction.words.size();
    if (instruction.address >= program.end)
        return;
    parse_instruction(program, instruction);
    program.instructions.push_back(std::move(instruction));
}

} // namespace

void decode(Program &program, const char *begin, const char *end)
{
    std::uint64_t next = 0;
    while (begin < end) {
        const char *stop = static_cast<const char *>(std::memchr(begin, '\n', static_cast<std::size_t>(end - begin)));
        stop = stop ? stop : end;
        decode_line(program, std::string(begin, stop), next);
        begin = stop + 1;
    }
    std::unordered_map<std::int64_t, std::int64_t> index;
    for (std::size_t i = 0; i < program.instructions.size(); i++)
        index[static_cast<std::int64_t>(program.instructions[i].address)] = static_cast<std::int64_t>(i);
    for (Instruction &instruction : program.instructions) {
        if (instruction.target < 0)
            continue;
        const auto found = index.find(instruction.target);
        if (found == index.end())
            fail(program, instruction, "branches to no instruction of this kernel");
        instruction.target = found->second;
    }
}

} // namespace amdgpu
