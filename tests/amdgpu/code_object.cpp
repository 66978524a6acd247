#include "code_object.hpp"

#include <cstring>
#include <elf.h>
#include <stdexcept>

#include "msgpack.hpp"

namespace amdgpu
{

namespace
{

constexpr char bundle_magic[] = "__CLANG_OFFLOAD_BUNDLE__";
constexpr char bundle_entry[] = "hipv4-amdgcn-amd-amdhsa--"; /* and the target */

/* What the program needs of COMPUTE_PGM_RSRC etc. lies here in a kernel's descriptor of 64 bytes. */
enum : std::size_t { ENTRY_AT = 16, RESOURCES_AT = 52, PROPERTIES_AT = 56, PRELOADED_AT = 58, DESCRIPTOR_BYTES = 64 };

template <class T> T read_at(const unsigned char *from)
{
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

/* ---- ELF ---- */

/* An ELF file's bytes; what is out of them throws. */
struct Elf {
    const unsigned char *file;
    std::size_t size;

    const unsigned char *at(std::uint64_t offset, std::uint64_t bytes) const
    {
        if (offset > size || bytes > size - offset)
            throw std::runtime_error("a code object ends early");
        return file + offset;
    }

    Elf64_Ehdr header() const
    {
        const auto h = read_at<Elf64_Ehdr>(at(0, sizeof(Elf64_Ehdr)));
        if (std::memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_machine != EM_AMDGPU)
            throw std::runtime_error("a code object is no AMD ELF file");
        return h;
    }

    std::vector<Elf64_Phdr> segments() const
    {
        const Elf64_Ehdr h = header();
        std::vector<Elf64_Phdr> out;
        for (unsigned i = 0; i < h.e_phnum; i++)
            out.push_back(read_at<Elf64_Phdr>(at(h.e_phoff + i * sizeof(Elf64_Phdr), sizeof(Elf64_Phdr))));
        return out;
    }

    std::vector<Elf64_Shdr> sections() const
    {
        const Elf64_Ehdr h = header();
        std::vector<Elf64_Shdr> out;
        for (unsigned i = 0; i < h.e_shnum; i++)
            out.push_back(read_at<Elf64_Shdr>(at(h.e_shoff + i * sizeof(Elf64_Shdr), sizeof(Elf64_Shdr))));
        return out;
    }
};

std::vector<unsigned char> load(const Elf &elf)
{
    std::vector<unsigned char> memory;
    for (const Elf64_Phdr &segment : elf.segments()) {
        if (segment.p_type != PT_LOAD)
            continue;
        if (segment.p_vaddr + segment.p_memsz > memory.size())
            memory.resize(segment.p_vaddr + segment.p_memsz);
        std::memcpy(&memory[segment.p_vaddr], elf.at(segment.p_offset, segment.p_filesz), segment.p_filesz);
    }
    for (const Elf64_Shdr &section : elf.sections())
        if (section.sh_type == SHT_RELA && section.sh_size)
            throw std::runtime_error("a code object needs relocations, which the interpreter does not do");
    return memory;
}

Value metadata_of(const Elf &elf)
{
    constexpr std::uint32_t metadata_note = 32; /* NT_AMDGPU_METADATA */
    for (const Elf64_Phdr &segment : elf.segments()) {
        if (segment.p_type != PT_NOTE)
            continue;
        const auto note = read_at<Elf64_Nhdr>(elf.at(segment.p_offset, sizeof(Elf64_Nhdr)));
        const std::uint64_t text = segment.p_offset + sizeof note + (note.n_namesz + 3) / 4 * 4;
        if (note.n_type == metadata_note) {
            const unsigned char *begin = elf.at(text, note.n_descsz);
            return parse_msgpack(begin, begin + note.n_descsz);
        }
    }
    throw std::runtime_error("a code object has no metadata");
}

Elf64_Sym symbol_of(const Elf &elf, const std::string &name)
{
    const std::vector<Elf64_Shdr> sections = elf.sections();
    for (const Elf64_Shdr &section : sections) {
        if (section.sh_type != SHT_DYNSYM)
            continue;
        const Elf64_Shdr &names = sections.at(section.sh_link);
        for (std::uint64_t at = 0; at < section.sh_size; at += sizeof(Elf64_Sym)) {
            const auto symbol = read_at<Elf64_Sym>(elf.at(section.sh_offset + at, sizeof(Elf64_Sym)));
            const unsigned char *text = elf.at(names.sh_offset + symbol.st_name, name.size() + 1);
            if (std::memcmp(text, name.c_str(), name.size() + 1) == 0)
                return symbol;
        }
    }
    throw std::runtime_error("a code object has no symbol " + name);
}

/* ---- Kernels ---- */

void read_arguments(const Value &arguments, KernelCode &kernel)
{
    for (const Value &argument : arguments.list) {
        const std::string &kind = argument[".value_kind"].text;
        const std::size_t offset = argument[".offset"].number, size = argument[".size"].number;
        if (kind.compare(0, 7, "hidden_") == 0)
            kernel.hidden.push_back({kind, offset, size});
        else
            kernel.parameter_bytes = offset + size;
    }
}

void read_descriptor(const CodeObject &object, std::uint64_t address, KernelCode &kernel)
{
    if (address > object.memory.size() || DESCRIPTOR_BYTES > object.memory.size() - address)
        throw std::runtime_error("a kernel's descriptor is not in the code object");
    const unsigned char *descriptor = &object.memory[address];
    kernel.begin = address + read_at<std::uint64_t>(descriptor + ENTRY_AT);
    kernel.resources = read_at<std::uint32_t>(descriptor + RESOURCES_AT);
    kernel.properties = read_at<std::uint16_t>(descriptor + PROPERTIES_AT);
    kernel.preloaded = read_at<std::uint16_t>(descriptor + PRELOADED_AT);
}

unsigned number(const Value &kernel, const char *key)
{
    return static_cast<unsigned>(kernel[key].number);
}

KernelCode read_kernel(const Elf &elf, const CodeObject &object, const Value &metadata)
{
    KernelCode kernel;
    kernel.name = metadata[".name"].text;
    kernel.wave_size = number(metadata, ".wavefront_size");
    kernel.max_threads = number(metadata, ".max_flat_workgroup_size");
    kernel.argument_bytes = number(metadata, ".kernarg_segment_size");
    kernel.lds_bytes = number(metadata, ".group_segment_fixed_size");
    kernel.scratch_bytes = number(metadata, ".private_segment_fixed_size");
    kernel.vector_registers = number(metadata, ".vgpr_count");
    kernel.scalar_registers = number(metadata, ".sgpr_count");
    kernel.vector_spills = number(metadata, ".vgpr_spill_count");
    kernel.scalar_spills = number(metadata, ".sgpr_spill_count");
    read_arguments(metadata[".args"], kernel);
    read_descriptor(object, symbol_of(elf, metadata[".symbol"].text).st_value, kernel);
    const Elf64_Sym code = symbol_of(elf, kernel.name);
    kernel.end = code.st_value + code.st_size;
    if (kernel.begin != code.st_value || kernel.end > object.memory.size())
        throw std::runtime_error("kernel " + kernel.name + " is not where its symbol says");
    return kernel;
}

CodeObject read_object(const std::string &target, const Elf &elf)
{
    CodeObject object;
    object.target = target;
    object.memory = load(elf);
    const Value metadata = metadata_of(elf);
    if (metadata["amdhsa.target"].text.find(target) == std::string::npos)
        throw std::runtime_error("the code object for " + target + " is for " + metadata["amdhsa.target"].text);
    for (const Value &kernel : metadata["amdhsa.kernels"].list)
        object.kernels.push_back(read_kernel(elf, object, kernel));
    return object;
}

} // namespace

/* The bundle: the magic, a count, and for each entry offset, size, and its name's length and text. */
std::vector<CodeObject> read_bundle(const void *image)
{
    const auto *bytes = static_cast<const unsigned char *>(image);
    if (std::strncmp(static_cast<const char *>(image), bundle_magic, sizeof bundle_magic - 1) != 0)
        return {};
    std::vector<CodeObject> objects;
    const unsigned char *next = bytes + sizeof bundle_magic - 1;
    auto count = read_at<std::uint64_t>(next);
    next += 8;
    for (; count; count--) {
        const auto offset = read_at<std::uint64_t>(next), size = read_at<std::uint64_t>(next + 8),
                   length = read_at<std::uint64_t>(next + 16);
        const std::string name(reinterpret_cast<const char *>(next + 24), length);
        next += 24 + length;
        if (name.compare(0, sizeof bundle_entry - 1, bundle_entry) == 0)
            objects.push_back(read_object(name.substr(sizeof bundle_entry - 1), {bytes + offset, size}));
    }
    return objects;
}

} // namespace amdgpu
