/* The engine of AMD machine code: loads the code object of one target from the image that the library embeds, and runs
 * its kernels wave by wave. Nothing is timed, and every access has happened when its instruction is done: what a
 * missing s_waitcnt or a race between waves would do does not show.
 *
 * Environment: AMDGPU_TARGET (gfx90a) is the target. AMDGPU_LISTINGS is the folder of TARGET.s, llvm-objdump's listing
 * of that code object, by which instructions are decoded; it is compared with the code word by word. AMDGPU_COUNT=1
 * prints at the end how many instructions the waves of each kernel executed. */
#include "../simt/engine.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "../simt/state.hpp"
#include "code_object.hpp"
#include "wave.hpp"

namespace amdgpu
{

namespace
{

constexpr unsigned char poison = 0xb7; /* of LDS, and of arguments that nobody sets */

std::string variable(const char *name, const char *otherwise)
{
    const char *value = std::getenv(name);
    return value ? value : otherwise;
}

std::string target()
{
    return variable("AMDGPU_TARGET", "gfx90a");
}

/* ---- Counting ---- */

struct Count {
    u64 launches = 0, waves = 0, instructions = 0, least = ~u64(0), most = 0;

    void add(u64 executed)
    {
        waves++;
        instructions += executed;
        least = std::min(least, executed);
        most = std::max(most, executed);
    }
};

struct Counts {
    std::map<std::string, Count> of_kernel;

