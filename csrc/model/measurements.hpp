// What was measured of a compiled model and kept in its manifest: the library acts on none of it, and still opens no model whose
// statements contradict themselves.  The rules of engine/temperature.py and engine/precision_evidence.py.
#pragma once

#include <string>

#include "model/record.hpp"

namespace fusedx {

// Of the manifest's keys `temperature` and `precision_evidence`, each absent, null or an object; Malformed says what is wrong.
void check_temperature(const Record& manifest, const std::string& task);
void check_precision_evidence(const Record& manifest, const std::string& precision, const std::string& encoder_precision);

}  // namespace fusedx
