#include "model/record.hpp"

#include <algorithm>

#include "model/text.hpp"

namespace fusedx {

[[noreturn]] static void wrong_type(const std::string& where, const char* wanted, const json::Value& value) {
    throw Malformed(where + " must be " + wanted + ", got " + value.type());
}

Record::Record(const json::Value& value, std::string where, std::initializer_list<const char*> required,
               std::initializer_list<const char*> optional)
    : value_(value), where_(std::move(where)) {
    const auto* members = value.get<json::Object>();
    if (!members) wrong_type(where_, "an object", value);
    std::vector<std::string> known(required.begin(), required.end());
    known.insert(known.end(), optional.begin(), optional.end());
    for (const json::Member& member : *members)
        if (std::find(known.begin(), known.end(), member.key) == known.end())
            throw Malformed(where_ + " has an unknown key " + quoted(member.key) + suggestion(member.key, known));
    std::vector<std::string> missing;
    for (const char* key : required)
        if (!value.find(key)) missing.push_back(key);
    if (!missing.empty()) throw Malformed(where_ + " lacks " + joined(missing));
}

std::string to_text(const json::Value& value, const std::string& where) {
    const auto* text = value.get<std::string>();
    if (!text) wrong_type(where, "str", value);
    return *text;
}

double to_real(const json::Value& value, const std::string& where) {
    if (const auto* x = value.get<double>()) return *x;
    const auto* n = value.get<json::Integer>();
    if (!n) wrong_type(where, "float", value);
    if (n->wide) throw Malformed(where + " must be float, got an integer of many digits");
    return n->negative ? -static_cast<double>(n->magnitude) : static_cast<double>(n->magnitude);
}

std::string Record::text(const char* key, const char* otherwise) const {
    const json::Value* value = find(key);
    return value ? to_text(*value, place(key)) : otherwise;
}

bool Record::flag(const char* key, bool otherwise) const {
    const json::Value* value = find(key);
    if (!value) return otherwise;
    const bool* is = value->get<bool>();
    if (!is) wrong_type(place(key), "bool", *value);
    return *is;
}

uint64_t Record::whole(const char* key, uint64_t low, uint64_t high, uint64_t otherwise) const {
    const json::Value* value = find(key);
    if (!value) return otherwise;
    const auto* n = value->get<json::Integer>();
    if (!n) wrong_type(place(key), "int", *value);
    if (!n->within(low, high))
        throw Malformed(place(key) + " must be an integer from " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
                        json::shown(*value));
    return n->magnitude;
}

double Record::real(const char* key) const { return to_real(*find(key), place(key)); }

const json::Array& Record::items(const char* key) const {
    static const json::Array none;
    const json::Value* value = find(key);
    if (!value) return none;
    const auto* items = value->get<json::Array>();
    if (!items) wrong_type(place(key), "a list", *value);
    return *items;
}

std::vector<std::string> Record::texts(const char* key) const {
    std::vector<std::string> out;
    for (const json::Value& item : items(key))
        out.push_back(to_text(item, place(key) + "[" + std::to_string(out.size()) + "]"));
    return out;
}

std::vector<double> Record::reals(const char* key) const {
    std::vector<double> out;
    for (const json::Value& item : items(key))
        out.push_back(to_real(item, place(key) + "[" + std::to_string(out.size()) + "]"));
    return out;
}

const json::Object& Record::members(const char* key) const {
    static const json::Object none;
    const json::Value* value = find(key);
    if (!value) return none;
    const auto* members = value->get<json::Object>();
    if (!members) wrong_type(place(key), "an object", *value);
    return *members;
}

void require_one_of(const std::string& name, const std::string& value, const std::vector<std::string>& allowed) {
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
        throw Malformed(name + " must be one of " + joined(allowed) + "; got " + quoted(value));
}

}  // namespace fusedx