    ~Counts()
    {
        if (variable("AMDGPU_COUNT", "0") != "1")
            return;
        for (const auto &[kernel, count] : of_kernel)
            std::fprintf(stderr,
                         "amdgpu: %s %s: %llu launches, %llu waves; instructions of a wave: least %llu, mean %llu, "
                         "most %llu\n",
                         target().c_str(), kernel.c_str(), static_cast<unsigned long long>(count.launches),
                         static_cast<unsigned long long>(count.waves), static_cast<unsigned long long>(count.least),
                         static_cast<unsigned long long>(count.instructions / count.waves),
                         static_cast<unsigned long long>(count.most));
    }
} counts;

/* ---- Loading ---- */

std::string read_file(const std::string &path)
{
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file)
        throw std::runtime_error("cannot read " + path + ": AMDGPU_LISTINGS is to name its folder");
    return text.str();
}

/* A kernel with its code: decoded, and as it is in memory. */
struct Loaded {
    std::shared_ptr<const CodeObject> object;
    KernelCode code;
    Program program;
};

/* The listing must be that of the code. */
void check_words(const Loaded &loaded)
{
    u64 next = loaded.code.begin;
    for (const Instruction &instruction : loaded.program.instructions) {
        const std::size_t bytes = 4 * instruction.words.size();
        if (instruction.address != next ||
            std::memcmp(&loaded.object->memory[next], instruction.words.data(), bytes) != 0)
            fail(loaded.program, instruction, "the listing is of other code");
        next += bytes;
    }
    if (next < loaded.code.end)
        throw std::runtime_error("the listing of " + loaded.code.name + " is not complete");
}

void check_supported(const KernelCode &code)
{
    if (code.scratch_bytes)
        throw std::runtime_error(code.name + " uses scratch memory, which the interpreter does not have");
    if (code.preloaded)
        throw std::runtime_error(code.name + " has preloaded arguments, which the interpreter does not know");
}

std::shared_ptr<Loaded> load_kernel(const std::shared_ptr<const CodeObject> &object, const KernelCode &code,
                                    const std::string &listing)
{
    check_supported(code);
    auto loaded = std::make_shared<Loaded>(Loaded{object, code, {}});
    Program &program = loaded->program;
    program.target = object->target;
    program.kernel = code.name;
    program.wave_size = code.wave_size;
    program.vector_registers = static_cast<int>(code.vector_registers);
    program.base = reinterpret_cast<u64>(object->memory.data());
    program.end = code.end;
    const std::string label = "<" + code.name + ">:\n";
    const std::size_t begin = listing.find(label);
    if (begin == std::string::npos)
        throw std::runtime_error("the listing has no " + code.name);
    const std::size_t end = listing.find("\n\n", begin);
    decode(program, listing.data() + begin + label.size(),
           listing.data() + (end == std::string::npos ? listing.size() : end));
    check_words(*loaded);
    return loaded;
}

/* ---- Running ---- */

u64 hidden_value(const std::string &kind, unsigned grid, unsigned block, bool &known)
{
    known = true;
    if (kind == "hidden_block_count_x")
        return grid;
    if (kind == "hidden_group_size_x")
        return block;
    if (kind == "hidden_block_count_y" || kind == "hidden_block_count_z" || kind == "hidden_group_size_y" ||
        kind == "hidden_group_size_z" || kind == "hidden_grid_dims")
        return 1;
    known = kind.compare(0, 16, "hidden_remainder") == 0 || kind.compare(0, 20, "hidden_global_offset") == 0;
    return 0;
}

/* The arguments as the hardware finds them in memory: the kernel's own, and the hidden ones. */
std::vector<u64> make_arguments(const KernelCode &code, const void *parameter, unsigned grid, unsigned block)
{
    std::vector<u64> arguments((code.argument_bytes + 7) / 8);
    auto *bytes = reinterpret_cast<unsigned char *>(arguments.data());
    std::memset(bytes, poison, 8 * arguments.size());
    std::memcpy(bytes, parameter, code.parameter_bytes);
    for (const HiddenArgument &hidden : code.hidden) {
        bool known;
        const u64 value = hidden_value(hidden.kind, grid, block, known);
        if (known)
            std::memcpy(bytes + hidden.offset, &value, hidden.size);
    }
    return arguments;
}

/* The packet that describes the launch to kernels that ask. */
struct alignas(64) Packet {
    std::uint16_t header = 0, setup = 1, block[3] = {1, 1, 1}, reserved = 0;
    u32 grid[3] = {1, 1, 1}, scratch = 0, lds = 0;
    u64 kernel = 0, arguments = 0, reserved_2 = 0, signal = 0;
};
static_assert(sizeof(Packet) == 64, "as HSA has it");

struct Launch {
    const Loaded &loaded;
    unsigned grid, threads;
    Memory memory;
    Packet packet;
    u64 arguments;
};

/* Puts what the kernel's descriptor asks for into the first scalars. */
void set_scalars(Wave &wave, const Launch &launch)
{
    enum : unsigned { DISPATCH_PACKET = 1, ARGUMENTS = 3 };
    static const int sizes[] = {4, 2, 2, 2, 2, 2, 1}; /* by bit of the properties */
    const KernelCode &code = launch.loaded.code;
    int next = 0;
    for (unsigned bit = 0; bit < 7; bit++) {
        if (!(code.properties >> bit & 1))
            continue;
        const Operand pair = {Operand::scalar, next, 2};
        if (bit == DISPATCH_PACKET)
            write64(wave, pair, reinterpret_cast<u64>(&launch.packet));
        if (bit == ARGUMENTS)
            write64(wave, pair, launch.arguments);
        next += sizes[bit];
    }
    next = code.resources >> 1 & 31; /* behind the user's, as many as there are said to be */
    const u32 block[] = {wave.block.index, 0, 0};
    for (unsigned k = 0; k < 3; k++)
        if (code.resources >> (7 + k) & 1)
            wave.scalars[next++] = block[k];
}

std::unique_ptr<Wave> make_wave(const Launch &launch, Block &block, unsigned index)
{
    const unsigned lanes = launch.loaded.code.wave_size, first = index * lanes;
    auto wave = std::make_unique<Wave>(launch.loaded.program, block, index);
    set_scalars(*wave, launch);
    const unsigned left = std::min(lanes, launch.threads - first);
    write_mask(*wave, {Operand::scalar, EXEC, 2}, left == 64 ? ~u64(0) : (u64(1) << left) - 1);
    const unsigned dimensions = launch.loaded.code.resources >> 11 & 3;
    for (unsigned lane = 0; lane < lanes; lane++) {
        wave->vectors[0][lane] = first + lane;
        for (unsigned k = 1; k <= dimensions; k++)
            wave->vectors[k][lane] = 0;
    }
    return wave;
}

/* Waves run one after another, each to its next barrier. */
void run_block(Launch &launch, unsigned index, Count &count)
{
    const unsigned lanes = launch.loaded.code.wave_size, waves = (launch.threads + lanes - 1) / lanes;
    Block block = {launch.memory, std::vector<unsigned char>(launch.loaded.code.lds_bytes, poison), index};
    std::vector<std::unique_ptr<Wave>> all;
    for (unsigned i = 0; i < waves; i++)
        all.push_back(make_wave(launch, block, i));
    if (driver::settings().reverse)
        std::reverse(all.begin(), all.end());
    bool waiting = true;
    while (waiting) {
        waiting = false;
        for (const auto &wave : all)
            if (wave->state != State::ended) {
                run(*wave);
                waiting |= wave->state == State::at_barrier;
            }
    }
    for (const auto &wave : all)
        count.add(wave->executed);
}

Range allocation_at(u64 address)
{
    const driver::Range found = driver::allocation_at(address);
    return {found.begin, found.end};
}

void run_kernel(const Loaded &loaded, const void *parameter, unsigned grid, unsigned threads)
{
    const std::vector<u64> arguments = make_arguments(loaded.code, parameter, grid, threads);
    const auto begin = reinterpret_cast<u64>(arguments.data()), code = loaded.program.base;
    Launch launch = {loaded, grid, threads, {}, {}, begin};
    launch.memory = {allocation_at, {begin, begin + 8 * arguments.size()}, {code, code + loaded.object->memory.size()}};
    launch.packet.block[0] = static_cast<std::uint16_t>(threads);
    launch.packet.grid[0] = grid * threads;
    launch.packet.arguments = begin;
    Count &count = counts.of_kernel[loaded.code.name];
    count.launches++;
    for (unsigned index = 0; index < grid; index++)
        run_block(launch, index, count);
}

std::vector<engine::Kernel> load_target(std::vector<CodeObject> objects)
{
    std::vector<engine::Kernel> kernels;
    for (CodeObject &candidate : objects) {
        if (candidate.target != target())
            continue;
        const auto object = std::make_shared<const CodeObject>(std::move(candidate));
        const std::string listing = read_file(variable("AMDGPU_LISTINGS", ".") + "/" + target() + ".s");
        for (const KernelCode &code : object->kernels) {
            const auto loaded = load_kernel(object, code, listing);
            kernels.push_back({code.name, code.parameter_bytes, code.max_threads,
                               [=](const void *parameter, unsigned grid, unsigned threads) {
                                   run_kernel(*loaded, parameter, grid, threads);
                               }});
        }
    }
    if (kernels.empty())
        throw std::runtime_error("the image has no kernels for " + target());
    return kernels;
}

} // namespace

} // namespace amdgpu

std::vector<engine::Kernel> engine::load(const void *image)
{
    try {
        return amdgpu::load_target(amdgpu::read_bundle(image));
    } catch (const std::runtime_error &error) {
        std::fprintf(stderr, "amdgpu: %s\n", error.what());
        return {};
    }
}

std::string engine::describe()
{
    return amdgpu::target() + ", interpreted";
}
