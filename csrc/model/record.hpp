// A JSON object as a record of known fields: each is asked for once, with its type; unknown and missing ones are errors.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "model/json.hpp"

namespace fusedx {

// Everything throws Malformed that names the place (`where`, as "manifest.network") and what it should be.
class Record {
public:
    // optional: names that may be absent; the getters below then give their defaults.
    Record(const json::Value& value, std::string where, std::initializer_list<const char*> required,
           std::initializer_list<const char*> optional = {});

    const json::Value* find(const char* key) const { return value_.find(key); }
    std::string place(const std::string& key) const { return where_ + "." + key; }

    std::string text(const char* key, const char* otherwise = "") const;
    bool flag(const char* key, bool otherwise) const;
    uint64_t whole(const char* key, uint64_t low, uint64_t high, uint64_t otherwise = 0) const;
    double real(const char* key) const;
    std::vector<std::string> texts(const char* key) const;
    std::vector<double> reals(const char* key) const;
    const json::Array& items(const char* key) const;     // of a list, empty where absent
    const json::Object& members(const char* key) const;  // of an object, empty where absent

private:
    const json::Value& value_;
    std::string where_;
};

// A value of one type; Malformed names `where`.
std::string to_text(const json::Value& value, const std::string& where);
double to_real(const json::Value& value, const std::string& where);

void require_one_of(const std::string& name, const std::string& value, const std::vector<std::string>& allowed);

}  // namespace fusedx
