#include "msgpack.hpp"

#include <stdexcept>

namespace amdgpu
{

namespace
{

struct Reader {
    const unsigned char *next, *end;

    const unsigned char *take(std::uint64_t bytes)
    {
        if (bytes > static_cast<std::uint64_t>(end - next))
            throw std::runtime_error("the metadata end early");
        next += bytes;
        return next - bytes;
    }

    std::uint64_t big_endian(unsigned bytes)
    {
        std::uint64_t value = 0;
        for (const unsigned char *from = take(bytes); bytes; bytes--)
            value = value << 8 | *from++;
        return value;
    }

    Value text(std::uint64_t length)
    {
        Value value;
        value.text.assign(reinterpret_cast<const char *>(take(length)), length);
        return value;
    }

    Value list(std::uint64_t count)
    {
        Value value;
        for (; count; count--)
            value.list.push_back(any());
        return value;
    }

    Value map(std::uint64_t count)
    {
        Value value;
        for (; count; count--) {
            const std::string key = any().text;
            value.map[key] = any();
        }
        return value;
    }

    static Value number(std::uint64_t n)
    {
        Value value;
        value.number = n;
        return value;
    }

    Value any()
    {
        const unsigned type = *take(1);
        if (type < 0x80)
            return number(type);
        if (type < 0x90)
            return map(type & 15);
        if (type < 0xa0)
            return list(type & 15);
        if (type < 0xc0)
            return text(type & 31);
        switch (type) {
        case 0xc2: /* false, true */
        case 0xc3:
            return number(type & 1);
        case 0xcc: /* unsigned */
        case 0xcd:
        case 0xce:
        case 0xcf:
            return number(big_endian(1u << (type - 0xcc)));
        case 0xd9: /* text */
        case 0xda:
        case 0xdb:
            return text(big_endian(1u << (type - 0xd9)));
        case 0xdc:
        case 0xdd:
            return list(big_endian(type == 0xdc ? 2 : 4));
        case 0xde:
        case 0xdf:
            return map(big_endian(type == 0xde ? 2 : 4));
        default:
            throw std::runtime_error("metadata of an unknown type");
        }
    }
};

} // namespace

const Value &Value::operator[](const std::string &key) const
{
    static const Value none;
    const auto found = map.find(key);
    return found == map.end() ? none : found->second;
}

Value parse_msgpack(const unsigned char *begin, const unsigned char *end)
{
    return Reader{begin, end}.any();
}

} // namespace amdgpu
