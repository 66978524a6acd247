/* MessagePack, as far as code objects use it for their metadata. */
#ifndef DRAFTMETA_AMDGPU_MSGPACK_HPP
#define DRAFTMETA_AMDGPU_MSGPACK_HPP

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace amdgpu
{

struct Value {
    std::uint64_t number = 0; /* booleans too */
    std::string text;
    std::vector<Value> list;
    std::map<std::string, Value> map;

    /* The entry of a map; an empty value if it is not there. */
    const Value &operator[](const std::string &key) const;
};

/* Throws std::runtime_error where the bytes are something else. */
Value parse_msgpack(const unsigned char *begin, const unsigned char *end);

} // namespace amdgpu

#endif
