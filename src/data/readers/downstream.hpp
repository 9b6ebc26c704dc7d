// Texts that CxC's files only name.
#pragma once

#include <filesystem>
#include <string>

namespace flanmoe {

inline constexpr const char* captions_file = "captions_val2014.json";  ///< of MS-COCO, beside CxC's files

/// The caption that an id of CxC ("COCO_val2014:sentid:190268") names in the captions file beside `data`, which is read once; the id as it is where there is no such
/// file, with one warning. Any other text is a caption itself. RecordProblem if the file lacks it.
std::string caption_text(const std::filesystem::path& data, const std::string& caption);

}  // namespace flanmoe
