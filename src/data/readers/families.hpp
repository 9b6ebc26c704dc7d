// The families of readers: each adds its rows to the table. A new family is a file and a line here and in table.cpp.
#pragma once

#include "data/readers/reader.hpp"

namespace flanmoe {

void add_plain_readers(std::vector<Reader>& rows);
void add_prompt_readers(std::vector<Reader>& rows);
void add_mathematics_readers(std::vector<Reader>& rows);
void add_choice_readers(std::vector<Reader>& rows);
void add_reading_readers(std::vector<Reader>& rows);
void add_pair_readers(std::vector<Reader>& rows);
void add_downstream_readers(std::vector<Reader>& rows);

}  // namespace flanmoe
